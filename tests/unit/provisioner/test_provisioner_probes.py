"""Probes: the decisions as timelines, and the questions to something that listens."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from itertools import accumulate, chain, repeat
from pathlib import Path
from typing import Any

import pytest

from contracts.messages import CodeConfiguration, OnlineDeploymentSpec, Probe
from provisioner.compute.probes import ask, probe
from provisioner.compute.records import InstanceFolder
from provisioner.core.failures import NOTHING_LISTENS
from provisioner.core.health import Readiness, Streak, first_liveness_wait, readiness_deadline, readiness_wait

PATIENCE = 20
OK, NO = b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 500 No\r\n\r\n"


def test_a_starting_instance_is_asked_often_at_first() -> None:
    assert [readiness_wait(age) for age in (0, 1, 2, 10, 20, 300)] == [0.05, 0.05, 0.1, 0.5, 1.0, 1.0]
    assert readiness_deadline(Probe()) == 310


@pytest.mark.parametrize(
    ("answers", "expected", "thresholds"),
    [
        # Azure's defaults: ready with one answer, out of traffic with the thirtieth failure, back with one answer.
        ("-" * 40 + "+", "." * 40 + "R", {}),
        ("+" + "-" * 29 + "+", "R" * 31, {}),
        ("+" + "-" * 30 + "+-", "R" + "R" * 29 + "." + "RR", {}),
        # One answer among failures begins their count anew, and one failure that of answers.
        ("++-+++--+---++-+++", ".....RRRRRR......R", {"success_threshold": 3, "failure_threshold": 3}),
        ("+-+-", "R.R.", {"failure_threshold": 1}),
    ],
)
def test_readiness_comes_and_goes_with_answers_in_a_row(
    answers: str, expected: str, thresholds: dict[str, int]
) -> None:
    settings = Probe(**thresholds)
    told = accumulate(answers, lambda before, each: before.after(each == "+", settings), initial=Readiness())
    assert "".join("R" if each.ready else "." for each in list(told)[1:]) == expected


def test_the_first_question_whether_it_lives_comes_with_the_initial_delay_and_never_before_it_was_ready() -> None:
    assert [first_liveness_wait(Probe(initial_delay=10), age) for age in (0, 4, 10, 300)] == [10, 6, 0, 0]
    assert first_liveness_wait(Probe(initial_delay=0), 0) == 0


def test_an_instance_is_dead_after_failures_in_a_row() -> None:
    settings = Probe(failure_threshold=3)
    told = accumulate("+--+---", lambda before, each: before.after(each == "+"), initial=Streak())
    assert [each.fails(settings) for each in told] == [False] * 7 + [True]
    assert [each.length for each in accumulate("++--", lambda b, e: b.after(e == "+"), initial=Streak())] == [
        *(0, 1, 2),
        *(-1, -2),
    ]


@asynccontextmanager
async def answering(respond: Callable[[], bytes | None]) -> AsyncIterator[str]:
    """An instance that answers with what `respond()` gives, or stays silent."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if (answer := respond()) is not None:
            writer.write(answer)
            writer.close()
        else:
            silent.append(writer)

    silent: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    try:
        yield f"{host}:{port}"
    finally:
        for writer in silent:
            writer.close()
        server.close()
        await server.wait_closed()


@pytest.mark.parametrize(
    ("answer", "failure"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", None),
        (b"HTTP/1.1 503 Busy\r\n\r\n", "the answer was HTTP/1.1 503 Busy"),
        (b"", "the answer was nothing"),
        (b"x" * 100_000, "no answer: "),
        (None, "no answer within 0.2 s"),
    ],
)
async def test_a_question_and_its_answers(answer: bytes | None, failure: str | None) -> None:
    async with answering(lambda: answer) as address:
        told = await ask(address, 0.2)
    assert (told is None) == (failure is None)
    assert failure is None or (told is not None and told.startswith(failure))
    assert await ask(address, 0.2) == NOTHING_LISTENS


def spec(**probes: Probe) -> OnlineDeploymentSpec:
    configuration = CodeConfiguration(code="/src", scoring_script="score.py")
    return OnlineDeploymentSpec(code_configuration=configuration, **probes)


async def test_an_instance_that_never_answers_is_given_up_after_azures_time(tmp_path: Path, hears: Any) -> None:
    (tmp_path / "console.log").write_text("still loading\n")
    heard = hears(spec(readiness_probe=Probe(initial_delay=0, period=1, failure_threshold=1, timeout=1)))
    async with answering(lambda: NO) as address:
        await asyncio.wait_for(probe(address, InstanceFolder(tmp_path), heard, False), PATIENCE)
    assert heard.words == ["condemned"]
    assert (heard.errors[0].code, heard.errors[0].log_tail) == ("ReadinessProbeFailed", ("still loading",))
    assert "within 1 s" in heard.errors[0].message


NEVER_AGAIN = 10_000
"""Seconds: no test waits for that."""


async def test_readiness_goes_on_for_the_life_of_an_instance(tmp_path: Path, hears: Any) -> None:
    heard = hears(
        spec(
            readiness_probe=Probe(period=1, failure_threshold=2, timeout=1),
            liveness_probe=Probe(initial_delay=NEVER_AGAIN),
        )
    )
    again = asyncio.Event()

    def last() -> bytes:
        again.set()
        return OK

    answers = chain([OK, NO, NO, OK], iter(last, None))
    async with answering(lambda: next(answers)) as address:
        watching = asyncio.create_task(probe(address, InstanceFolder(tmp_path), heard, False))
        # By the question after the one that brought it back, that has been told.
        await asyncio.wait_for(again.wait(), PATIENCE)
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
    assert heard.words == ["ready", "unready after 2: the answer was HTTP/1.1 500 No", "ready"]
    assert not heard.errors


async def test_a_ready_instance_that_stops_answering_is_given_up_at_the_first_question_after_the_initial_delay(
    tmp_path: Path, hears: Any
) -> None:
    answers = chain([OK], repeat(NO))
    heard = hears(
        spec(
            readiness_probe=Probe(period=NEVER_AGAIN),
            liveness_probe=Probe(initial_delay=0, period=NEVER_AGAIN, failure_threshold=1, timeout=1),
        )
    )
    async with answering(lambda: next(answers)) as address:
        await asyncio.wait_for(probe(address, InstanceFolder(tmp_path), heard, False), PATIENCE)
    assert heard.words == ["ready", "condemned"]
    (error,) = heard.errors
    assert error.code == "LivenessProbeFailed"
    assert error.message == "the liveness probe failed 1 times in a row, the last: the answer was HTTP/1.1 500 No"


async def test_an_adopted_instance_is_ready_until_its_probes_say_otherwise(tmp_path: Path, hears: Any) -> None:
    quick = Probe(initial_delay=0, period=1, failure_threshold=1, timeout=1)
    twice = quick.model_copy(update={"failure_threshold": 3})
    heard = hears(spec(liveness_probe=twice, readiness_probe=quick))
    async with answering(lambda: NO) as address:
        await asyncio.wait_for(probe(address, InstanceFolder(tmp_path), heard, True), PATIENCE)
    assert heard.words == ["unready after 1: the answer was HTTP/1.1 500 No", "condemned"]
