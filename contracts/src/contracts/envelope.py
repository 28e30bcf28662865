"""A message as a Kafka record and back: CloudEvents 1.0 in binary mode (`ce_*` headers; the value is only the data).

PURE: bytes in, values out. No client, no clock: the writer says when and under which id.
Source: CloudEvents Kafka protocol binding 1.0.2, section 3.2.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from fnmatch import fnmatchcase

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from contracts.messages import Message, Problem
from contracts.messages.base import NAME_PATTERN, NAME_RULE

_LONGEST_ID = 256

Headers = Sequence[tuple[str, bytes]]

_LONGEST_REASON = 4096


@dataclass(frozen=True, slots=True)
class Envelope:
    """Everything about a message but the message: CloudEvents attributes and the W3C trace context."""

    id: str
    source: str
    time: datetime | None = None
    traceparent: str | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """A record as it lies in the log; `value` None deletes its key."""

    topic: str
    partition: int
    offset: int
    key: str | None
    value: bytes | None
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def origin(self) -> str:
        """Where the record lies, as a name: topic-partition-offset."""
        return f"{self.topic}-{self.partition}-{self.offset}"


class Undecodable(ValueError):
    """A record that is no message this reader knows. `problems` has every reason, `id` the sender's id for it."""

    def __init__(self, record: Record, problems: tuple[Problem, ...]):
        self.record = record
        self.problems = problems
        self.id = message_id(record)
        reasons = "; ".join(f"{problem.field}: {problem.message}" for problem in problems)
        super().__init__(f"{record.origin}: {reasons}"[:_LONGEST_REASON])


def encode(message: Message, envelope: Envelope) -> tuple[bytes, bytes, list[tuple[str, bytes]]]:
    """The record's key, value and headers."""
    headers = {
        "ce_specversion": "1.0",
        "ce_id": envelope.id,
        "ce_source": envelope.source,
        "ce_type": message.TYPE,
        "content-type": "application/json",
    }
    if envelope.time is not None:
        headers["ce_time"] = envelope.time.isoformat()
    if envelope.traceparent is not None:
        headers["traceparent"] = envelope.traceparent
    return (
        message.key().encode(),
        message.model_dump_json().encode(),
        [(name, value.encode()) for name, value in headers.items()],
    )


def text_headers(headers: Iterable[tuple[str, bytes | None]]) -> dict[str, str]:
    """Headers as text; bytes that are no UTF-8 are replaced, a repeated name keeps the last value."""
    return {name: (value or b"").decode(errors="replace") for name, value in headers}


def message_id(record: Record) -> str:
    """The sender's id for the record, or where it lies when the sender gave none, or one of over 256 characters: the
    same at every replay."""
    given = record.headers.get("ce_id", "")
    return given if 0 < len(given) <= _LONGEST_ID else record.origin


def decode(record: Record, *, strict: bool = False) -> Message:
    """The message in `record`.

    Readers ignore fields that they do not know, so that writers may add some. With `strict`, for commands that people
    write, an unknown field is a mistake. Raises Undecodable with every problem.
    """
    type_name = record.headers.get("ce_type")
    if type_name is None:
        problem = "is missing: say what the record is, for example ce_type=endpunkt.UpdateEndpoint.v1"
        raise Undecodable(record, (Problem(code="BadArgument", field="ce_type", message=problem),))
    message_type = Message.registry.get(type_name)
    if message_type is None or not fnmatchcase(record.topic, message_type.TOPIC):
        known = sorted(name for name, known in Message.registry.items() if fnmatchcase(record.topic, known.TOPIC))
        problem = f"'{type_name[:100]}' is not a message of {record.topic}; it carries {', '.join(known) or 'nothing'}"
        raise Undecodable(record, (Problem(code="BadArgument", field="ce_type", message=problem),))
    if record.value is None:
        problem = "is empty: this topic takes JSON documents"
        raise Undecodable(record, (Problem(code="BadArgument", field="value", message=problem),))
    try:
        return message_type.model_validate_json(record.value, extra="forbid" if strict else "ignore")
    except ValidationError as error:
        raise Undecodable(record, problems_of(error)) from None


def problems_of(error: ValidationError) -> tuple[Problem, ...]:
    """Each of pydantic's complaints as a Problem. Values are not repeated: they may be long, or secret."""
    return tuple(
        Problem(
            code="BadArgument",
            field=".".join(str(part) for part in detail["loc"]) or "value",
            message=_in_words(detail),
        )
        for detail in error.errors(include_url=False, include_input=False)
    )


def _in_words(detail: ErrorDetails) -> str:
    if detail["type"] == "extra_forbidden":
        return "unknown field; check its spelling and its place"
    if detail.get("ctx", {}).get("pattern") == NAME_PATTERN:
        return f"is no name: write {NAME_RULE}"
    return detail["msg"]
