"""The table of topics (contracts/topics.yaml) as typed rows.

It reads that one packaged file and nothing else: no Kafka client enters here.
"""

import re
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict

_UNITS = {"h": 3_600_000, "d": 86_400_000}


def _milliseconds(value: object) -> object:
    match = re.fullmatch(r"(\d+)([hd])", str(value))
    if match is None:
        raise ValueError("a retention is a number and h or d, such as 7d")
    return int(match[1]) * _UNITS[match[2]]


class Topic(BaseModel):
    """One row: what a topic carries and how Kafka keeps it. `retention` is in milliseconds; None is for ever."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    kind: Literal["Command", "State", "Event"]
    key: str
    cleanup: Literal["delete", "compact", "compact,delete"]
    partitions: int
    retention: Annotated[int, BeforeValidator(_milliseconds)] | None = None
    writer: str
    readers: tuple[str, ...]

    def config(self) -> dict[str, str]:
        """The topic's settings under Kafka's names."""
        config = {"cleanup.policy": self.cleanup, "retention.ms": str(self.retention or -1)}
        if "compact" in self.cleanup:
            # Deletions stay visible for a day: long enough for any reader that restarts.
            config |= {"min.cleanable.dirty.ratio": "0.2", "delete.retention.ms": str(_UNITS["d"])}
        return config


@cache
def topics() -> dict[str, Topic]:
    """Every topic by name, in the order of the file."""
    packaged = Path(__file__).with_name("topics.yaml")
    source = packaged if packaged.exists() else Path(__file__).parents[2] / "topics.yaml"
    rows = yaml.safe_load(source.read_text(encoding="utf-8"))
    return {name: Topic.model_validate({"name": name, **row}) for name, row in rows.items()}


def dead_letter_topic(service: str) -> str:
    """Where `service` parks what it cannot read."""
    return f"deadletter.{service}"
