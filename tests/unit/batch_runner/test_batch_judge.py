"""Attempts, thresholds and tallies, as tables."""

import pytest

from batch_runner.judge import Outcome, Segment, Tally, outcome, segments, tally, verdict


@pytest.mark.parametrize(
    ("max_retries", "outcomes"),
    [(0, ["Failed"]), (1, ["Retrying", "Failed"]), (3, ["Retrying", "Retrying", "Retrying", "Failed"])],
)
def test_a_mini_batch_fails_after_its_retries(max_retries: int, outcomes: list[Outcome]) -> None:
    told = [outcome(ok=False, attempt=attempt, max_retries=max_retries) for attempt in range(1, max_retries + 2)]
    assert told == outcomes


@pytest.mark.parametrize("attempt", [1, 2, 4])
def test_a_mini_batch_that_succeeds_is_done_at_any_attempt(attempt: int) -> None:
    assert outcome(ok=True, attempt=attempt, max_retries=3) == "Succeeded"


@pytest.mark.parametrize(
    ("threshold", "failed", "fails"),
    [(-1, 10**6, False), (0, 0, False), (0, 1, True), (5, 5, False), (5, 6, True)],
)
def test_one_file_over_the_threshold_fails_the_job(threshold: int, failed: int, fails: bool) -> None:
    assert (verdict(threshold, failed) is not None) is fails


def test_a_segment_says_in_its_name_what_became_of_its_mini_batch() -> None:
    settled = [Segment(0, "Succeeded", 40), Segment(12, "Failed"), Segment(123_456_789, "Succeeded")]
    assert [segment.name for segment in settled][1] == "00000012-Failed-0"
    strangers = [".3", "00000003", "00000003-Succeeded", "00000003-Retrying-1", "x-Failed-0", "3-Failed-many", ""]
    assert segments([*(segment.name for segment in settled), *strangers]) == {one.index: one for one in settled}


def test_a_tally_counts_files_of_settled_mini_batches() -> None:
    settled = [Segment(0, "Succeeded", 7), Segment(2, "Failed"), Segment(3, "Succeeded", 1)]
    assert tally(settled, lambda index: [2, 2, 2, 1][index]) == Tally(
        succeeded_files=3, failed_files=2, rows=8, mini_batches=3
    )
    assert tally([], lambda index: 2) == Tally()
