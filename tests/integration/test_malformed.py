"""What is no message, on every topic, while the whole house runs: each service that reads it parks it where studio
shows it, and neither scoring nor an endpoint's state notices. It does not keep a service from starting again either.
"""

import asyncio
import json
import ssl
import subprocess
import sys
from collections.abc import Iterator, Set
from contextlib import closing
from http.client import HTTPSConnection
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest
from aiokafka import AIOKafkaProducer
from tests.integration.house import PATIENCE, House, eventually, walked

from contracts.log import KafkaSettings
from contracts.messages import DeadLetter, Message, UpdateEndpoint
from contracts.topics import topics

pytestmark = pytest.mark.timeout(300)


class Reading(NamedTuple):
    """Who takes a topic's records while it runs, and who reads them only when it starts: what it wrote itself."""

    running: Set[str]
    starting: Set[str] = frozenset()


READ = {
    "endpoints.commands": Reading({"provisioner"}),
    "endpoints.replies": Reading({"studio"}),  # it is who asks, on behalf of people
    "endpoints.desired": Reading({"provisioner", "router", "autoscaler", "batch-runner", "studio"}),
    "endpoints.observed": Reading({"provisioner", "router", "autoscaler", "studio"}),
    "endpoints.events": Reading({"studio"}),
    "assets.registered": Reading({"provisioner", "studio"}),
    "scaling.signals": Reading({"autoscaler"}),
    "scaling.decisions": Reading({"autoscaler", "provisioner", "studio"}),
    "batch.commands": Reading({"batch-runner"}),
    "batch.jobs": Reading({"studio"}, {"batch-runner"}),
    "batch.progress": Reading({"studio"}),
    "usage.events": Reading({"metering"}),
    "usage.rollups": Reading({"studio"}, {"metering"}),
    "deadletter.provisioner": Reading({"studio"}),
    "deadletter.router": Reading({"studio"}),
    "deadletter.autoscaler": Reading({"studio"}),
    "deadletter.batch-runner": Reading({"studio"}),
    "deadletter.metering": Reading({"studio"}),
    "deadletter.studio": Reading({"studio"}),
}
PEOPLE = {"whoever asked", "operators"}


class Garbage(NamedTuple):
    """A record's value and type, and what its reader says about it."""

    value: bytes
    type: str | None
    reason: str


class Seen(NamedTuple):
    """What a user sees of the endpoint."""

    endpoint: Any
    answers: list[tuple[int, bytes]]


def own_type(topic: str) -> str:
    """A type that the topic carries."""
    wanted = DeadLetter.TOPIC if topic.startswith("deadletter.") else topic
    return next(name for name, message in Message.registry.items() if wanted == message.TOPIC)


def garbage(topic: str) -> list[Garbage]:
    """One record of each kind that is no message of the topic."""
    own, other = own_type(topic), (UpdateEndpoint if topic.startswith("deadletter.") else DeadLetter).TYPE
    return [
        Garbage(b"{oops", own, "Invalid JSON"),
        Garbage(b"\xff\x00", own, "value: "),
        Garbage(b'{"endpoint": "diabetes"}', None, "ce_type: is missing"),
        Garbage(b'{"endpoint": "diabetes"}', other, f"'{other}' is not a message of {topic}"),
        Garbage(b"[]", own, "value: "),
    ]


def key_of(topic: str) -> bytes:
    """The key of something that is in use."""
    about_deployments = ("endpoint/deployment", "endpoint/deployment/hour")
    kind = topics()[topic].key
    return (
        b"diabetes"
        if kind == "endpoint"
        else b"diabetes/blue"
        if kind in about_deployments
        else b"model:diabetes-linear:1"
    )


class Watched:
    """The house, as a user and an operator look at it."""

    def __init__(self, house: House):
        self._environment = house.environment()
        self._trusted = ssl.create_default_context(cafile=self._environment["ENDPUNKT_CA"])
        self._token = (house.home / "secrets" / "admin-token").read_text().strip()
        self._key = self._endpunkt("online-endpoint", "get-credentials", "-n", "diabetes")["primaryKey"]
        self._request = (house.work / "examples/diabetes/request.json").read_bytes()
        self._kafka = KafkaSettings.from_environment(self._environment)
        self.before = self.seen()
        assert [status for status, _ in self.before.answers] == [200, 200]

    def _endpunkt(self, *arguments: str) -> Any:
        command = [sys.executable, "-m", "endpunkt_cli", *arguments]
        done = subprocess.run(
            command, env=self._environment, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def _ask(self, url: str, token: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
        parts = urlsplit(url)
        assert parts.hostname is not None
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json", **headers}
        connection = HTTPSConnection(parts.hostname, parts.port, timeout=PATIENCE, context=self._trusted)
        with closing(connection):
            connection.request("GET" if body is None else "POST", parts.path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()

    def letters(self) -> list[dict[str, Any]]:
        """What studio says was parked."""
        url = f"{self._environment['ENDPUNKT_STUDIO_URL']}/v1/deadletters"
        status, text = self._ask(url, self._token)
        assert status == 200, text
        return list(json.loads(text)["value"])

    def answers(self) -> list[tuple[int, bytes]]:
        """What each of the endpoint's deployments says to the same request."""
        score = f"{self._environment['ENDPUNKT_SCORING_URL']}/diabetes/score"
        return [
            self._ask(score, self._key, self._request, **{"azureml-model-deployment": deployment})
            for deployment in ("blue", "green")
        ]

    def seen(self) -> Seen:
        return Seen(self._endpunkt("online-endpoint", "show", "-n", "diabetes"), self.answers())

    def publish(self, topic: str, records: list[Garbage]) -> list[tuple[int, int]]:
        """Where each record lies: its partition and its offset."""

        async def send() -> list[tuple[int, int]]:
            places = []
            async with AIOKafkaProducer(**self._kafka.client()) as raw:
                for record in records:
                    headers = [("ce_type", record.type.encode())] if record.type is not None else []
                    sent = await raw.send_and_wait(topic, record.value, key=key_of(topic), headers=headers)
                    places.append((sent.partition, sent.offset))
            return places

        return asyncio.run(send())

    def parked(self, topic: str, place: tuple[int, int]) -> dict[str, str]:
        """The reason that each service gave for parking the record."""
        return {
            letter["service"]: letter["reason"]
            for letter in self.letters()
            if (letter["topic"], letter["partition"], letter["offset"]) == (topic, *place)
        }


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with walked(tmp_path_factory.mktemp("malformed")) as house:
        yield house


@pytest.fixture(scope="module")
def watched(house: House) -> Watched:
    return Watched(house)


def test_the_readers_in_this_file_are_those_of_the_table_of_topics() -> None:
    assert {topic: set(row.readers) - PEOPLE or {"studio"} for topic, row in topics().items()} == {
        topic: read.running | read.starting for topic, read in READ.items()
    }


@pytest.mark.parametrize("topic", topics())
def test_garbage_is_parked_by_every_reader_and_changes_nothing(watched: Watched, topic: str) -> None:
    records = garbage(topic)
    places = watched.publish(topic, records)
    for record, place in zip(records, places, strict=True):

        def all_parked(place: tuple[int, int] = place) -> bool:
            return watched.parked(topic, place).keys() >= READ[topic].running

        eventually(f"{record} of {topic}, at {place}, is parked by {READ[topic].running}", all_parked)
        reasons = watched.parked(topic, place)
        assert reasons.keys() == READ[topic].running
        for reason in reasons.values():
            assert reason.startswith(f"{topic}-{place[0]}-{place[1]}: ")
            assert record.reason in reason
    assert watched.seen() == watched.before


def test_garbage_in_the_log_keeps_no_service_from_starting(house: House, watched: Watched) -> None:
    before = watched.before
    places = {topic: watched.publish(topic, garbage(topic)[:1])[0] for topic in topics()}
    house.down()
    house.up()
    for topic, read in READ.items():
        if read.starting:
            eventually(
                f"what lies on {topic} is parked by {read.starting}",
                lambda topic=topic, read=read: watched.parked(topic, places[topic]).keys() >= read.starting,  # type: ignore[misc]
            )
    eventually("both deployments answer as before", lambda: watched.answers() == before.answers)
    # Its instances are others now.
    was, now = ({**seen.endpoint, "deployments": {*seen.endpoint["deployments"]}} for seen in (before, watched.seen()))
    assert now == was
