"""The catalogue of instance types and prices (catalog.yaml, or the file that ENDPUNKT_CATALOG names).

It reads that one file and nothing else: no clock, no Kafka client.
"""

from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from contracts.envelope import problems_of
from contracts.messages import INSTANCE_TIME, REQUESTS

_MICROSECONDS_PER_HOUR = 3_600_000_000
_QUANTUM = Decimal("1e-12")
# Digits for one division: more than any sum of quantities times any price needs, so that only the last step rounds.
_PRECISION = 60


class InstanceType(BaseModel):
    """What an instance may use, and the price of an hour of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    vcpus: float = Field(gt=0)
    memory_gib: float = Field(gt=0)
    price_per_hour: Decimal = Field(ge=0)


class Catalog(BaseModel):
    """Instance types by name, and prices, all in one currency."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    currency: str
    instance_types: dict[str, InstanceType]
    price_per_million_requests: Decimal = Field(ge=0)

    def cost(self, meter: str, quantity: int) -> Decimal:
        """What `quantity` of `meter` costs, rounded half even to 12 decimals.

        Raises KeyError with the meter's name when the catalogue has no price for it.
        """
        with localcontext(prec=_PRECISION):
            if meter == REQUESTS:
                exact = quantity * self.price_per_million_requests / 1_000_000
            elif meter.startswith(INSTANCE_TIME) and (
                kind := self.instance_types.get(meter.removeprefix(INSTANCE_TIME))
            ):
                exact = quantity * kind.price_per_hour / _MICROSECONDS_PER_HOUR
            else:
                raise KeyError(meter)
            return exact.quantize(_QUANTUM, rounding=ROUND_HALF_EVEN)


def load_catalog(path: Path | None = None) -> Catalog:
    """The catalogue in `path`, or the one that comes with Endpunkt. Raises ValueError with every problem."""
    source = path or Path(__file__).with_name("catalog.yaml")
    try:
        return Catalog.model_validate(yaml.safe_load(source.read_text(encoding="utf-8")))
    except ValidationError as error:
        problems = "; ".join(f"{problem.field}: {problem.message}" for problem in problems_of(error))
        raise ValueError(f"{source} is no catalogue: {problems}") from None
    except (OSError, yaml.YAMLError) as error:
        raise ValueError(f"cannot read {source}: {error}") from None


CatalogFile = Annotated[
    Catalog, BeforeValidator(lambda given: given if isinstance(given, Catalog) else load_catalog(Path(given)))
]
"""A setting that names a catalogue's file."""
