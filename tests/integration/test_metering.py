"""Metering as a real process on a real broker: killed, doubled, fed nonsense, and every total exact."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

from aiokafka import AIOKafkaProducer

from contracts.catalog import load_catalog
from contracts.envelope import Record
from contracts.log import DeadLetters, KafkaSettings, Publisher, Reader, Table, Tail
from contracts.messages import INSTANCE_TIME, DeadLetter, Message, UsageRecorded, UsageRollup, hour_of
from endpunkt_infra.services import ServiceProcess

PATIENCE = 60
DS1 = f"{INSTANCE_TIME}Standard_DS1_v2"
DEPLOYMENTS = tuple(f"blue-{number}" for number in range(6))
THIS_HOUR = hour_of(datetime.now(UTC))

StartService = Callable[..., ServiceProcess]


def used(
    endpoint: str, sequence: int, *, deployment: str = "blue-0", source: str = "router-1", hours_ago: int = 0
) -> UsageRecorded:
    at = THIS_HOUR - timedelta(hours=hours_ago)
    return UsageRecorded(
        source=source,
        epoch=1,
        sequence=sequence,
        endpoint=endpoint,
        deployment=deployment,
        started_at=at,
        ended_at=at + timedelta(seconds=5),
        quantities={"requests": sequence, DS1: 1_000_003 * sequence},
    )


def load(endpoint: str, sequences: Sequence[int]) -> list[UsageRecorded]:
    """One source for each deployment, an hour's change on the way, and number 7 is lost everywhere."""
    return [
        used(endpoint, sequence, deployment=deployment, source=f"source-of-{deployment}", hours_ago=int(sequence <= 20))
        for sequence in sequences
        if sequence != 7
        for deployment in DEPLOYMENTS
    ]


def sums(events: Sequence[UsageRecorded]) -> dict[str, dict[str, int]]:
    """The quantities of each rollup, each record counted once."""
    rollups: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for event in {(event.source, event.deployment, event.sequence): event for event in events}.values():
        for meter, quantity in event.quantities.items():
            rollups[f"{event.key()}/{event.started_at:%Y-%m-%dT%HZ}"][meter] += quantity
    return {key: dict(meters) for key, meters in rollups.items()}


class Seen:
    """What stands on the bus: the committed rollups of one endpoint, and metering's dead letters about it."""

    def __init__(self, endpoint: str):
        self.endpoint = endpoint
        self.rollups = Table(UsageRollup, lambda _, __: self._changed.set())
        self.letters: list[DeadLetter] = []
        self.tail = Tail("deadletter.metering", self._park, since=datetime.fromtimestamp(0, UTC))
        self._changed = asyncio.Event()

    def _park(self, _: Record, letter: Message) -> None:
        assert isinstance(letter, DeadLetter)
        if (letter.record_key or "").startswith(f"{self.endpoint}/"):
            self.letters.append(letter)
            self._changed.set()

    def mine(self) -> list[UsageRollup]:
        return [rollup for rollup in self.rollups.entries.values() if rollup.endpoint == self.endpoint]

    def quantities(self) -> dict[str, dict[str, int]]:
        return {rollup.key(): rollup.quantities for rollup in self.mine()}

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not condition():
                self._changed.clear()
                await self._changed.wait()


@asynccontextmanager
async def bus(kafka: KafkaSettings, endpoint: str) -> AsyncIterator[tuple[Publisher, Seen]]:
    publisher = Publisher(kafka, "test")
    await publisher.start()
    seen = Seen(endpoint)
    reader = Reader(kafka, [seen.rollups, seen.tail], DeadLetters(publisher, "studio"))
    await asyncio.wait_for(reader.start(), PATIENCE)
    try:
        yield publisher, seen
    finally:
        await reader.stop()
        await publisher.stop()


async def publish(publisher: Publisher, events: Sequence[UsageRecorded]) -> None:
    await asyncio.gather(*[await publisher.send(event) for event in events])


async def test_totals_are_exact_and_add_up_with_duplicates_a_gap_and_a_kill_in_the_middle(
    kafka: KafkaSettings, start_service: StartService
) -> None:
    events = load("killed", range(1, 41))
    async with bus(kafka, "killed") as (publisher, seen):
        first = await asyncio.to_thread(start_service, "metering")
        publishing = asyncio.create_task(publish(publisher, [*events[:120], *events[:30]]))
        await seen.until(lambda: len(seen.mine()) > 0)
        first.kill()
        await publishing
        await publish(publisher, events[120:])
        await publish(publisher, events[100:])
        await asyncio.to_thread(start_service, "metering")
        await seen.until(lambda: seen.quantities() == sums(events))
        # One record more for each deployment: when it is there, so is everything before it.
        events += load("killed", [41])
        await publish(publisher, events[-len(DEPLOYMENTS) :])
        await seen.until(lambda: sum(rollup.quantities["requests"] for rollup in seen.mine()) >= (41 * 42 // 2 - 7) * 6)
        assert seen.quantities() == sums(events)
        assert sum(rollup.lost for rollup in seen.mine()) == len(DEPLOYMENTS)
        catalog = load_catalog()
        assert all(
            rollup.costs == {meter: catalog.cost(meter, quantity) for meter, quantity in rollup.quantities.items()}
            for rollup in seen.mine()
        )
        whole = sum((rollup.cost for rollup in seen.mine()), Decimal(0))
        parts = [sum((r.cost for r in seen.mine() if r.deployment == name), Decimal(0)) for name in DEPLOYMENTS]
        assert whole == sum(parts, Decimal(0)) > 0


async def test_two_processes_share_the_work_and_one_takes_over_when_the_other_is_killed(
    kafka: KafkaSettings, start_service: StartService, tmp_path: Path
) -> None:
    events = load("shared", range(1, 41))
    async with bus(kafka, "shared") as (publisher, seen):
        one = await asyncio.to_thread(start_service, "metering", home=tmp_path / "one")
        await asyncio.to_thread(start_service, "metering", home=tmp_path / "two")
        publishing = asyncio.create_task(publish(publisher, [*events[:150], *events[:150]]))
        await seen.until(lambda: len(seen.mine()) > 0)
        one.kill()
        await publishing
        await publish(publisher, events[150:])
        await seen.until(lambda: seen.quantities() == sums(events))
        assert sum(rollup.lost for rollup in seen.mine()) == len(DEPLOYMENTS)


async def test_what_is_malformed_or_far_too_late_is_parked_with_the_reason_and_the_others_are_undisturbed(
    kafka: KafkaSettings, start_service: StartService
) -> None:
    async with bus(kafka, "parked") as (publisher, seen):
        await asyncio.to_thread(start_service, "metering")
        await publisher.publish(used("parked", 1))
        raw = AIOKafkaProducer(**kafka.client())
        await raw.start()
        for value in (b"{", b'{"source": "router-1", "quantities": {"requests": -1}}'):
            headers = [("ce_type", UsageRecorded.TYPE.encode())]
            await raw.send_and_wait(UsageRecorded.TOPIC, value, key=b"parked/blue-0", headers=headers)
        await raw.stop()
        await publisher.publish(used("parked", 1, source="router-2", hours_ago=24 * 30))
        await publisher.publish(used("parked", 2))
        await seen.until(lambda: len(seen.letters) == 3 and [q["requests"] for q in seen.quantities().values()] == [3])
    reasons = sorted(letter.reason.split(": ", 1)[1] for letter in seen.letters)
    assert "quantities.requests: Input should be greater than or equal to 0" in " ".join(reasons)
    assert any("hours older than 3 days are closed" in reason for reason in reasons)
    assert any("Invalid JSON" in reason for reason in reasons)


async def test_prices_come_from_the_catalogue_that_is_named_and_an_unknown_meter_waits_for_its_price(
    kafka: KafkaSettings, start_service: StartService, tmp_path: Path
) -> None:
    prices = tmp_path / "prices.yaml"
    prices.write_text('currency: EUR\ninstance_types: {}\nprice_per_million_requests: "1.5"\n')
    async with bus(kafka, "priced") as (publisher, seen):
        service = await asyncio.to_thread(start_service, "metering", catalog=str(prices))
        await publisher.publish(used("priced", 1))
        await seen.until(lambda: len(seen.mine()) == 1)
        [rollup] = seen.mine()
        assert (rollup.currency, rollup.costs) == ("EUR", {"requests": Decimal("0.000001500000")})
        assert rollup.quantities[DS1] == 1_000_003
        assert f"no price for {DS1}" in service.log_tail()
        assert service.stop() == 0

        await asyncio.to_thread(start_service, "metering")
        await publisher.publish(used("priced", 2))
        await seen.until(lambda: seen.mine()[0].quantities["requests"] == 3)
        [rollup] = seen.mine()
        assert rollup.costs == {"requests": Decimal(0), DS1: load_catalog().cost(DS1, 3_000_009)}
