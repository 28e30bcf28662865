"""Publishing a command and waiting until its effect can be read here."""

import asyncio
import logging
from collections.abc import Callable
from typing import TypeVar

from contracts.log import Publisher
from contracts.messages import CommandAccepted, CommandRejected, LogsRead, Message, Reply
from studio.replies import Refused, rejection
from studio.tables import Tables

log = logging.getLogger(__name__)

R = TypeVar("R", bound=Reply)


class Commands:
    """Sends commands to the services that decide."""

    def __init__(self, publisher: Publisher, tables: Tables, patience: float):
        self._publisher = publisher
        self._tables = tables
        self._patience = patience

    async def apply(self, command: Message, command_id: str, visible: Callable[[CommandAccepted], bool]) -> None:
        """Publish for the provisioner; return when it accepted and the tables show it (`visible`).

        Raises Refused with the provisioner's problems, or with 504 when there is no answer in time: then the command
        may still be applied, and sending it again under the same id is safe.
        """
        accepted = None
        try:
            async with asyncio.timeout(self._patience):
                accepted = answer = await self._answer(command, command_id, CommandAccepted)
                log.info("%s %s is generation %d (id %s)", command.TYPE, command.key(), answer.generation, command_id)
                await self._tables.until(lambda: visible(answer))
        except TimeoutError:
            raise _late(command, command_id, accepted, self._patience) from None

    async def ask(self, command: Message, command_id: str) -> LogsRead:
        """Publish a question for the provisioner. Raises Refused with its problems, or with 504."""
        try:
            async with asyncio.timeout(self._patience):
                return await self._answer(command, command_id, LogsRead)
        except TimeoutError:
            raise _late(command, command_id, None, self._patience) from None

    async def _answer(self, command: Message, command_id: str, kind: type[R]) -> R:
        """The provisioner's reply of this kind. Raises Refused with its problems."""
        with self._tables.expecting(command_id) as expected:
            await self._publisher.publish(command, id=command_id)
            reply = await expected
        if isinstance(reply, CommandRejected):
            log.info("%s %s rejected (id %s)", command.TYPE, command.key(), command_id)
            raise rejection(reply.problems)
        if not isinstance(reply, kind):
            message = f"{command_id} is the id of another command: choose another x-ms-client-request-id"
            raise Refused(409, "BadArgument", message)
        return reply

    async def start(self, command: Message, command_id: str, visible: Callable[[], bool]) -> None:
        """Publish for a service that answers with state alone, and wait for that. Raises Refused with 504."""
        try:
            async with asyncio.timeout(self._patience):
                await self._publisher.publish(command, id=command_id)
                log.info("%s %s published (id %s)", command.TYPE, command.key(), command_id)
                await self._tables.until(visible)
        except TimeoutError:
            raise _late(command, command_id, None, self._patience) from None

    async def settled(self, condition: Callable[[], bool]) -> bool:
        """Whether the tables say so within the same patience."""
        try:
            async with asyncio.timeout(self._patience):
                await self._tables.until(condition)
        except TimeoutError:
            return False
        return True


def _late(command: Message, command_id: str, accepted: CommandAccepted | None, patience: float) -> Refused:
    if accepted is not None:
        message = (
            f"command {command_id} was accepted as generation {accepted.generation} of {accepted.subject}, "
            f"but did not show up within {patience:g} s: read it again in a moment"
        )
    else:
        message = (
            f"no answer to command {command_id} within {patience:g} s; it may still be applied. See whether the "
            f"service that reads {command.TOPIC} runs and whether it parked the record (GET /v1/deadletters). "
            f"Sending it again with x-ms-client-request-id: {command_id} is safe."
        )
    return Refused(504, "GatewayTimeout", message)
