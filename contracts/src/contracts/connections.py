"""What a connection is: where something outside is, and the credentials for it.

PURE: values; no clock, no I/O. A connection is no message: its credentials are on no topic (see `shell.connections`).
"""

from typing import Annotated

from pydantic import Field

from contracts.messages import Part, Tags, Timestamp

ConnectionName = Annotated[
    str,
    Field(
        pattern=r"^[a-zA-Z0-9][a-zA-Z0-9_-]{2,32}$",
        description="Azure's naming rule: 3-33 letters, digits, hyphens and underscores; starts with a letter or digit",
    ),
]
FieldName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,128}$")]
# Linux takes 128 KiB in one environment variable, and none with a NUL.
Value = Annotated[str, Field(max_length=32_768, pattern=r"^[^\x00]*$")]
Credential = Annotated[str, Field(min_length=1, max_length=32_768, pattern=r"^[^\x00]*$")]


class ConnectionSpec(Part):
    """A connection as a person writes it. `credentials` by name: an API key's is `key`."""

    type: str = Field(pattern=r"^[a-z][a-z0-9_]{1,63}$", examples=["custom", "api_key", "azure_open_ai"])
    description: str = ""
    tags: Tags = Field(default={})
    target: Value | None = None
    credentials: dict[FieldName, Credential] = Field(default={}, max_length=64)
    metadata: dict[FieldName, Value] = Field(default={}, max_length=64)


class Connection(Part):
    """A connection as it is kept. `spec.credentials` are sealed in the file and open in memory."""

    name: ConnectionName
    created_at: Timestamp
    updated_at: Timestamp
    spec: ConnectionSpec
