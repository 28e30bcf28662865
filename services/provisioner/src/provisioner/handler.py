"""Takes commands from the log: gathers what a decision needs, decides, writes, reads its own write back, answers.

At-least-once: a command may come again at any point of this. The document remembers which commands it holds, ids of
writes and answers follow from the command's, so a replay writes the same or nothing.
"""

import asyncio
import logging
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Protocol

from contracts.catalog import Catalog
from contracts.envelope import Record, Undecodable, message_id
from contracts.environments.lines import Trouble
from contracts.log import Offset
from contracts.messages import (
    AssetRegistered,
    CommandRejected,
    CreateEndpoint,
    EndpointCommand,
    EndpointDesired,
    EndpointKey,
    EndpointKeys,
    GetLogs,
    LogsRead,
    Message,
    Problem,
    RegenerateKey,
    RegisterAsset,
    Reply,
)
from contracts.shell.secrets import Sealer, digest_of
from provisioner.artifacts import SourceFiles
from provisioner.core.commands import Outcome, decide, known
from provisioner.core.sources import sources_of
from provisioner.core.validation import check
from provisioner.core.world import Command, Fact, Machine, Quotas, Source, World
from provisioner.instruments import COMMANDS
from provisioner.logs import Reader

log = logging.getLogger(__name__)

_KEY_BYTES = 32
_REMEMBERED_ANSWERS = 256


class Tables(Protocol):
    """The documents as this process has read them back."""

    @property
    def endpoints(self) -> Mapping[str, EndpointDesired]:
        """Desired endpoints by name."""

    @property
    def deleted(self) -> Mapping[str, str]:
        """The command that deleted an endpoint, by its name."""

    @property
    def assets(self) -> Mapping[str, AssetRegistered]:
        """Assets by key."""

    async def wait_for(self, offset: Offset) -> None:
        """Return when the record at `offset` has been read."""


class Writer(Protocol):
    """Writes to the log; `contracts.log.Publisher` is one."""

    async def publish(self, message: Message, *, id: str | None = None) -> Offset:
        """Write `message`."""

    async def delete(self, topic: str, key: str, *, id: str | None = None) -> Offset:
        """Delete `key`."""


class Checker(Protocol):
    """Judges environment files; `contracts.environments.builder.EnvironmentBuilder` is one."""

    def check(self, name: str, text: str) -> Sequence[Trouble]:
        """What is wrong with the file as an environment of this machine. Blocks for a moment."""


class CommandHandler:
    """Handles commands one at a time. `remains(endpoint)` tells whether a deleted endpoint is not all gone yet.

    Questions for logs change nothing and need not wait behind a command that copies gigabytes: whoever sees one on the
    log first, `hear` or `handle`, has it answered.
    """

    def __init__(
        self,
        tables: Tables,
        writer: Writer,
        store: SourceFiles,
        checker: Checker,
        logs: Reader,
        sealer: Sealer,
        catalog: Catalog,
        machine: Machine,
        quotas: Quotas,
        remains: Callable[[str], bool],
    ):
        self._tables = tables
        self._writer = writer
        self._store = store
        self._checker = checker
        self._logs = logs
        self._sealer = sealer
        self._catalog = catalog
        self._machine = machine
        self._quotas = quotas
        self._remains = remains
        self._answers: dict[str, asyncio.Task[None]] = {}

    async def handle(self, record: Record, command: Message) -> None:
        """Handle one command. Raises what the log raises; the caller tries again."""
        assert isinstance(command, EndpointCommand | RegisterAsset)
        id = message_id(record)
        if isinstance(command, GetLogs):
            await asyncio.shield(self._answering(command, id))
            return
        outcome = await self._decide(command, id)
        offset = None
        if outcome.write is not None:
            offset = await self._writer.publish(outcome.write, id=f"{id}/state")
        elif outcome.delete is not None:
            offset = await self._writer.delete(EndpointDesired.TOPIC, outcome.delete, id=id)
        if offset is not None:
            # The next command must meet the state that this one made.
            await self._tables.wait_for(offset)
        await self._answer(outcome.reply)
        self._tell(command, outcome)

    def hear(self, record: Record, command: Message) -> None:
        """A command was seen on the log, before its turn perhaps."""
        if isinstance(command, GetLogs):
            self._answering(command, message_id(record))

    def _answering(self, command: GetLogs, id: str) -> "asyncio.Task[None]":
        """The task that answers it: the one there is, unless it failed."""
        task = self._answers.pop(id, None)
        if task is None or (task.done() and (task.cancelled() or task.exception() is not None)):
            task = asyncio.create_task(self._show_logs(command, id), name=f"logs {id}")
        self._answers[id] = task
        for older in [each for each, done in self._answers.items() if done.done()][:-_REMEMBERED_ANSWERS]:
            del self._answers[older]
        return task

    async def _show_logs(self, command: GetLogs, id: str) -> None:
        problems = check(command, self._world(command, {}))
        text = ""
        if not problems:
            deployment = self._tables.endpoints[command.endpoint].deployments[command.deployment]
            try:
                text = await asyncio.to_thread(self._logs.read, command, deployment)
            except LookupError as error:
                problems = (Problem(code="ResourceNotFound", field="instance", message=str(error.args[0])),)
        if problems:
            await self._answer(CommandRejected(command_id=id, subject=command.endpoint, problems=problems))
            return
        sealed = await asyncio.to_thread(self._sealer.seal, text, f"{id}/logs")
        subject = f"{command.endpoint}/{command.deployment}"
        await self._answer(LogsRead(command_id=id, subject=subject, sealed=sealed))

    async def reject(self, error: Undecodable) -> None:
        """Tell the sender of what is no command, if it gave an id to tell it by."""
        COMMANDS.labels("undecodable").inc()
        if "ce_id" in error.record.headers:
            problems = error.problems
            await self._answer(CommandRejected(command_id=error.id, subject=error.record.key, problems=problems))

    async def _decide(self, command: Command, id: str) -> Outcome:
        world = self._world(command, {})
        if answer := known(command, id, world):
            return Outcome(answer)
        sources = [source for source in sources_of(command, world.assets) if source.problem is None]
        facts = await asyncio.to_thread(lambda: {source: self._look(source) for source in sources})
        if not check(command, self._world(command, facts)):
            # Only what nothing speaks against is copied.
            stored = await asyncio.to_thread(lambda: {source: self._store.store(source) for source in sources})
            # Of what changed meanwhile, the environment is not judged again: its build says what is wrong with it.
            facts = {source: replace(fact, troubles=facts[source].troubles) for source, fact in stored.items()}
        return decide(command, id, self._world(command, facts), datetime.now(UTC), self._new_keys(command))

    def _look(self, source: Source) -> Fact:
        fact = self._store.look(source)
        file = fact.environment_file(source)
        if fact.problem is not None or file is None:
            return fact
        troubles = self._checker.check(file or source.name, fact.texts[file])
        return replace(fact, troubles=tuple(map(str, troubles)))

    def _world(self, command: Command, facts: Mapping[Source, Fact]) -> World:
        endpoint = command.endpoint if isinstance(command, EndpointCommand) else ""
        return World(
            endpoints=self._tables.endpoints,
            assets=self._tables.assets,
            catalog=self._catalog,
            machine=self._machine,
            quotas=self._quotas,
            deleting=(endpoint,) if endpoint and self._remains(endpoint) else (),
            deleted=self._tables.deleted,
            facts=facts,
        )

    def _new_keys(self, command: Command) -> EndpointKeys | None:
        if not isinstance(command, CreateEndpoint | RegenerateKey):
            return None

        def new(key_type: str) -> EndpointKey:
            key = secrets.token_urlsafe(_KEY_BYTES)
            return EndpointKey(digest=digest_of(key), sealed=self._sealer.seal(key, f"{command.key()}/{key_type}"))

        return EndpointKeys(primary=new("primary"), secondary=new("secondary"))

    async def _answer(self, reply: Reply) -> None:
        await self._writer.publish(reply, id=f"{reply.command_id}/reply")

    def _tell(self, command: Command, outcome: Outcome) -> None:
        if isinstance(outcome.reply, CommandRejected):
            reasons = "; ".join(f"{problem.field}: {problem.message}" for problem in outcome.reply.problems)
            log.info("rejected %s of '%s': %s", type(command).__name__, outcome.reply.subject, reasons)
            COMMANDS.labels("rejected").inc()
        else:
            log.info("accepted %s of '%s'", type(command).__name__, outcome.reply.subject)
            COMMANDS.labels("accepted").inc()
