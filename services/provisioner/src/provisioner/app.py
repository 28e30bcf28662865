"""The provisioner's loop: tables in, commands decided, instances reconciled, state told.

Start: take the home (one provisioner a home), read the tables, adopt what runs, reconcile, then handle commands. Stop:
no more commands, tell the usage so far; instances go on and the next provisioner adopts them, as after an error, unless
`instances_at_stop` says to drain and end every one first.
"""

import asyncio
import contextlib
import fcntl
import logging
import resource
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

from contracts.artifacts.store import ArtifactStore
from contracts.envelope import Record, Undecodable
from contracts.environments.builder import EnvironmentBuilder
from contracts.environments.runtime import install
from contracts.log import (
    DeadLetters,
    KafkaSettings,
    Offset,
    Publisher,
    Reader,
    Table,
    Tail,
    command_broker,
    handle_commands,
)
from contracts.messages import (
    AssetRegistered,
    EndpointCommand,
    EndpointDesired,
    EndpointObserved,
    GetLogs,
    Message,
    ScaleDecision,
)
from contracts.shell.connections import Connections
from contracts.shell.secrets import Sealer
from contracts.shell.service import until_first
from provisioner.announcer import Announcer
from provisioner.artifacts import SourceFiles
from provisioner.compute.housekeeping import Housekeeping
from provisioner.compute.process import InstanceProcess, ProcessCompute
from provisioner.core.counts import newer
from provisioner.core.lifecycle import PROVEN
from provisioner.events import Events
from provisioner.handler import CommandHandler
from provisioner.identity.server import Identity
from provisioner.logs import Logs
from provisioner.machine import this_machine
from provisioner.meter import InstanceMeter, Sampler
from provisioner.preparation import Preparation
from provisioner.reconciler import Reconciler
from provisioner.settings import ProvisionerSettings
from provisioner.trust import InstanceTrust

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
        """Work until `stop` is set."""
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
        meter = InstanceMeter(
            settings.home, publisher, settings.source, time.time_ns() // 1_000_000, settings.usage_seconds
        )
        decisions: dict[str, ScaleDecision] = {}
        tables = _Tables(self._kafka, DeadLetters(publisher, SERVICE), decisions)
        compute = ProcessCompute(settings.home, catalog, settings.users)
        for said in compute.enforcement():
            log.info("%s", said)
        identity = Identity(settings.home, settings.identity_issuer)
        events = Events(publisher)
        trust = InstanceTrust(identity, Connections(settings.home))
        reconciler = Reconciler(tables.endpoints, decisions, compute, meter, trust, events, settings.timing)
        tables.listen(reconciler.changed)
        # Before anything else can fail: what runs is watched, whatever is to become of new instances.
        reconciler.adopt()
        identity.keep([tracked.instance.id for tracked in reconciler.running()])
        await tables.reader.start()
        store = ArtifactStore(settings.artifact_store, settings.artifacts, settings.largest_artifact)
        await asyncio.to_thread(store.tidy)
        builder = EnvironmentBuilder.of(settings)
        runtime, texts = partial(install, settings.home), settings.home / "logs" / "preparations"
        preparation = Preparation(store, builder, runtime, texts, reconciler.changed, events)
        await asyncio.to_thread(preparation.tidy, tables.endpoints)
        announcer = Announcer(publisher, tables.observed.entries, reconciler.told)
        reconciler.begin(announcer, preparation)
        handler = CommandHandler(
            tables,
            publisher,
            SourceFiles(store, settings.largest_artifact),
            builder,
            Logs(reconciler.running, compute, preparation),
            Sealer(settings.home),
            catalog,
            this_machine(),
            settings.quotas,
            reconciler.remains,
        )
        tables.ask(handler.hear)
        sampler = Sampler(publisher, settings.source, catalog, lambda: _in_service(reconciler))
        log_bytes = int(settings.log_mib * 2**20)
        housekeeping = Housekeeping(compute, lambda: [tracked.process for tracked in reconciler.running()], log_bytes)
        background = [
            asyncio.create_task(reconciler.run(), name="reconciler"),
            asyncio.create_task(announcer.run(), name="announcer"),
            asyncio.create_task(events.run(), name="events"),
            asyncio.create_task(identity.run(), name="identity"),
            asyncio.create_task(meter.run(), name="meter"),
            asyncio.create_task(housekeeping.run(), name="housekeeping"),
            asyncio.create_task(sampler.run(), name="sampler"),
        ]
        assert tables.reader.failed is not None
        # Commands end with `stop`; whatever else runs is needed until the last instance that drains has ended.
        needed = [asyncio.shield(task) for task in (tables.reader.failed, *background)]
        try:
            await until_first(stop.wait(), self._handle_commands(handler, publisher), *needed)
            self._waiting_for = ["its end"]
            if settings.instances_at_stop == "drain":
                await _stop_instances(reconciler)
        finally:
            for task in background:
                task.cancel()
            await asyncio.gather(*background, preparation.stop(), return_exceptions=True)
            await reconciler.instances.cleared()
            compute.close()
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
        self._on_question: Callable[[Record, Message], None] = lambda record, message: None
        questions = _Questions(lambda record, message: self._on_question(record, message))
        self.reader = Reader(kafka, [self._desired, self._assets, self.observed, decided, questions], dead_letters)

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

    def ask(self, on_question: Callable[[Record, Message], None]) -> None:
        """Have `on_question` called for each question on the log, without the commands before it."""
        self._on_question = on_question

    def _decided(self, key: str, decision: ScaleDecision | None) -> None:
        if decision is None:
            self._decisions.pop(key, None)
        else:
            self._decisions[key] = newer(decision, self._decisions.get(key))
        self._on_change(key.partition("/")[0])


class _Questions(Tail):
    """The GetLogs among new commands. What is no command at all is left to whoever handles commands."""

    def __init__(self, on_message: Callable[[Record, Message], None]):
        super().__init__(GetLogs.TOPIC, on_message)

    def apply(self, record: Record) -> None:
        if record.headers.get("ce_type") == GetLogs.TYPE:
            with contextlib.suppress(Undecodable):
                super().apply(record)


async def _stop_instances(reconciler: Reconciler) -> None:
    """Drain and end every instance. A log that cannot be reached holds this up for a moment only."""
    reconciler.stop_all()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(reconciler.idle.wait(), _TELL_AT_MOST_SECONDS)
    reconciler.stop_waiting()
    await reconciler.idle.wait()


def _in_service(reconciler: Reconciler) -> list[InstanceProcess]:
    return [tracked.process for tracked in reconciler.running() if tracked.instance.phase in PROVEN]


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
