"""Secrets by reference: an environment variable's value that names a connection's credential, target or metadata.

PURE: text in, references and problems out; no clock, no randomness, no I/O.
Source: "Access secrets from online deployment using secret injection" of Azure ML's documentation. A reference is the
whole value:

    ${{azureml://connections/NAME}}                    the whole connection, as the JSON that Azure's ListSecrets gives
    ${{azureml://connections/NAME/credentials/KEY}}
    ${{azureml://connections/NAME/metadata/KEY}}
    ${{azureml://connections/NAME/target}}
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from contracts.messages import Problem

_MARK = re.compile(r"\$\{\{\s*(azureml|keyvault):", re.IGNORECASE)
_WHOLE = re.compile(
    r"\$\{\{\s*azureml://connections/(?P<connection>[A-Za-z0-9][A-Za-z0-9_-]{2,32})"
    r"(/(?P<target>target)|/(?P<part>credentials|metadata)/(?P<key>[A-Za-z0-9_.-]{1,128}))?\s*\}\}"
)
_FORMS = (
    "a reference is the whole value, in one of the forms ${{azureml://connections/NAME}}, "
    "…/NAME/credentials/KEY}}, …/NAME/metadata/KEY}} and …/NAME/target}}"
)
_KEY_VAULT = (
    "there are no key vaults here: keep the secret in a connection (endpunkt connection create) and write "
    "${{azureml://connections/NAME/credentials/KEY}}"
)
_ONLINE_ONLY = "secrets are injected into online deployments only, as in Azure: remove the reference"


@dataclass(frozen=True, slots=True)
class Reference:
    """What a value stands for. `key` is "" for the target and for the whole connection."""

    connection: str
    part: Literal["connection", "credentials", "metadata", "target"]
    key: str = ""


class BadReference(ValueError):
    """A value looks like a reference and is none; the text says what to write."""


def parse(value: str) -> Reference | None:
    """The reference that `value` is; None for any other text. Raises BadReference."""
    mark = _MARK.search(value)
    if mark is None:
        return None
    if mark[1].lower() == "keyvault":
        raise BadReference(_KEY_VAULT)
    match = _WHOLE.fullmatch(value.strip())
    if match is None:
        raise BadReference(_FORMS)
    if match["target"]:
        return Reference(match["connection"], "target")
    if match["part"] == "credentials":
        return Reference(match["connection"], "credentials", match["key"])
    if match["part"] == "metadata":
        return Reference(match["connection"], "metadata", match["key"])
    return Reference(match["connection"], "connection")


def problems(field: str, variables: Mapping[str, str], *, online: bool = True) -> Iterator[Problem]:
    """What is wrong with the references among `variables`, which stand in `field` of a command. Whether a connection
    is there is not asked: it may come later, and each instance's start asks."""
    for name, value in variables.items():
        try:
            reference = parse(value)
        except BadReference as error:
            yield Problem(code="BadArgument", field=f"{field}.{name}", message=str(error))
        else:
            if reference is not None and not online:
                yield Problem(code="BadArgument", field=f"{field}.{name}", message=_ONLINE_ONLY)
