"""Seats of worker processes in memory that they share."""

import os

from inference_server.seats import Seats


def test_a_row_knows_its_own_seats_from_those_of_others() -> None:
    seats = Seats(processes=3, places=2)
    first, middle, last = (seats.of(number) for number in range(3))
    assert not any(row.has_free or row.others_have_free for row in (first, middle, last))
    middle.free_all()
    middle.take(0)
    assert middle.has_free
    assert not middle.others_have_free
    assert first.others_have_free
    assert last.others_have_free
    middle.take(1)
    assert not middle.has_free
    assert not first.others_have_free
    middle.free(0)
    assert middle.has_free
    last.free_all()
    middle.take_all()
    assert not middle.has_free
    assert middle.others_have_free


def test_a_forked_process_tells_its_parent() -> None:
    seats = Seats(processes=2, places=1)
    child = os.fork()
    if child == 0:
        seats.of(1).free_all()
        os._exit(0)
    os.waitpid(child, 0)
    assert seats.of(0).others_have_free
    seats.of(1).take_all()  # as a parent does when it has reaped one
    assert not seats.of(0).others_have_free
