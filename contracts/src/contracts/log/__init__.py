"""Reading and writing the bus: the one home of raw Kafka clients."""

from typing import TYPE_CHECKING, Any

from contracts.log.deadletter import DeadLetters, ParkingLimit, TooManyDeadLetters
from contracts.log.ledger import Ledger
from contracts.log.processor import NotHeldError, Processor
from contracts.log.publisher import Publisher
from contracts.log.records import Offset
from contracts.log.settings import KafkaSettings, KafkaSettingsError
from contracts.log.table import Reader, Table, Tail

if TYPE_CHECKING:
    from contracts.log.handlers import command_broker, handle_commands

__all__ = [
    "DeadLetters",
    "KafkaSettings",
    "KafkaSettingsError",
    "Ledger",
    "NotHeldError",
    "Offset",
    "ParkingLimit",
    "Processor",
    "Publisher",
    "Reader",
    "Table",
    "Tail",
    "TooManyDeadLetters",
    "command_broker",
    "handle_commands",
]


def __getattr__(name: str) -> Any:
    """Handlers are imported by whoever handles commands: FastStream costs a process 7 MiB."""
    if name in ("command_broker", "handle_commands"):
        from contracts.log import handlers

        return getattr(handlers, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
