"""Picking as a timeline: who gets which instance, who waits, who is refused."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from router.picking import BACKOFF_MAX_SECONDS, HOLD_SECONDS, Deployment, Instance, Verdict
from router.routes import DeploymentRoute, InstanceRoute


def route(*ids: str, concurrency: int = 1, desired: int | None = None) -> DeploymentRoute:
    return DeploymentRoute(
        concurrency=concurrency,
        desired=len(ids) if desired is None else desired,
        instances=tuple(InstanceRoute(each, "127.0.0.1", 5000) for each in ids),
    )


def deployment(*ids: str, concurrency: int = 1, desired: int | None = None) -> Deployment[str, Any]:
    made: Deployment[str, Any] = Deployment("diabetes", "blue")
    made.apply(route(*ids, concurrency=concurrency, desired=desired), now=0.0)
    return made


def take(blue: Deployment[str, Any], now: float = 1.0) -> Instance[Any]:
    room = blue.admit(now)
    assert isinstance(room, Instance), room
    return room


def wait(blue: Deployment[str, Any], ticket: str, expected: Verdict, now: float = 1.0) -> None:
    assert blue.admit(now) is expected
    blue.waiting[ticket] = None


def test_the_one_with_the_fewest_outstanding_then_the_one_picked_longest_ago() -> None:
    blue = deployment("a", "b", "c", concurrency=2)
    assert [take(blue).id for _ in range(6)] == ["a", "b", "c", "a", "b", "c"]
    b = blue.instances[1]
    blue.release(b)
    blue.release(b)
    assert [take(blue).id for _ in range(2)] == ["b", "b"]
    for instance in (*blue.instances, *blue.instances):
        blue.release(instance)
    assert blue.running == 0
    assert [take(blue).id for _ in range(3)] == ["a", "c", "b"]


def test_at_most_max_concurrent_per_instance_then_a_bounded_queue() -> None:
    blue = deployment("a", "b", concurrency=2)
    for _ in range(4):
        take(blue)
    for ticket in "wxyz":
        wait(blue, ticket, Verdict.QUEUE)
    assert blue.in_flight == 8  # 2 x 2 x 2
    assert blue.admit(1.0) is Verdict.TOO_MANY


def test_who_waits_is_served_in_order_and_nobody_overtakes() -> None:
    blue = deployment("a")
    first = take(blue)
    wait(blue, "x", Verdict.QUEUE)
    assert blue.serve(1.0) is None
    blue.release(first)
    assert blue.admit(1.0) is Verdict.QUEUE  # x is before it
    assert blue.serve(1.0) == ("x", first)
    assert blue.serve(1.0) is None
    assert blue.running == 1


def test_who_lost_its_instance_goes_before_those_that_wait_and_is_not_counted_again() -> None:
    blue = deployment("a", "b")
    a, b = take(blue), take(blue)
    wait(blue, "x", Verdict.QUEUE)
    wait(blue, "y", Verdict.QUEUE)
    assert blue.admit(1.0) is Verdict.TOO_MANY
    blue.eject(a, 1.0)
    blue.release(a)
    assert blue.readmit(1.0) is Verdict.HOLD
    blue.release(b)
    assert blue.readmit(1.0) is b


def test_never_ready_is_503_at_once() -> None:
    assert deployment(desired=1).admit(0.5) is Verdict.NOT_READY
    assert deployment(desired=0).admit(0.5) is Verdict.NOT_READY
    assert Deployment[str, Any]("e", "d").admit(0.0) is Verdict.NOT_READY


def test_a_refused_connection_ejects_for_a_moment_and_others_do_not_count_twice() -> None:
    blue = deployment("a", "b", concurrency=2)
    a = take(blue, 1.0)
    assert blue.eject(a, 1.0) == pytest.approx(1.1)
    assert blue.eject(a, 1.05) is None  # its other connections break with it
    assert [take(blue, 1.05).id for _ in range(2)] == ["b", "b"]
    blue.release(a)
    assert take(blue, 1.1).id == "a"


def test_the_back_off_doubles_up_to_two_seconds_until_an_answer() -> None:
    blue = deployment("a")
    a, now, seen = blue.instances[0], 1.0, []
    for _ in range(7):
        until = blue.eject(a, now)
        assert until is not None
        seen.append(round(until - now, 6))
        now = until
    assert seen == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, BACKOFF_MAX_SECONDS]
    a.answered(concurrency=1)
    assert blue.eject(a, now) == pytest.approx(now + 0.1)


def test_after_an_ejection_an_instance_returns_gradually_twice_as_far_with_each_answer() -> None:
    blue = deployment("a", concurrency=6)
    a = blue.instances[0]
    blue.eject(a, 1.0)
    assert take(blue, 1.2) is a
    for ticket in "uvwxyz":
        wait(blue, ticket, Verdict.QUEUE, 1.2)

    def served() -> str:
        given = ""
        while (next_ := blue.serve(1.2)) is not None:
            given += next_[0]
        return given

    assert served() == ""
    a.answered(concurrency=6)
    assert (served(), a.outstanding) == ("u", 2)
    a.answered(concurrency=6)
    assert (served(), a.outstanding) == ("vw", 4)
    a.answered(concurrency=6)
    assert (served(), a.outstanding) == ("xy", 6)  # as many as any


def test_a_deployment_that_may_be_at_zero_instances_holds_a_bounded_number_of_requests() -> None:
    blue = deployment(concurrency=2)
    assert blue.admit(1.0) is Verdict.NOT_READY
    blue.apply(replace(route(desired=0, concurrency=2), wakes=True), 1.0)
    for ticket in "wxyz":
        wait(blue, ticket, Verdict.HOLD)
    assert blue.admit(1.0) is Verdict.TOO_MANY  # 2 x 2 x the first one
    blue.apply(replace(route("a", concurrency=2), wakes=True), 9.0)
    assert [blue.serve(9.0), blue.serve(9.0), blue.serve(9.0)] == [
        ("w", blue.instances[0]),
        ("x", blue.instances[0]),
        None,
    ]


def test_the_only_instance_dies_and_requests_are_held_until_its_replacement_is_ready() -> None:
    blue = deployment("a", concurrency=2)
    a = take(blue, 1.0)
    blue.eject(a, 1.0)
    wait(blue, "x", Verdict.HOLD, 1.05)
    blue.apply(route(desired=1, concurrency=2), 1.5)  # the table has seen it too
    wait(blue, "y", Verdict.HOLD, 1.6)
    wait(blue, "z", Verdict.HOLD, 1.6)
    assert blue.admit(1.6) is Verdict.TOO_MANY  # 2 x 2 x 1, the lost one's among them
    blue.release(a)
    assert blue.serve(2.0) is None
    blue.apply(route("b", concurrency=2), 4.0)
    served = [blue.serve(4.0), blue.serve(4.0)]
    assert [pair[0] for pair in served if pair] == ["x", "y"]
    assert blue.admit(4.0) is Verdict.QUEUE


def test_who_finds_the_rest_of_the_instances_busy_is_held_while_one_is_being_replaced() -> None:
    blue = deployment("a", "b")
    take(blue, 1.0)
    b = take(blue, 1.0)
    blue.eject(b, 1.0)
    assert blue.admit(1.05) is Verdict.HOLD  # not only max_queue_wait_ms
    blue.release(b)
    blue.apply(route("a", desired=2), 1.2)
    assert blue.admit(1.2) is Verdict.HOLD
    blue.apply(route("a", "c"), 2.0)
    assert take(blue, 2.0).id == "c"
    assert blue.admit(2.0) is Verdict.QUEUE


def test_a_replacement_that_does_not_come_is_not_waited_for_for_ever() -> None:
    blue = deployment("a")
    blue.apply(route(desired=1), 10.0)
    assert blue.admit(10.0 + HOLD_SECONDS - 0.1) is Verdict.HOLD
    assert blue.admit(10.0 + HOLD_SECONDS) is Verdict.NOT_READY


def test_scaling_in_is_no_loss() -> None:
    blue = deployment("a", "b")
    take(blue, 1.0)
    gone = blue.apply(route("a"), 1.0)
    assert [instance.id for instance in gone] == ["b"]
    assert blue.admit(1.0) is Verdict.QUEUE
    blue.apply(route(), 2.0)
    assert blue.admit(2.0) is Verdict.NOT_READY


def test_an_instance_that_stays_keeps_what_is_known_of_it() -> None:
    blue = deployment("a")
    a = take(blue, 1.0)
    blue.eject(a, 1.0)
    assert blue.apply(route("a", "b"), 1.0) == []
    assert blue.instances[0] is a
    assert take(blue, 1.05).id == "b"


def test_an_instance_that_moved_is_another_one() -> None:
    blue = deployment("a")
    a = take(blue)
    moved = DeploymentRoute(desired=1, instances=(InstanceRoute("a", "127.0.0.1", 5001),))
    assert blue.apply(moved, 2.0) == [a]
    assert take(blue, 2.0) is not a
    blue.release(a)  # a request that was still running there ends
    assert blue.running == 1


def test_the_limit_follows_desired_or_ready_whichever_is_more() -> None:
    blue = deployment("a", concurrency=3, desired=4)
    assert blue.limit == 24
    blue.apply(route("a", "b", concurrency=3, desired=1), 1.0)
    assert blue.limit == 12


def test_the_first_second_that_is_told_has_nothing_of_the_time_before() -> None:
    blue = deployment("a")
    blue.tally.ended(200, 0.5)
    blue.apply(replace(route("a"), autoscaled=True), now=1.0)
    blue.tally.ended(200, 0.25)
    blue.apply(replace(route("a", "b"), autoscaled=True), now=1.0)
    sample = blue.tally.take_second("diabetes", "blue", "router-1", datetime(2026, 11, 1, tzinfo=UTC), in_flight=0)
    assert (sample.requests, sample.latency_ms_sum) == (1, 250)


# An instance that lives but fails. The deployment's request_timeout is 5 s.


@pytest.mark.parametrize(
    ("timeouts", "ejected"),
    [
        # when each request that timed out was sent, and when its time was over
        ([], False),
        ([(0, 5)], False),
        ([(0, 5), (5, 10)], False),
        ([(0, 5), (5, 10), (10, 15)], True),
        ([(0, 5), (1, 6), (2, 7), (3, 8)], False),  # under way together: one slow moment
        ([(0, 5), (1, 6), (5, 10), (6, 11), (10, 15)], True),
        ([(0, 5), (5, 10), (14, 15)], False),  # it waited in the queue, and this instance had it for a second
        ([(0, 5), (5, 10), (12.5, 15)], True),  # half of the time is enough
        ([(0, 5), (5, 10), "answer", (10, 15)], False),  # it answers
        ([(0, 5), (5, 10), "answer", (10, 15), (15, 20), (20, 25)], True),
    ],
)
def test_several_timeouts_in_a_row_eject(timeouts: list[Any], ejected: bool) -> None:
    blue = deployment("a", "b", concurrency=4)
    a = blue.instances[0]
    until = None
    now = 0.0
    for each in timeouts:
        assert until is None
        if each == "answer":
            a.answered(concurrency=4)
        else:
            sent_at, now = each
            until = blue.timed_out(a, sent_at, now)
    assert (until is not None, blue.tally.ejections) == (ejected, int(ejected))
    if ejected:
        assert until == pytest.approx(now + 0.1)
        assert {take(blue, now).id for _ in range(3)} == {"b"}
        assert blue.timed_out(a, now + 0.2, now + 5.2) == pytest.approx(now + 5.2 + 0.2)  # again: at once, and longer


@pytest.mark.parametrize("misbehave", [False, True])
def test_the_last_usable_instance_is_not_ejected_for_how_it_answers(misbehave: bool) -> None:
    """A slow or broken model tells its clients itself, and they are not held for a replacement that nobody makes."""
    blue = deployment("a", "b")
    a, b = blue.instances

    def fails(instance: Instance[Any], now: float) -> float | None:
        if misbehave:
            return blue.misbehaved(instance, now)
        return [blue.timed_out(instance, now - 15 + 5 * each, now - 10 + 5 * each) for each in range(3)][-1]

    assert fails(a, 20.0) == pytest.approx(20.1)
    assert fails(b, 20.05) is None  # a is out
    assert not blue.recovering(20.05)
    assert take(blue, 20.05) is b
    assert blue.admit(20.05) is Verdict.QUEUE  # as ever, not HOLD
    assert blue.apply(route("a"), 21.0) == [b]
    assert fails(a, 40.0) is None
    assert take(blue, 40.0) is a


def test_an_instance_that_answers_nonsense_returns_gradually() -> None:
    blue = deployment("a", "b", concurrency=2)
    a = take(blue, 1.0)
    assert blue.misbehaved(a, 1.0) == pytest.approx(1.1)
    assert blue.misbehaved(a, 1.05) is None  # what it says on its other connections
    blue.release(a)
    assert [take(blue, 1.2).id for _ in range(3)] == ["b", "a", "b"]
    assert blue.admit(1.2) is Verdict.QUEUE  # a has one until it has answered it
    a.answered(concurrency=2)
    assert take(blue, 1.2) is a
    assert not a.doubtful
