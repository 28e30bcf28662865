"""Usage and what it costs.

PURE, see `base`. Quantities are integers and money is decimal: nothing here is ever a float.
"""

from decimal import Decimal
from typing import Annotated, ClassVar

from pydantic import Field, PlainSerializer, model_validator

from contracts.messages.base import Message, Name, Part, Timestamp, hour_of

REQUESTS = "requests"
INSTANCE_TIME = "instance-time/"
"""Prefix of the meters that count microseconds of an instance type: `instance-time/Standard_DS1_v2`."""

Quantity = Annotated[int, Field(ge=0)]

Money = Annotated[Decimal, PlainSerializer(lambda amount: f"{amount:f}", return_type=str, when_used="json")]
"""Decimal text without an exponent: 0.000000300000."""


class UsageRecorded(Message):
    """What one source saw of one deployment between two instants of one hour.

    `sequence` counts 1, 2, 3, … for each (source, epoch, endpoint, deployment): a repeated number is a duplicate and a
    skipped one a loss that metering can see. `epoch` is larger after each restart of the source. A source that goes on
    counting says so (`open`) in every record but the last one that it tells before it stops: where a larger epoch
    follows on an open record, the source was killed and took at most one interval with it (a source that was killed
    before its first record of a deployment leaves nothing to see). A source that forgets nothing when it is killed, or
    cannot say, leaves its records closed.
    """

    TOPIC: ClassVar[str] = "usage.events"

    source: str
    epoch: int = Field(ge=0)
    sequence: int = Field(ge=1)
    endpoint: Name
    deployment: Name
    started_at: Timestamp
    ended_at: Timestamp
    quantities: dict[str, Annotated[Quantity, Field(le=2**53 - 1)]] = Field(min_length=1)
    open: bool = Field(default=False, description="its source counts on, and forgets what it has not told when killed")

    @model_validator(mode="after")
    def _within_an_hour(self) -> "UsageRecorded":
        if not self.started_at <= self.ended_at:
            raise ValueError("ended_at must not be before started_at")
        if (self.ended_at - hour_of(self.started_at)).total_seconds() > 3600:
            raise ValueError("an interval must lie within one UTC hour: cut it at the hour")
        return self

    def key(self) -> str:
        return f"{self.endpoint}/{self.deployment}"


class Watermark(Part):
    """The last (epoch, sequence) that a rollup holds of one source, and whether that record was `open`."""

    epoch: int
    sequence: int
    open: bool = False


class UsageRollup(Message):
    """One hour of one deployment. Each of `costs` is quantity x price, rounded once, half even, to 12 decimals;
    every larger figure is a sum of these, so that parts always add up to the whole."""

    TOPIC: ClassVar[str] = "usage.rollups"

    endpoint: Name
    deployment: Name
    hour: Timestamp
    quantities: dict[str, Quantity]
    costs: dict[str, Money]
    currency: str
    lost: int = Field(
        default=0,
        ge=0,
        description="usage records that are missing: numbers that were skipped, and one for each kill of a source",
    )
    sources: dict[str, Watermark]

    def key(self) -> str:
        return f"{self.endpoint}/{self.deployment}/{self.hour:%Y-%m-%dT%HZ}"

    @property
    def cost(self) -> Decimal:
        """The sum of `costs`."""
        return sum(self.costs.values(), Decimal(0))
