"""What the supervisor watches is started again; a start that fails is tried again later, and takes nothing down."""

import logging

import pytest

from endpunkt_infra.kafka import KafkaUnavailableError
from endpunkt_infra.stack.supervisor import Watched


class Fragile:
    """Something that runs or not, by the test's clock. Each start costs `takes` seconds and fails with what is next."""

    def __init__(self) -> None:
        self.now = 100.0
        self.runs = True
        self.takes = 0.0
        self.failures: list[Exception] = []
        self.starts: list[float] = []
        self.watched = Watched("Kafka", lambda: None if self.runs else "is gone", self.start, clock=lambda: self.now)

    def start(self) -> None:
        self.starts.append(self.now)
        self.now += self.takes
        if self.failures:
            raise self.failures.pop(0)
        self.runs = True

    def look_until(self, end: float) -> None:
        while self.now < end:
            self.watched.look()
            self.now += 0.5


def test_what_runs_is_left_alone() -> None:
    fragile = Fragile()
    fragile.look_until(200)
    assert fragile.starts == []


def test_what_is_gone_is_started_again_after_its_wait() -> None:
    fragile = Fragile()
    fragile.runs = False
    fragile.look_until(110)
    assert fragile.starts == [100.5]


def test_a_start_that_fails_is_tried_again_with_longer_and_longer_waits(caplog: pytest.LogCaptureFixture) -> None:
    fragile = Fragile()
    fragile.runs = False
    fragile.failures = [KafkaUnavailableError("port 9092 is taken"), OSError(28, "No space left"), OSError(11, "again")]
    with caplog.at_level(logging.ERROR):
        fragile.look_until(120)
    waits = [round(later - earlier, 1) for earlier, later in zip(fragile.starts, fragile.starts[1:], strict=False)]
    assert waits == [1.5, 2.5, 4.5]  # 1, 2, 4 after the next look
    assert fragile.runs
    assert "Kafka is gone; starting it again in 0.5 s" in caplog.text
    assert "Kafka could not be started again: port 9092 is taken" in caplog.text
    assert "Kafka could not be started again: [Errno 28] No space left" in caplog.text


def test_a_start_that_fails_only_after_a_minute_is_no_minute_of_health() -> None:
    fragile = Fragile()
    fragile.runs, fragile.takes = False, 61.0
    fragile.failures = [KafkaUnavailableError("Kafka did not answer within 60 s")] * 3
    while not fragile.runs:
        fragile.look_until(fragile.now + 1)
    assert fragile.watched.restarts.deaths == 4


def test_a_mistake_and_an_interruption_are_not_taken_for_a_failed_start() -> None:
    fragile = Fragile()
    fragile.runs = False
    fragile.failures = [RuntimeError("stop")]
    with pytest.raises(RuntimeError, match="stop"):
        fragile.look_until(110)
