"""Writing messages: an idempotent producer that waits for every in-sync replica."""

import asyncio
import logging
import uuid
from datetime import UTC, datetime
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.conn import collect_hosts, create_conn
from aiokafka.errors import KafkaConnectionError, KafkaError

from contracts.envelope import Envelope, encode
from contracts.log.records import Offset
from contracts.log.settings import KafkaSettings
from contracts.log.tracing import current_traceparent
from contracts.messages import Message

log = logging.getLogger(__name__)

_ASK_MS = 5000


class Publisher:
    """Publishes messages as `source`. Every error of aiokafka that it does not retry itself is raised to the caller."""

    def __init__(self, settings: KafkaSettings, source: str):
        self.source = source
        self._settings = settings
        self._producer: Any = None

    async def start(self) -> None:
        """Connect; raises KafkaConnectionError that says why no broker takes us in."""
        self._producer = AIOKafkaProducer(
            **self._settings.client(),
            enable_idempotence=True,
            acks="all",
            linger_ms=0,
            max_request_size=8 << 20,
        )
        try:
            await self._producer.start()
        except KafkaConnectionError as error:
            await self._producer.stop()
            raise KafkaConnectionError(await _refusals(self._settings)) from error

    async def stop(self, seconds: float = 3.0) -> None:
        """Send what waits, then disconnect. What a Kafka that cannot be reached does not take in time is given up."""
        if self._producer is not None:
            try:
                await asyncio.wait_for(self._producer.stop(), seconds)
            except TimeoutError:
                log.warning("Kafka cannot be reached: what waited to be sent is given up")

    async def publish(
        self,
        message: Message,
        *,
        id: str | None = None,
        topic: str | None = None,
        partition: int | None = None,
    ) -> Offset:
        """Write one message and wait until it is durable. `id` is random unless the caller has a deterministic one."""
        return await (await self.send(message, id=id, topic=topic, partition=partition))

    async def send(
        self,
        message: Message,
        *,
        id: str | None = None,
        topic: str | None = None,
        partition: int | None = None,
    ) -> "asyncio.Future[Offset]":
        """Hand one message to the producer, in order; the future tells when it is durable."""
        key, value, headers = encode(message, self.envelope(id))
        metadata = await self._producer.send(
            topic or message.TOPIC, value, key=key, headers=headers, partition=partition
        )
        return asyncio.ensure_future(_offset(metadata))

    async def delete(self, topic: str, key: str, *, id: str | None = None) -> Offset:
        """Delete `key` from a compacted topic. The tombstone carries `id`, for whoever must know what deleted it."""
        headers = [("ce_id", id.encode())] if id is not None else []
        return await _offset(await self._producer.send(topic, None, key=key.encode(), headers=headers))

    def envelope(self, id: str | None = None) -> Envelope:
        """An envelope for a message that is written now."""
        return Envelope(
            id=id or uuid.uuid4().hex,
            source=self.source,
            time=datetime.now(UTC),
            traceparent=current_traceparent(),
        )


async def _offset(metadata: Any) -> Offset:
    sent = await metadata
    return Offset(sent.topic, sent.partition, sent.offset)


async def _refusals(settings: KafkaSettings) -> str:
    """What each broker says when it is asked again: aiokafka only logs why it could not connect."""
    client = settings.client()
    reasons = []
    for host, port, _ in collect_hosts(client.pop("bootstrap_servers"), randomize=False):
        try:
            (await create_conn(host, port, **client, request_timeout_ms=_ASK_MS)).close()
            reason = "connects, but tells nothing of the cluster"
        except (KafkaError, OSError, TimeoutError) as error:
            reason = str(error) or repr(error)
        reasons.append(f"{host}:{port} by {settings.security_protocol}: {reason}")
    return f"{'; '.join(reasons)}. Correct KAFKA_BOOTSTRAP_SERVERS, or KAFKA_SECURITY_PROTOCOL and its companions"
