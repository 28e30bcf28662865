"""Reading and writing the bus: the one home of raw Kafka clients."""

from contracts.log.deadletter import DeadLetters, ParkingLimit, TooManyDeadLetters
from contracts.log.handlers import command_broker, handle_commands
from contracts.log.ledger import Ledger
from contracts.log.processor import NotHeldError, Processor
from contracts.log.publisher import Publisher
from contracts.log.records import Offset
from contracts.log.settings import KafkaSettings, KafkaSettingsError
from contracts.log.table import Reader, Table, Tail

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
