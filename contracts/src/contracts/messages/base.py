"""What every message shares.

PURE: pydantic and the standard library. No clock, no randomness, no I/O and no Kafka client enters this package:
a message is a value, and whoever makes one says when.
"""

from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Self

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field

NAME_PATTERN = r"^[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?$"
NAME_RULE = "3 to 32 letters, digits and hyphens; it starts with a letter and ends with no hyphen"

Name = Annotated[
    str,
    Field(
        min_length=3,
        max_length=32,
        pattern=NAME_PATTERN,
        description=f"Azure's naming rule: {NAME_RULE}",
    ),
]


def _to_utc(value: datetime) -> datetime:
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise ValueError("is not within the years 1 to 9999 of UTC") from None


Timestamp = Annotated[AwareDatetime, AfterValidator(_to_utc)]

Tags = dict[str, str]


class Part(BaseModel):
    """A piece of a message: immutable, and written without unknown fields (readers ignore them, see `envelope`)."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_timedelta="iso8601")


class Message(Part):
    """A record's value. `TOPIC` says where it goes, `TYPE` what its CloudEvents type is, `key()` what it is about."""

    TOPIC: ClassVar[str]
    TYPE: ClassVar[str]

    registry: ClassVar[dict[str, type["Message"]]] = {}

    def __init_subclass__(cls, *, abstract: bool = False, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if not abstract:
            cls.TYPE = f"endpunkt.{cls.__name__}.v1"
            Message.registry[cls.TYPE] = cls

    def key(self) -> str:
        """The record key: records with equal keys stay in order."""
        raise NotImplementedError

    def replace(self, **changes: Any) -> Self:
        """A copy with `changes`, validated again."""
        return type(self).model_validate({**dict(iter(self)), **changes})


class Problem(Part):
    """One thing that is wrong with what somebody sent: Azure's error code, the field's path, the next step."""

    code: str = Field(examples=["BadArgument"])
    field: str = Field(examples=["traffic.blue"])
    message: str


def hour_of(at: datetime) -> datetime:
    """The start of the UTC hour that holds `at`."""
    return at.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
