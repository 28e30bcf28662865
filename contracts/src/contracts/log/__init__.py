"""Reading and writing the bus: the one home of raw Kafka clients."""

from contracts.log.deadletter import DeadLetters, ParkingLimit, TooManyDeadLetters
from contracts.log.handlers import handle_commands
from contracts.log.processor import Ledger, Processor
from contracts.log.publisher import Publisher
from contracts.log.records import Offset
from contracts.log.settings import KafkaSettings, KafkaSettingsError
from contracts.log.table import Reader, Table, Tail

__all__ = [
    "DeadLetters",
    "KafkaSettings",
    "KafkaSettingsError",
    "Ledger",
    "Offset",
    "ParkingLimit",
    "Processor",
    "Publisher",
    "Reader",
    "Table",
    "Tail",
    "TooManyDeadLetters",
    "handle_commands",
]
