"""Gather samples and counts, decide, publish what changed."""

import asyncio
import logging
from collections import Counter
from datetime import UTC, datetime, timedelta

from prometheus_client import Counter as Metric
from prometheus_client import Gauge
from pydantic import Field

from autoscaler.decide import Decision, current_count, decide
from autoscaler.watched import REPLAY_SECONDS, Deployments, Watched
from contracts.envelope import Record
from contracts.log import DeadLetters, KafkaSettings, Publisher, Reader, Table, Tail
from contracts.messages import (
    EndpointDesired,
    EndpointObserved,
    LoadSample,
    Message,
    ResourceSample,
    ScaleDecision,
    ScaleProfile,
)
from contracts.shell.service import until_first
from contracts.shell.settings import Settings

log = logging.getLogger(__name__)

SERVICE = "autoscaler"

DECISIONS = Metric("endpunkt_autoscaler_decisions", "decisions by kind", ["kind"])
HOLDING = Gauge("endpunkt_autoscaler_holding", "deployments whose count is held, by why", ["why"])


class AutoscalerSettings(Settings):
    """How often it decides."""

    evaluate_seconds: float = Field(default=1.0, gt=0, description="how often the rules are evaluated")


class Autoscaler:
    """The service, see `contracts.shell.service.App`."""

    def __init__(self, settings: AutoscalerSettings, kafka: KafkaSettings):
        self._settings = settings
        self._deployments = Deployments()
        self._changed = asyncio.Event()
        self._ready = False
        self._publisher = Publisher(kafka, SERVICE)
        self._observed = Table(EndpointObserved)
        self._decisions = Table(ScaleDecision)
        self._reader = Reader(
            kafka,
            [
                Table(EndpointDesired, self._on_desired),
                self._observed,
                self._decisions,
                Tail(LoadSample.TOPIC, self._on_sample, since=_now() - timedelta(seconds=REPLAY_SECONDS)),
            ],
            DeadLetters(self._publisher, SERVICE),
        )

    def not_ready(self) -> list[str]:
        """It waits for the tables and the samples of the last minutes."""
        return [] if self._ready else ["its tables"]

    def addresses(self) -> dict[str, str]:
        """It listens for nothing."""
        return {}

    async def run(self, stop: asyncio.Event) -> None:
        """Decide until `stop` is set."""
        try:
            await self._publisher.start()
            await self._reader.start()
            assert self._reader.failed is not None
            self._deployments.caught_up()
            self._ready = True
            await until_first(self._work(), self._reader.failed, stop.wait())
        finally:
            await self._reader.stop()
            await self._publisher.stop()

    async def _work(self) -> None:
        while True:
            await self._delete_orphans()
            await self._evaluate()
            if not any(watched.profile for watched in self._deployments.by_key.values()):
                await self._changed.wait()
            self._changed.clear()
            await asyncio.sleep(self._settings.evaluate_seconds)

    async def _delete_orphans(self) -> None:
        """A decision must not outlive its deployment or its setting, nor come back when that is switched on again."""
        scaled = {key for key, watched in self._deployments.by_key.items() if watched.profile}
        for key in self._decisions.entries.keys() - scaled:
            log.info("deleting the decision about %s: it has no autoscale setting that is enabled", key)
            await self._reader.wait_for(await self._publisher.delete(ScaleDecision.TOPIC, key))

    async def _evaluate(self) -> None:
        holding: Counter[str] = Counter()
        for key, watched in list(self._deployments.by_key.items()):
            if watched.profile is None:
                holding["Disabled"] += 1
                continue
            now = _now()
            watched.window.forget(now)
            last = self._decisions.entries.get(key)
            count = current_count(self._seen(watched), watched.declared, last, now)
            result = decide(watched.profile, watched.window, count, last, now)
            if isinstance(result, Decision):
                await self._publish(watched, watched.profile, count, result, now)
            else:
                holding[result.why] += 1
                log.debug("%s holds (%s): %s", key, result.why, result.reason)
        HOLDING.clear()
        for why, number in holding.items():
            HOLDING.labels(why).set(number)

    def _seen(self, watched: Watched) -> int | None:
        """The count that the provisioner works towards, as far as it has told."""
        endpoint = self._observed.entries.get(watched.endpoint)
        deployment = endpoint.deployments.get(watched.deployment) if endpoint else None
        return deployment.desired_instances if deployment else None

    async def _publish(
        self, watched: Watched, profile: ScaleProfile, count: int, decision: Decision, now: datetime
    ) -> None:
        message = ScaleDecision(
            endpoint=watched.endpoint,
            deployment=watched.deployment,
            decided_at=now,
            previous=count,
            instances=decision.instances,
            kind=decision.kind,
            profile=profile.name,
            reason=decision.reason,
            cooldown_until=decision.cooldown_until,
        )
        log.info("%s %s: %s", message.key(), decision.kind, decision.reason)
        # Waited for: the next evaluation must know of it.
        offset = await self._publisher.publish(message, id=f"{message.key()}@{now.isoformat()}")
        await self._reader.wait_for(offset)
        DECISIONS.labels(decision.kind).inc()

    def _on_desired(self, endpoint: str, desired: EndpointDesired | None) -> None:
        self._deployments.change(endpoint, desired, _now())
        self._changed.set()

    def _on_sample(self, _: Record, message: Message) -> None:
        assert isinstance(message, LoadSample | ResourceSample)
        self._deployments.add(message, _now())


def _now() -> datetime:
    return datetime.now(UTC)
