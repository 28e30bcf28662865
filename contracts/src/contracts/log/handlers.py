"""At-least-once handlers of commands, on FastStream.

FastStream acknowledges before the handler by default and seeks straight back on a failure (a hot loop on a poison
record). Here a record is acknowledged when it was handled or parked, and a failing dependency holds the partition
while the handler is tried again.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from aiokafka.errors import KafkaError
from faststream import AckPolicy
from faststream.kafka import KafkaBroker, KafkaMessage
from faststream.kafka.subscriber.usecase import LogicSubscriber
from faststream.security import BaseSecurity, SASLPlaintext, SASLScram256, SASLScram512

from contracts.envelope import Record, Undecodable, decode
from contracts.log.deadletter import DeadLetters, TooManyDeadLetters
from contracts.log.fetching import FETCH_WAIT_MS, fetch_together
from contracts.log.records import check_key, record_of
from contracts.log.settings import GROUP_SESSION, KafkaSettings
from contracts.log.tracing import continued
from contracts.messages import Message, Problem

log = logging.getLogger(__name__)

Handler = Callable[[Record, Message], Awaitable[None]]
OnUndecodable = Callable[[Undecodable], Awaitable[None]]


class _CommandBroker(KafkaBroker):
    async def start(self) -> None:
        await super().start()
        for subscriber in self.subscribers:
            assert isinstance(subscriber, LogicSubscriber)
            fetch_together(subscriber.consumer)


def command_broker(settings: KafkaSettings) -> KafkaBroker:
    """The FastStream broker of a service that handles commands: it only consumes, and makes no topics."""
    client = settings.client()
    tls = client.get("ssl_context")
    security = BaseSecurity(tls)
    if settings.security_protocol.startswith("SASL"):
        mechanisms = {"PLAIN": SASLPlaintext, "SCRAM-SHA-256": SASLScram256, "SCRAM-SHA-512": SASLScram512}
        username, password = client["sasl_plain_username"], client["sasl_plain_password"]
        security = mechanisms[settings.sasl_mechanism](username, password, tls)
    # It tells of every step of every record; what goes wrong with one is told here.
    logger = logging.getLogger(f"{__name__}.faststream")
    logger.setLevel(logging.ERROR)
    return _CommandBroker(
        settings.bootstrap_servers.split(","),
        security=security,
        consumer_only=True,
        allow_auto_create_topics=False,
        graceful_timeout=5,  # of a command that is being handled when the service stops; it comes again
        logger=logger,
    )


def handle_commands(
    broker: KafkaBroker,
    topic: str,
    service: str,
    handler: Handler,
    dead_letters: DeadLetters,
    on_undecodable: OnUndecodable,
    on_stopped: Callable[[BaseException], None],
    *,
    member: str | None = None,
    retry_seconds: tuple[float, ...] = (0.1, 0.5, 1, 2, 5),
) -> None:
    """Subscribe `handler` to `topic` in the group `service`: in order, one at a time, each until it succeeds.

    Commands are decoded strictly. What is none is parked, and `on_undecodable` may tell its sender. `on_stopped` hears
    of the error after which nothing more is handled. `member` is this process's stable name in the group: with one it
    is back at once after a crash, instead of when the session of the one that died has ended.
    """

    async def _park(error: Undecodable) -> None:
        await _until_done(lambda: on_undecodable(error), error.record, retry_seconds)
        try:
            await _until_done(lambda: dead_letters.park(error), error.record, retry_seconds)
        except TooManyDeadLetters as too_many:
            on_stopped(too_many)

    async def handle_one(record: Record) -> None:
        try:
            command = decode(record, strict=True)
            check_key(record, command)
        except Undecodable as error:
            await _park(error)
        else:
            dead_letters.read()
            try:
                with continued(record, service):
                    await _until_done(lambda: handler(record, command), record, retry_seconds)
            except _NotHandledError as error:
                await _park(error.undecodable)

    async def handle(message: KafkaMessage) -> None:
        raw = message.raw_message
        for each in raw if isinstance(raw, tuple | list) else (raw,):
            await handle_one(record_of(each))
        await message.ack()

    broker.subscriber(
        topic,
        # Batches of one: each record is committed before the next is handled, so that at most the last comes again; and
        # unlike without batches, aiokafka fetches the partition's next record while this one is handled.
        batch=True,
        max_records=1,
        group_id=service,
        group_instance_id=member,
        auto_offset_reset="earliest",
        ack_policy=AckPolicy.MANUAL,
        no_reply=True,
        fetch_max_wait_ms=FETCH_WAIT_MS,
        session_timeout_ms=GROUP_SESSION["session_timeout_ms"],
        heartbeat_interval_ms=GROUP_SESSION["heartbeat_interval_ms"],
    )(handle)


class _NotHandledError(Exception):
    """A handler failed on a record for a reason that waiting does not mend."""

    def __init__(self, record: Record, error: Exception):
        super().__init__(record.origin)
        problem = f"could not be handled: {error!r}. Nothing was changed; the service's log has the traceback"
        self.undecodable = Undecodable(record, (Problem(code="InternalServerError", field="value", message=problem),))


def _may_pass(error: Exception) -> bool:
    """Whether a dependency failed that may come back: Kafka, the disk, the network."""
    return error.retriable if isinstance(error, KafkaError) else isinstance(error, OSError)


async def _until_done(attempt: Callable[[], Awaitable[None]], record: Record, retry_seconds: tuple[float, ...]) -> None:
    waits = iter(retry_seconds)
    wait = retry_seconds[0]
    while True:
        try:
            await attempt()
        except (TooManyDeadLetters, asyncio.CancelledError):
            raise
        except Exception as error:
            if not _may_pass(error):
                log.exception("handling %s failed", record.origin)
                raise _NotHandledError(record, error) from error
            wait = next(waits, wait)
            log.exception("handling %s failed; trying again in %.1f s", record.origin, wait)
            await asyncio.sleep(wait)
        else:
            return
