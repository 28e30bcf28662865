"""The provisioner's loop: tables in, commands decided, instances reconciled, state told.

Start: take the home (one provisioner a home), read the tables, adopt what runs, reconcile, then handle commands. Stop:
no more commands, drain and end every instance, tell the last usage. An error leaves the instances running: the next
provisioner adopts them.
"""

import asyncio
import contextlib
import fcntl
import logging
import resource
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from contracts.log import DeadLetters, KafkaSettings, Offset, Publisher, Reader, Table, command_broker, handle_commands
from contracts.messages import AssetRegistered, EndpointCommand, EndpointDesired, EndpointObserved, ScaleDecision
from contracts.shell.secrets import Sealer
from contracts.shell.service import until_first
from provisioner.announcer import Announcer
from provisioner.artifacts import ArtifactStore
from provisioner.compute.process import ProcessCompute
from provisioner.compute.records import InstanceRecord
from provisioner.core.counts import newer
from provisioner.core.lifecycle import Phase
from provisioner.handler import CommandHandler
from provisioner.meter import InstanceMeter, Sampler
from provisioner.reconciler import Reconciler
from provisioner.settings import ProvisionerSettings

log = logging.getLogger(__name__)

SERVICE = "provisioner"
_TELL_AT_MOST_SECONDS = 3.0


class Provisioner:
    """The service, as `contracts.shell.service` runs it."""

    def __init__(self, settings: ProvisionerSettings, kafka: KafkaSettings):
        self._settings = settings
        self._kafka = kafka
        self._waiting_for = ["the tables"]

    def not_ready(self) -> list[str]:
        """What it still waits for."""
        return self._waiting_for

    def addresses(self) -> dict[str, str]:
        """It listens for nothing but the log."""
        return {}

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set, then drain and end every instance."""
        # Neither an instance's memory nor this process's, which holds keys for moments, belongs in a core file.
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with _sole_owner(self._settings.home):
            publisher = Publisher(self._kafka, self._settings.source)
            await publisher.start()
            try:
                await self._work(publisher, stop)
            finally:
                await publisher.stop()

    async def _work(self, publisher: Publisher, stop: asyncio.Event) -> None:
        settings, catalog = self._settings, self._settings.catalog
        store = ArtifactStore(settings.artifacts, int(settings.artifact_gib * 2**30))
        store.tidy()
        meter = InstanceMeter(
            settings.home, publisher, settings.source, time.time_ns() // 1_000_000, settings.usage_seconds
        )
        decisions: dict[str, ScaleDecision] = {}
        tables = _Tables(self._kafka, DeadLetters(publisher, SERVICE), decisions)
        compute = ProcessCompute(settings.home, settings.artifacts, catalog)
        reconciler = Reconciler(tables.endpoints, decisions, compute, meter, settings.timing)
        tables.listen(reconciler.changed)
        await tables.reader.start()
        announcer = Announcer(publisher, tables.observed.entries, reconciler.told)
        reconciler.begin(announcer)
        handler = CommandHandler(
            tables, publisher, store, Sealer(settings.home), catalog, settings.quotas, reconciler.remains
        )
        sampler = Sampler(publisher, settings.source, catalog, lambda: _sampled(reconciler, tables.endpoints))
        background = [
            asyncio.create_task(reconciler.run(), name="reconciler"),
            asyncio.create_task(announcer.run(), name="announcer"),
            asyncio.create_task(meter.run(lambda: _trim_logs(reconciler, settings)), name="meter"),
            asyncio.create_task(sampler.run(), name="sampler"),
        ]
        assert tables.reader.failed is not None
        # Commands end with `stop`; whatever else runs is needed until the last instance has ended.
        needed = [asyncio.shield(task) for task in (tables.reader.failed, *background)]
        try:
            await until_first(stop.wait(), self._handle_commands(handler, publisher), *needed)
            self._waiting_for = ["its end"]
            await _stop_instances(reconciler)
        finally:
            for task in background:
                task.cancel()
            await asyncio.gather(*background, return_exceptions=True)
            try:
                await asyncio.wait_for(meter.flush(), _TELL_AT_MOST_SECONDS)
            except Exception as error:
                log.error("the last %d usage records are lost, Kafka did not take them: %r", meter.waiting, error)
            await tables.reader.stop()

    async def _handle_commands(self, handler: CommandHandler, publisher: Publisher) -> None:
        """Handle commands until cancelled; raises what makes it stop."""
        self._waiting_for = ["its turn in the command group"]
        broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        broker = command_broker(self._kafka)
        dead_letters = DeadLetters(publisher, SERVICE)
        handle_commands(
            broker,
            EndpointCommand.TOPIC,
            SERVICE,
            handler.handle,
            dead_letters,
            handler.reject,
            lambda error: None if broken.done() else broken.set_exception(error),
            member=self._settings.source,
        )
        try:
            await broker.start()
            self._waiting_for = []
            log.info("ready for commands")
            await broken
        finally:
            # Without Kafka it ends with the cancellation of its own tasks, which is not ours.
            await asyncio.gather(broker.stop(), return_exceptions=True)


class _Tables:
    """The topics that the provisioner reads."""

    def __init__(self, kafka: KafkaSettings, dead_letters: DeadLetters, decisions: dict[str, ScaleDecision]):
        self._decisions = decisions
        self._on_change: Callable[[str], None] = lambda endpoint: None
        self._desired = Table(EndpointDesired, lambda endpoint, _: self._on_change(endpoint))
        self._assets = Table(AssetRegistered)
        self.observed = Table(EndpointObserved)
        decided = Table(ScaleDecision, self._decided)
        self.reader = Reader(kafka, [self._desired, self._assets, self.observed, decided], dead_letters)

    @property
    def endpoints(self) -> Mapping[str, EndpointDesired]:
        return self._desired.entries

    @property
    def deleted(self) -> Mapping[str, str]:
        return self._desired.deleted

    @property
    def assets(self) -> Mapping[str, AssetRegistered]:
        return self._assets.entries

    async def wait_for(self, offset: Offset) -> None:
        await self.reader.wait_for(offset)

    def listen(self, on_change: Callable[[str], None]) -> None:
        """Have `on_change(endpoint)` called when the document of an endpoint, or a decision about it, changed."""
        self._on_change = on_change

    def _decided(self, key: str, decision: ScaleDecision | None) -> None:
        if decision is None:
            self._decisions.pop(key, None)
        else:
            self._decisions[key] = newer(decision, self._decisions.get(key))
        self._on_change(key.partition("/")[0])


async def _stop_instances(reconciler: Reconciler) -> None:
    """Drain and end every instance. A log that cannot be reached holds this up for a moment only."""
    reconciler.stop_all()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(reconciler.idle.wait(), _TELL_AT_MOST_SECONDS)
    reconciler.stop_waiting()
    await reconciler.idle.wait()


def _sampled(reconciler: Reconciler, endpoints: Mapping[str, EndpointDesired]) -> Iterator[InstanceRecord]:
    """The ready instances of deployments that scale by rules."""
    for tracked in reconciler.running():
        place = tracked.instance.place
        endpoint = endpoints.get(place.endpoint)
        deployment = endpoint.deployments.get(place.deployment) if endpoint is not None else None
        if tracked.instance.phase is Phase.READY and deployment is not None and deployment.autoscale is not None:
            yield tracked.process.record


def _trim_logs(reconciler: Reconciler, settings: ProvisionerSettings) -> None:
    for tracked in reconciler.running():
        try:
            tracked.process.folder.trim(int(settings.log_mib * 2**20))
        except OSError as error:  # the folder is the user's code's too
            log.warning("cannot bound the output of %s: %s", tracked.instance.id, error)


@contextlib.contextmanager
def _sole_owner(home: Path) -> Iterator[None]:
    """Hold `home` for this process. Raises RuntimeError when another provisioner has it."""
    path = home / "run" / "provisioner.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RuntimeError(f"another provisioner works in {home}: stop it, or give this one another home") from None
        yield
