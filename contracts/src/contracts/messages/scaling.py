"""What scaling is decided from, and what was decided.

PURE, see `base`.
"""

from typing import ClassVar, Literal

from pydantic import Field

from contracts.messages.base import Message, Name, Timestamp


class _Signal(Message, abstract=True):
    TOPIC: ClassVar[str] = "scaling.signals"

    endpoint: Name
    deployment: Name
    source: str
    at: Timestamp = Field(description="the start of the second that is told")

    def key(self) -> str:
        return f"{self.endpoint}/{self.deployment}"


class LoadSample(_Signal):
    """A deployment's requests in one second, as one router process saw them.

    A router tells every second of a deployment that has an autoscale setting, zeros too: silence means "unknown".
    `latency_ms_sum` and `latency_ms_max` are over the requests that ended within the second.
    """

    requests: int = Field(ge=0, le=2**53 - 1)
    failures: int = Field(ge=0, le=2**53 - 1)
    in_flight: int = Field(ge=0, le=2**53 - 1)
    latency_ms_sum: float = Field(ge=0)
    latency_ms_max: float = Field(ge=0)


class ResourceSample(_Signal):
    """An instance's use of its machine in one second, in percent of what its instance type grants."""

    instance: str
    cpu_percent: float = Field(ge=0)
    memory_percent: float = Field(ge=0)
    disk_percent: float | None = Field(default=None, ge=0, description="of the disk that holds its working folder")


class ScaleDecision(Message):
    """The latest decision about a deployment's instance count. `reason` explains it to a person.

    `cooldown_until` is when rules may decide again, by the rule that fired last; a decision that no rule made keeps
    it.
    """

    TOPIC: ClassVar[str] = "scaling.decisions"

    endpoint: Name
    deployment: Name
    decided_at: Timestamp
    previous: int = Field(ge=0)
    instances: int = Field(ge=0)
    kind: Literal["ScaleOut", "ScaleIn", "Bounds", "FlappingOccurred", "MetricMissing"]
    profile: str
    reason: str
    cooldown_until: Timestamp | None = None

    def key(self) -> str:
        return f"{self.endpoint}/{self.deployment}"
