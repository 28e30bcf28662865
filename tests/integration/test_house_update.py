"""The house under load while its deployment changes: no request fails, and what answers is what was asked for."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from tests.integration.house import House

from contracts.shell.tls import ca_path

PATIENCE = 60
WORKERS = 4
PACE_SECONDS = 0.01
"""Between two requests of a worker: the machine is others' too."""
SCRIPT = """
import os
def init():
    if os.environ["VERSION"] == "bad": raise ValueError("the weights of this version are missing")
def run(data): return {"version": os.environ["VERSION"], "pid": os.getpid()}
"""
# Not idempotent: no request may be sent twice, so each has to be answered by the instance that it reached first.
DEPLOYMENT = """
name: blue
endpoint_name: shop
code_configuration: {code: versions, scoring_script: score.py}
environment_variables: {VERSION: "%s"}
instance_count: %d
request_settings: {max_concurrent_requests_per_instance: 16}
"""

pytestmark = pytest.mark.timeout(300)


class Load:
    """What a constant load was answered: version and process of each 200, and whatever else came."""

    def __init__(self) -> None:
        self.answers: list[tuple[str, int]] = []
        self.failures: list[str] = []
        self._moved = asyncio.Condition()

    async def send(self, session: aiohttp.ClientSession, url: str) -> None:
        """One request after the other, until cancelled."""
        while True:
            try:
                async with session.post(url, json={}) as answer:
                    text = await answer.text()
                if answer.status == 200:
                    said = json.loads(text)
                    self.answers.append((said["version"], said["pid"]))
                else:
                    self.failures.append(f"{answer.status}: {text}")
            except (aiohttp.ClientError, TimeoutError) as error:
                self.failures.append(repr(error))
            async with self._moved:
                self._moved.notify_all()
            await asyncio.sleep(PACE_SECONDS)

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait for answers."""
        async with asyncio.timeout(PATIENCE), self._moved:
            await self._moved.wait_for(holds)

    async def from_now_on(self, requests: int = 100) -> set[tuple[str, int]]:
        """Who answers requests that are sent from now on: what was on its way is left out."""
        first = len(self.answers) + WORKERS
        await self.until(lambda: len(self.answers) >= first + requests)
        return set(self.answers[first:])


@asynccontextmanager
async def loaded(house: House, url: str, key: str) -> AsyncIterator[Load]:
    load = Load()
    connector = aiohttp.TCPConnector(ssl=ssl.create_default_context(cafile=ca_path(house.home)))
    headers = {"Authorization": f"Bearer {key}"}
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:
        workers = [asyncio.create_task(load.send(session, url)) for _ in range(WORKERS)]
        try:
            yield load
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path)
    (house.work / "versions").mkdir()
    (house.work / "versions" / "score.py").write_text(SCRIPT)
    (house.work / "shop.yml").write_text("name: shop\n")
    house.up()
    try:
        yield house
    finally:
        house.down()


def put(house: House, verb: str, version: str, instances: int = 1) -> tuple[int, str]:
    """`endpunkt online-deployment create|update`, which waits for the outcome."""
    (house.work / "blue.yml").write_text(DEPLOYMENT % (version, instances))
    done = house.endpunkt("online-deployment", verb, "-f", "blue.yml")
    return done.returncode, done.stderr


def updated(outcome: tuple[int, str]) -> None:
    code, said = outcome
    assert code == 0, said


async def test_updates_a_bad_version_and_scaling_fail_no_request(house: House) -> None:
    made = house.endpunkt("online-endpoint", "create", "-f", "shop.yml")
    assert made.returncode == 0, made.stderr
    updated(put(house, "create", "1"))
    routed = house.endpunkt("online-endpoint", "update", "-n", "shop", "--traffic", "blue=100")
    assert routed.returncode == 0, routed.stderr
    key = house.show("online-endpoint", "get-credentials", "-n", "shop")["primaryKey"]
    url = house.environment()["ENDPUNKT_SCORING_URL"] + "/shop/score"

    async with loaded(house, url, str(key)) as load:
        [old] = await load.from_now_on()
        assert old[0] == "1"

        updated(await asyncio.to_thread(put, house, "update", "2"))
        [good] = await load.from_now_on()
        assert good[0] == "2"

        code, said = await asyncio.to_thread(put, house, "update", "bad")
        assert code == 1
        assert "UserScriptInitFailed" in said
        assert "the weights of this version are missing" in said
        assert await load.from_now_on() == {good}, "the same process goes on"

        # The good version again, twice as much of it, and back.
        updated(await asyncio.to_thread(put, house, "update", "2", 2))
        both = await load.from_now_on()
        assert [version for version, _ in both] == ["2", "2"]
        updated(await asyncio.to_thread(put, house, "update", "2", 1))
        assert len(await load.from_now_on()) == 1

    assert load.failures == []
    assert {version for version, _ in load.answers} == {"1", "2"}
    first_new = [version for version, _ in load.answers].index("2")
    assert {version for version, _ in load.answers[:first_new]} == {"1"}
