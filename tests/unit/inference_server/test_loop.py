"""The loop's turns: one thing at a time, nothing forgotten between threads."""

import socket
import threading
from collections.abc import Iterator

import pytest

from inference_server.loop import BROKEN, GONE, READ, WRITE, Loop


@pytest.fixture
def loop() -> Iterator[Loop]:
    made = Loop()
    yield made
    made.close()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def test_a_turn_handles_one_socket(loop: Loop) -> None:
    seen: list[int] = []
    pairs = [socket.socketpair() for _ in range(3)]
    for number, (ours, theirs) in enumerate(pairs):
        loop.watch(ours.fileno(), READ, lambda _, number=number: seen.append(number))  # type: ignore[misc]
        theirs.send(b"x")
    loop.turn()
    assert len(seen) == 1
    loop.turn()
    loop.turn()
    assert sorted(seen) == [0, 1, 2]  # each has its turn although none was read
    for ours, theirs in pairs:
        loop.forget(ours.fileno())
        ours.close()
        theirs.close()


def test_a_handler_is_told_that_the_peer_has_sent_all(loop: Loop, pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    told: list[int] = []
    loop.watch(ours.fileno(), READ, told.append)
    theirs.send(b"x")
    loop.turn()
    theirs.shutdown(socket.SHUT_WR)
    loop.turn()
    theirs.close()
    loop.turn()
    assert [bool(events & GONE) for events in told] == [False, True, True]
    assert [bool(events & BROKEN) for events in told] == [False, False, True]


def test_what_is_watched_can_be_changed_and_forgotten(loop: Loop, pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    told: list[int] = []
    theirs.send(b"x")
    loop.watch(ours.fileno(), READ, told.append)
    loop.change(ours.fileno(), WRITE)
    loop.turn()
    loop.forget(ours.fileno())
    loop.soon(told.append, -1)
    loop.turn()
    assert told == [WRITE, -1]


def test_calls_of_another_thread_end_a_turn_that_waits(loop: Loop) -> None:
    told: list[str] = []
    loop.on_wake(lambda numbers: None)
    thread = threading.Thread(target=lambda: loop.soon(told.append, "called"))
    thread.start()
    while not told:
        loop.turn()
    thread.join()
    assert told == ["called"]


def test_sockets_have_their_turn_between_calls(loop: Loop, pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    told: list[str] = []

    def again() -> None:
        told.append("call")
        loop.soon(again)

    loop.watch(ours.fileno(), READ, lambda _: told.append("socket"))
    theirs.send(b"x")
    again()
    for _ in range(6):
        loop.turn()
    assert told.count("socket") == 3


def test_timers_are_called_in_order_and_not_when_cancelled(loop: Loop) -> None:
    told: list[str] = []
    loop.later(0.02, lambda: told.append("second"))
    loop.later(0.01, lambda: told.append("cancelled")).cancel()
    loop.later(0.0, lambda: told.append("first"))
    while "second" not in told:
        loop.turn()
    assert told == ["first", "second"]


def test_signals_and_wakes_are_told_apart(loop: Loop) -> None:
    told: list[bytes] = []
    loop.on_wake(told.append)
    loop.wake()
    loop.alarm.send(b"\x0f")  # as Python does for a signal
    loop.turn()
    assert told == [b"\0\x0f"]
