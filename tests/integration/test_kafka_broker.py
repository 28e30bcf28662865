"""The embedded Kafka, for real: a JVM, its data directory, and the command that yields a bootstrap address."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from endpunkt_infra.kafka import KafkaUnavailableError, jars, jvm, ports, probe
from endpunkt_infra.kafka.broker import Broker, Running

TOPIC = TopicPartition("letters", 0)
LETTERS = [b"alpha", b"beta", b"gamma"]


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    broker = Broker(tmp_path / "kafka")
    yield broker
    broker.stop()


def kafka(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run the command line, without the KAFKA_BOOTSTRAP_SERVERS of whoever runs the tests."""
    inherited = {key: value for key, value in os.environ.items() if key != "KAFKA_BOOTSTRAP_SERVERS"}
    command = [sys.executable, "-m", "endpunkt_infra.kafka", *arguments]
    return subprocess.run(command, env=inherited | environ, capture_output=True, text=True)


def kill(running: Running) -> None:
    """SIGKILL our child, and return when it is dead."""
    os.kill(running.process.pid, signal.SIGKILL)
    os.waitid(os.P_PID, running.process.pid, os.WEXITED | os.WNOWAIT)


async def write(address: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=address)
    await admin.start()
    await admin.create_topics([NewTopic(TOPIC.topic, num_partitions=1, replication_factor=1)])
    await admin.close()
    producer = AIOKafkaProducer(bootstrap_servers=address, transactional_id="letters")
    async with producer, producer.transaction():
        for letter in LETTERS:
            await producer.send_and_wait(TOPIC.topic, letter)


async def read(address: str) -> list[bytes]:
    async with AIOKafkaConsumer(bootstrap_servers=address, isolation_level="read_committed") as consumer:
        consumer.assign([TOPIC])
        await consumer.seek_to_beginning(TOPIC)
        end = (await consumer.end_offsets([TOPIC]))[TOPIC]
        letters: list[bytes] = []
        while await consumer.position(TOPIC) < end:
            records = await consumer.getmany(timeout_ms=1000)
            letters += [record.value for record in records.get(TOPIC, [])]
        return letters


async def test_records_survive_a_sigkill_and_are_found_at_the_same_address(broker: Broker) -> None:
    address = broker.start()
    await write(address)
    assert await read(address) == LETTERS

    killed = broker.running
    assert killed
    kill(killed)
    assert not broker.is_running

    assert broker.start() == address
    assert broker.running != killed
    assert await read(address) == LETTERS

    assert broker.stop()
    assert not broker.is_running
    assert not broker.stop()
    assert ports.is_free(killed.port)
    # A stop in good order leaves the cache for the next start.
    assert jvm.start_up_cache(jars.install()).exists()


def test_it_listens_on_this_machine_only_and_writes_a_readable_log(broker: Broker) -> None:
    address = broker.start()
    assert address.startswith("127.0.0.1:")
    assert broker.running
    # 127.0.0.2 is this machine, too, but no address of the broker.
    assert probe.ask("127.0.0.1", broker.running.port)
    assert probe.ask("127.0.0.2", broker.running.port) is None
    assert "Kafka Server started" in (broker.data_dir / "kafka.log").read_text()


def test_the_command_prints_the_address_alone_and_is_idempotent(broker: Broker) -> None:
    data_dir = str(broker.data_dir)
    assert kafka("status", "--data-dir", data_dir).returncode == 3

    first = kafka("start", "--data-dir", data_dir)
    assert first.returncode == 0, first.stderr
    running = broker.running
    assert running
    assert first.stdout == f"127.0.0.1:{running.port}\n"

    second = kafka("start", "--data-dir", data_dir)
    assert (second.returncode, second.stdout) == (0, first.stdout)
    assert broker.running == running
    assert broker.start() == first.stdout.strip()

    status = kafka("status", "--data-dir", data_dir)
    assert (status.returncode, status.stdout) == (0, f"127.0.0.1:{running.port} (pid {running.process.pid})\n")

    assert kafka("stop", "--data-dir", data_dir).returncode == 0
    assert not running.process.alive


def test_a_port_that_is_taken_is_told_before_anything_starts(tmp_path: Path) -> None:
    with socket.create_server((ports.HOST, 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(KafkaUnavailableError, match=f"127.0.0.1:{port} is taken"):
            Broker(tmp_path, port).start()
    assert not (tmp_path / "topics").exists()


def test_a_broker_that_dies_at_its_start_says_why_and_leaves_nothing(broker: Broker) -> None:
    (broker.data_dir / "topics").mkdir(parents=True)
    (broker.data_dir / "topics" / "meta.properties").write_text("version=1\ncluster.id=made-up\n")
    with pytest.raises(KafkaUnavailableError) as error:
        broker.start()
    assert "meta.properties" in str(error.value)
    assert str(broker.data_dir) in str(error.value)
    assert not broker.is_running


def test_a_named_cluster_that_does_not_let_us_in_says_what_to_correct(broker: Broker, tmp_path: Path) -> None:
    address, unused = broker.start(), tmp_path / "unused"
    refused = kafka("start", "--data-dir", str(unused), KAFKA_BOOTSTRAP_SERVERS=address, KAFKA_SECURITY_PROTOCOL="SSL")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "KAFKA_SECURITY_PROTOCOL" in refused.stderr


def test_a_named_cluster_that_does_not_answer_fails_clearly(tmp_path: Path) -> None:
    port = ports.free_port()
    started = kafka("start", "--data-dir", str(tmp_path / "kafka"), KAFKA_BOOTSTRAP_SERVERS=f"127.0.0.1:{port}")
    assert started.returncode == 1
    assert started.stdout == ""
    assert f"127.0.0.1:{port} does not answer" in started.stderr
    assert "Traceback" not in started.stderr
    assert not (tmp_path / "kafka").exists()


def test_a_named_cluster_is_used_as_it_is(broker: Broker, tmp_path: Path) -> None:
    address = broker.start()
    started = kafka("start", "--data-dir", str(tmp_path / "other"), KAFKA_BOOTSTRAP_SERVERS=address)
    assert (started.returncode, started.stdout) == (0, address + "\n")
    assert not (tmp_path / "other").exists()
