"""Whatever is killed beside the router comes back by itself, and who scores meanwhile sees nothing of it."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from errno import EADDRINUSE
from signal import SIGKILL
from typing import Any
from urllib.parse import urlsplit

import pytest
from tests.integration.house import PATIENCE, House, walked

from contracts.shell.processes import ProcessIdentity
from endpunkt_infra.demo.client import Answers, Client
from endpunkt_infra.demo.load import steady_load
from endpunkt_infra.kafka.broker import Broker

RATE = 20.0
"""Requests a second."""

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with walked(tmp_path_factory.mktemp("house")) as house:
        yield house


@pytest.fixture(scope="module")
def routed() -> list[int]:
    """How many requests each test had answered by a deployment."""
    return [1]  # README's walk


def addresses(house: House) -> dict[str, str]:
    environment = house.environment()
    return {"management": environment["ENDPUNKT_STUDIO_URL"], "scoring": environment["ENDPUNKT_SCORING_URL"]}


@asynccontextmanager
async def scoring(house: House, routed: list[int]) -> AsyncIterator[tuple[Client, Answers]]:
    """Requests at a steady rate for as long as it lasts; none of them may fail."""
    body = (house.work / "examples/diabetes/request.json").read_bytes()
    answers, stop = Answers(), asyncio.Event()
    async with Client(house.home, house.work, addresses(house)) as client:
        key = (await client.command("online-endpoint", "get-credentials", "--name", "diabetes"))["primaryKey"]
        load = asyncio.create_task(steady_load(lambda _: client.score(answers, key, body), RATE, stop))
        try:
            yield client, answers
        finally:
            stop.set()
            await load
            routed.append(client.routed)
    assert answers.sent > 0
    assert (answers.failed, answers.errors) == (0, [])


def process(house: House, name: str) -> ProcessIdentity | None:
    if name != "kafka":
        return house.process(name)
    running = Broker(house.home / "kafka").running
    return running.process if running else None


async def kill(house: House, name: str) -> ProcessIdentity:
    killed = process(house, name)
    assert killed is not None
    killed.send(SIGKILL)
    assert await asyncio.to_thread(killed.wait, PATIENCE)
    return killed


async def back(house: House, client: Client, name: str, killed: ProcessIdentity) -> None:
    async def ask() -> ProcessIdentity | None:
        return process(house, name)

    await client.until(f"{name} is back", ask, lambda now: now not in (None, killed), PATIENCE)


async def two_more_seconds(client: Client, answers: Answers) -> None:
    enough = answers.sent + 2 * int(RATE)

    async def sent() -> int:
        return answers.sent

    await client.until("more load", sent, lambda count: count >= enough, PATIENCE)


async def works(house: House, client: Client, blue: int) -> None:
    """A command takes effect: studio, Kafka, provisioner and router do their parts."""
    split = f"blue={blue} green={100 - blue}"

    async def update() -> dict[str, Any] | None:
        done = await asyncio.to_thread(
            house.endpunkt, "online-endpoint", "update", "-n", "diabetes", "--traffic", split
        )
        return {"traffic": house.traffic()} if done.returncode == 0 else None

    wanted = {"traffic": {"blue": blue, "green": 100 - blue}}
    await client.until("commands work", update, lambda seen: seen == wanted, PATIENCE)


@pytest.mark.parametrize(
    ("blue", "name"),
    [(10, "kafka"), (20, "provisioner"), (30, "autoscaler"), (40, "batch-runner"), (50, "metering"), (60, "studio")],
)
async def test_what_is_killed_comes_back_and_no_request_fails(
    house: House, routed: list[int], blue: int, name: str
) -> None:
    async with scoring(house, routed) as (client, answers):
        await back(house, client, name, await kill(house, name))
        await two_more_seconds(client, answers)
        await works(house, client, blue)


async def test_kafka_is_tried_again_until_its_address_is_free(house: House, routed: list[int]) -> None:
    address = urlsplit(f"//{house.environment()['KAFKA_BOOTSTRAP_SERVERS']}")
    log = house.home / "logs" / "supervisor.log"
    async with scoring(house, routed) as (client, _):
        with socket.socket() as squatter:
            squatter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)

            async def taken() -> bool:
                try:
                    squatter.bind((address.hostname, address.port))
                except OSError as error:  # the killed one's socket may outlive it by a moment
                    if error.errno != EADDRINUSE:
                        raise
                    return False
                squatter.listen()
                return True

            killed = await kill(house, "kafka")
            await client.until("the address is taken", taken, bool, PATIENCE)

            async def said() -> int:
                return log.read_text().count("Kafka could not be started again")

            await client.until("two failed starts", said, lambda count: count >= 2, PATIENCE)
        await back(house, client, "kafka", killed)
        await works(house, client, 70)
    assert f"{address.netloc} is taken by another process" in log.read_text()
    assert house.environment()["KAFKA_BOOTSTRAP_SERVERS"] == address.netloc


async def test_every_request_of_these_tests_is_metered_once(house: House, routed: list[int]) -> None:
    async with Client(house.home, house.work, addresses(house)) as client:

        async def requests() -> int:
            costs = await client.get("/v1/costs")
            return sum(endpoint["requests"] for endpoint in costs["endpoints"])

        enough = sum(routed)
        metered = await client.until("all are metered", requests, lambda count: count >= enough, PATIENCE)
    assert metered == enough
