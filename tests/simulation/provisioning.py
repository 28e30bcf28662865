"""The provisioner: its pure cores in the order in which its handler, announcer and meter call them."""

import hashlib
from collections.abc import Callable, Iterator

from contracts.envelope import Record, Undecodable, decode, message_id
from contracts.instance_time import InstanceTime
from contracts.log import Table
from contracts.messages import (
    Artifact,
    AssetRegistered,
    CommandRejected,
    EndpointCommand,
    EndpointDesired,
    EndpointKey,
    EndpointKeys,
    EndpointObserved,
    RegisterAsset,
    Reply,
    ScaleDecision,
    UsageRecorded,
)
from contracts.topics import topics
from provisioner.core import commands, counts
from provisioner.core.sources import sources_of
from provisioner.core.world import Command, Fact, Source
from provisioner.core.world import Machine as Capacity
from provisioner.core.world import World as Known

from .bus import Reader, park
from .machine import Turn
from .reconciling import Reconciler
from .world import CATALOG, World

MISSING = "missing"
"""A path that holds this word does not exist."""

_COMMANDS = EndpointCommand.TOPIC
_USAGE_SECONDS = 5.0


class Provisioner:
    """At-least-once and level-triggered."""

    name = "provisioner"

    def __init__(self, world: World):
        self._world = world
        self._unnoted: list[UsageRecorded] = []
        self.restart()

    def restart(self) -> None:
        world = self._world
        world.watch.accounts.provisioner_restarted(world.machine, self._unnoted, world.now)
        self._unnoted = []
        self._works: dict[str, Iterator[str]] = {}
        self._decisions: dict[str, ScaleDecision] = {}
        changed: set[str] = set()
        self._desired = Table(EndpointDesired, lambda endpoint, _: changed.add(endpoint))
        self._assets = Table(AssetRegistered)
        observed = Table(EndpointObserved)
        decided = Table(ScaleDecision, self._decided)
        self._time = InstanceTime("provisioner-1", world.epoch)
        self._flush_at = world.seconds + _USAGE_SECONDS
        self._said: dict[str, EndpointObserved] = {}
        self._to_say: dict[str, EndpointObserved | None] = {}
        self._reconciler = Reconciler(
            world,
            self._desired.entries,
            self._decisions,
            self._time,
            changed,
            lambda endpoint: endpoint in self._said or endpoint in self._to_say,
            self._latest,
            self._tell,
        )
        self._reader = Reader(world.bus, self._desired, self._assets, observed, decided)
        self._said |= observed.entries
        changed |= self._desired.entries.keys() | self._said.keys()
        self._reconciler.adopt()

    def turns(self) -> list[Turn]:
        works = {
            "commands": (self._handle_next, self._has_commands),
            "telling": (self._say, lambda: bool(self._to_say)),
            "billing": (self._bill, lambda: bool(self._time) and self._world.seconds >= self._flush_at),
        }
        turns: list[Turn] = [
            self._advance(name, begin) for name, (begin, wanted) in works.items() if name in self._works or wanted()
        ]
        if self._reader.behind():
            turns.append(self._read)
        return turns + self._reconciler.turns()

    def behind(self) -> bool:
        return bool(self._works or self._to_say or self._reader.behind()) or self._has_commands()

    def _advance(self, name: str, begin: Callable[[], Iterator[str]]) -> Turn:
        """Do the next piece of a work whose pieces others, and a crash, may come between."""

        def turn() -> str:
            work = self._works.setdefault(name, begin())
            did = next(work, None)
            if did is None:
                del self._works[name]
            return did or f"{name}: done"

        return turn

    def _read(self) -> str:
        self._reader.poll(self._world.rng)
        return "read"

    def _decided(self, key: str, decision: ScaleDecision | None) -> None:
        if decision is None:
            self._decisions.pop(key, None)
        else:
            self._decisions[key] = counts.newer(decision, self._decisions.get(key))
        self._reconciler.changed.add(key.partition("/")[0])

    # Commands, as provisioner.handler and contracts.log.handlers

    def _has_commands(self) -> bool:
        return any(self._next(at) < self._world.bus.end(_COMMANDS, at) for at in self._partitions)

    @property
    def _partitions(self) -> range:
        return range(topics()[_COMMANDS].partitions)

    def _next(self, partition: int) -> int:
        return self._world.bus.committed.get((self.name, _COMMANDS, partition), 0)

    def rewind(self) -> None:
        """Somebody sets the group's offsets back to the beginning."""
        for at in self._partitions:
            self._world.bus.committed[self.name, _COMMANDS, at] = 0

    def _handle_next(self) -> Iterator[str]:
        """A command of any partition, committed before the next: at most the last one comes again."""
        bus, next_offsets = self._world.bus, {at: self._next(at) for at in self._partitions}
        at = self._world.rng.choice([at for at in self._partitions if next_offsets[at] < bus.end(_COMMANDS, at)])
        [record] = bus.read(_COMMANDS, at, next_offsets[at], 1)
        yield from self._handle_record(record)
        bus.committed[self.name, _COMMANDS, at] = record.offset + 1
        yield f"committed {record.origin}"

    def _handle_record(self, record: Record) -> Iterator[str]:
        try:
            command = decode(record, strict=True)
        except Undecodable as error:
            if "ce_id" in record.headers:
                self._answer(CommandRejected(command_id=error.id, subject=record.key, problems=error.problems))
                yield f"rejected {error.id}, which is no command"
            park(self._world.bus, self.name, error, self._world.now)
            yield f"parked {record.origin}"
        else:
            assert isinstance(command, EndpointCommand | RegisterAsset)
            yield from self._handle(command, message_id(record))

    def _handle(self, command: Command, id: str) -> Iterator[str]:
        world = self._world
        outcome = commands.decide(command, id, self._known(command), world.now, self._new_keys())
        offset = None
        if outcome.write is not None:
            offset = world.bus.publish(outcome.write, id=f"{id}/state", source=self.name, now=world.now)
            yield f"wrote what {id} asks for"
        elif outcome.delete is not None:
            offset = world.bus.delete(EndpointDesired.TOPIC, outcome.delete, id=id)
            yield f"deleted what {id} asks for"
        if offset is not None:
            self._reader.wait_for(offset)
        self._answer(outcome.reply)
        yield f"answered {type(outcome.reply).__name__} to {id}"

    def _known(self, command: Command) -> Known:
        endpoint, assets = command.endpoint if isinstance(command, EndpointCommand) else "", self._assets.entries
        return Known(
            endpoints=self._desired.entries,
            assets=assets,
            catalog=CATALOG,
            machine=Capacity(cores=1_000, memory_gib=10_000),
            deleting=(endpoint,) if self._reconciler.remains(endpoint) else (),
            deleted=self._desired.deleted,
            facts={source: _fact(source) for source in sources_of(command, assets) if source.problem is None},
        )

    def _new_keys(self) -> EndpointKeys:
        one, other = (EndpointKey(digest=f"{self._world.rng.getrandbits(256):064x}", sealed="-") for _ in range(2))
        return EndpointKeys(primary=one, secondary=other)

    def _answer(self, reply: Reply) -> None:
        self._world.bus.publish(reply, id=f"{reply.command_id}/reply", source=self.name, now=self._world.now)

    # What the log is told, as provisioner.announcer

    def _latest(self, endpoint: str) -> EndpointObserved | None:
        return self._to_say[endpoint] if endpoint in self._to_say else self._said.get(endpoint)

    def _tell(self, endpoint: str, document: EndpointObserved | None) -> bool:
        if endpoint not in self._to_say and document == self._said.get(endpoint):
            return True
        self._to_say[endpoint] = document
        return False

    def _say(self) -> Iterator[str]:
        endpoint = next(iter(self._to_say))
        document = self._to_say[endpoint]
        if document is None:
            self._world.bus.delete(EndpointObserved.TOPIC, endpoint)
        else:
            self._world.bus.publish(document, id=f"{endpoint}@{self._world.now}", source=self.name, now=self._world.now)
        yield f"told how {endpoint} is"
        if document is None:
            self._said.pop(endpoint, None)
        else:
            self._said[endpoint] = document
        if self._to_say[endpoint] == document:
            del self._to_say[endpoint]
        self._reconciler.told(endpoint, document)

    # Instance time, as provisioner.meter

    def _bill(self) -> Iterator[str]:
        now = self._world.now
        for record in self._time.flush(now):
            self._world.tell_usage(record)
            self._unnoted.append(record)
            yield f"billed {record.key()} {record.sequence}"
        self._world.machine.told_to = now
        self._unnoted = []
        self._flush_at = self._world.seconds + _USAGE_SECONDS


def _fact(source: Source) -> Fact:
    if MISSING in source.path:
        return Fact(problem=f"'{source.path}' does not exist")
    digest = hashlib.sha256(source.path.encode()).hexdigest()
    artifact = source.artifact or Artifact(digest=digest, name=source.name)
    texts = dict.fromkeys(source.reads, "")
    return Fact(is_folder=not source.reads, files=frozenset(source.wants), texts=texts, artifact=artifact)
