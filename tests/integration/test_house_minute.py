"""A minute of changes: the split moves, deployments are updated and scaled, instances die; no request fails."""

import asyncio
import json
import time
from collections.abc import Iterator
from signal import SIGKILL

import pytest
import yaml
from tests.integration.house import PATIENCE, House, walked

from contracts.shell.processes import ProcessIdentity
from endpunkt_infra.demo.client import Answers, Client
from endpunkt_infra.demo.load import steady_load

SECONDS = 60
RATE = 40.0
"""Requests a second; both deployments declare that scoring twice does no harm."""

pytestmark = pytest.mark.timeout(400)


@pytest.fixture
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with walked(tmp_path_factory.mktemp("house")) as house:
        yield house


class Operator:
    """Somebody who changes things all the time."""

    def __init__(self, house: House):
        self._house = house
        self._examples = house.work / "examples/diabetes"
        self.did: list[str] = []

    async def endpunkt(self, *arguments: str) -> None:
        done = await asyncio.to_thread(self._house.endpunkt, *arguments)
        assert done.returncode == 0, done.stderr
        self.did.append(" ".join(arguments[:2]))

    async def split(self, blue: int) -> None:
        await self.endpunkt(
            "online-endpoint", "update", "-n", "diabetes", "--traffic", f"blue={blue} green={100 - blue}"
        )

    async def put(self, name: str, instances: int, release: int) -> None:
        """A new release is made of other instances; a new count leaves those that are."""
        document = yaml.safe_load((self._examples / f"{name}.yml").read_text())
        document |= {"instance_count": instances, "environment_variables": {"RELEASE": str(release)}}
        (self._examples / "changed.yml").write_text(yaml.safe_dump(document))
        await self.endpunkt("online-deployment", "update", "-f", "examples/diabetes/changed.yml")

    async def kill(self, client: Client, name: str) -> None:
        """SIGKILL one instance; returns when another has taken its place."""

        async def ready() -> list[str]:
            shown = await client.get(f"/v1/onlineEndpoints/diabetes/deployments/{name}")
            return [instance["id"] for instance in shown["instances"] if instance["state"] == "Ready"]

        before = await ready()
        record = json.loads((self._house.home / "instances" / before[0] / "instance.json").read_text())
        ProcessIdentity(**record["process"]).send(SIGKILL)
        await client.until(
            f"{name} is whole again",
            ready,
            lambda now: before[0] not in now and len(now) == len(before),
            PATIENCE,
        )
        self.did.append("kill")

    async def round(self, client: Client, number: int) -> None:
        await self.split(90)
        await self.put("green", 1, number)
        await self.split(10)
        await self.put("blue", 2, 0)
        await self.kill(client, "blue")
        await self.split(50)
        await self.put("blue", 1, 0)
        await self.kill(client, "green")


async def test_a_minute_of_changes_fails_no_request(house: House) -> None:
    body = (house.work / "examples/diabetes/request.json").read_bytes()
    answers, stop, operator = Answers(), asyncio.Event(), Operator(house)
    shell = house.environment()
    addresses = {"management": shell["ENDPUNKT_STUDIO_URL"], "scoring": shell["ENDPUNKT_SCORING_URL"]}
    async with Client(house.home, house.work, addresses) as client:
        key = (await client.command("online-endpoint", "get-credentials", "--name", "diabetes"))["primaryKey"]
        load = asyncio.create_task(steady_load(lambda _: client.score(answers, key, body), RATE, stop))
        try:
            until = time.monotonic() + SECONDS
            number = 0
            while time.monotonic() < until:
                number += 1
                await operator.round(client, number)
        finally:
            stop.set()
            await load
    assert (answers.failed, answers.errors) == (0, [])
    assert answers.deployments.keys() == {"blue", "green"}
    assert sum(answers.deployments.values()) == answers.sent > SECONDS * RATE / 2
    assert operator.did.count("kill") == 2 * number
