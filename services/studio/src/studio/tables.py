"""What studio knows of the bus: the tables of state, and a bounded memory of recent events."""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, TypeVar

from contracts.envelope import Record
from contracts.log import Table, Tail
from contracts.messages import (
    AssetRegistered,
    BatchJob,
    DeadLetter,
    DeploymentEvent,
    EndpointDesired,
    EndpointObserved,
    Message,
    MiniBatchEnded,
    Reply,
    ScaleDecision,
    UsageRollup,
)
from contracts.topics import topics

M = TypeVar("M", bound=Message)

_JOBS_WITH_PROGRESS = 200
_PROGRESS_PER_JOB = 20
_LETTERS_PER_SERVICE = 50
_LETTER_PREVIEW_BASE64 = 1024
_PROGRESS_SINCE = timedelta(hours=1)
_DEAD_LETTERS_SINCE = timedelta(days=7)
_DEPLOYMENTS_WITH_EVENTS = 200
_EVENTS_PER_DEPLOYMENT = 50
_EVENTS_SINCE = timedelta(days=1)


class Tables:
    """Every message that an answer may need. `changed` is notified after each batch that was read."""

    def __init__(self, now: datetime):
        self.desired = Table(EndpointDesired)
        self.observed = Table(EndpointObserved)
        self.assets = Table(AssetRegistered)
        self.decisions = Table(ScaleDecision)
        self.jobs = Table(BatchJob)
        self.rollups = Table(UsageRollup)
        self.changed = asyncio.Condition()
        self._progress: OrderedDict[str, deque[MiniBatchEnded]] = OrderedDict()
        self._events: OrderedDict[str, deque[DeploymentEvent]] = OrderedDict()
        self._dead_letters: dict[str, deque[DeadLetter]] = {}
        self._expected: dict[str, list[asyncio.Future[Reply]]] = {}
        self.sinks: Sequence[Table[Any] | Tail] = (
            self.desired,
            self.observed,
            self.assets,
            self.decisions,
            self.jobs,
            self.rollups,
            Tail(Reply.TOPIC, self._on_reply),
            Tail(MiniBatchEnded.TOPIC, self._on_progress, since=now - _PROGRESS_SINCE),
            Tail(DeploymentEvent.TOPIC, self._on_event, since=now - _EVENTS_SINCE),
            *(
                Tail(name, self._on_dead_letter, since=now - _DEAD_LETTERS_SINCE)
                for name in topics()
                if name.startswith("deadletter.")
            ),
        )

    async def notify(self) -> None:
        """Wake whoever waits for a change."""
        async with self.changed:
            self.changed.notify_all()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until the tables say so."""
        async with self.changed:
            await self.changed.wait_for(condition)

    @contextmanager
    def expecting(self, command_id: str) -> Iterator["asyncio.Future[Reply]"]:
        """The provisioner's reply to a command that is published within."""
        reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._expected.setdefault(command_id, []).append(reply)
        try:
            yield reply
        finally:
            waiting = self._expected[command_id]
            waiting.remove(reply)
            if not waiting:
                del self._expected[command_id]

    def progress(self, job: str) -> list[MiniBatchEnded]:
        """The last attempts at the mini-batches of a job, oldest first."""
        return list(self._progress.get(job, ()))

    def events(self, endpoint: str, deployment: str) -> list[DeploymentEvent]:
        """What happened to a deployment last, oldest first."""
        return list(self._events.get(f"{endpoint}/{deployment}", ()))

    def dead_letters(self) -> list[DeadLetter]:
        """What each service parked last, newest first, each with only the beginning of its value."""
        letters = (letter for recent in self._dead_letters.values() for letter in recent)
        return sorted(letters, key=lambda letter: letter.parked_at, reverse=True)

    def _on_reply(self, _: Record, message: Message) -> None:
        assert isinstance(message, Reply)
        for reply in self._expected.get(message.command_id, ()):
            if not reply.done():
                reply.set_result(message)

    def _on_progress(self, _: Record, message: Message) -> None:
        assert isinstance(message, MiniBatchEnded)
        _remember(self._progress, message.job, message, _JOBS_WITH_PROGRESS, _PROGRESS_PER_JOB)

    def _on_event(self, _: Record, message: Message) -> None:
        assert isinstance(message, DeploymentEvent)
        _remember(self._events, message.key(), message, _DEPLOYMENTS_WITH_EVENTS, _EVENTS_PER_DEPLOYMENT)

    def _on_dead_letter(self, record: Record, message: Message) -> None:
        assert isinstance(message, DeadLetter)
        recent = self._dead_letters.setdefault(record.topic, deque(maxlen=_LETTERS_PER_SERVICE))
        # A reader of a whole topic parks what it cannot read at each of its starts: a record's latest letter counts.
        for earlier in [letter for letter in recent if letter.key() == message.key()]:
            recent.remove(earlier)
        recent.append(message.model_copy(update={"value_base64": message.value_base64[:_LETTER_PREVIEW_BASE64]}))


def _remember(memory: "OrderedDict[str, deque[M]]", subject: str, message: M, subjects: int, each: int) -> None:
    """Keep the last `each` messages of the `subjects` that were heard of last."""
    memory.setdefault(subject, deque(maxlen=each)).append(message)
    memory.move_to_end(subject)
    if len(memory) > subjects:
        memory.popitem(last=False)
