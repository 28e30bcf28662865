"""Which Kafka the environment names, and what is said when it does not answer."""

import logging
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from endpunkt_infra.kafka import KafkaUnavailableError, address, ports, probe


@contextmanager
def server(talk: Callable[[socket.socket], None]) -> Iterator[int]:
    """A TCP server that serves one connection with `talk`; yields its port."""
    with socket.create_server((ports.HOST, 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                talk(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listening.getsockname()[1]
        thread.join()


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, None),
        ({"KAFKA_BOOTSTRAP_SERVERS": ""}, None),
        ({"KAFKA_BOOTSTRAP_SERVERS": " , "}, None),
        ({"KAFKA_BOOTSTRAP_SERVERS": "kafka:9092"}, "kafka:9092"),
        ({"KAFKA_BOOTSTRAP_SERVERS": " a:1, b:2 ,"}, "a:1,b:2"),
    ],
)
def test_the_environment_names_a_cluster_or_none(environ: dict[str, str], expected: str | None) -> None:
    assert address.named(environ) == expected


def test_an_address_is_a_list_of_hosts_and_ports() -> None:
    assert address.parse("kafka-1:9092,10.0.0.7:19092,[::1]:9093") == [
        ("kafka-1", 9092),
        ("10.0.0.7", 19092),
        ("::1", 9093),
    ]


def test_every_malformed_entry_is_told_at_once() -> None:
    with pytest.raises(
        KafkaUnavailableError, match=r"KAFKA_BOOTSTRAP_SERVERS: not host:port: kafka, :9092, a:b, c:70000$"
    ):
        address.parse("kafka,:9092,good:9092,a:b,c:70000")


def test_each_silent_host_is_named_with_its_cause() -> None:
    first = ports.free_port()
    second = ports.free_port(besides=first)
    with pytest.raises(KafkaUnavailableError) as error:
        address.check(f"{ports.HOST}:{first},{ports.HOST}:{second}")
    for part in (f"{ports.HOST}:{first} does not answer: ", f"{ports.HOST}:{second} does not answer: ", "unset it"):
        assert part in str(error.value)


def test_one_host_that_answers_is_enough(caplog: pytest.LogCaptureFixture) -> None:
    silent = ports.free_port()
    with server(lambda connection: None) as port, caplog.at_level(logging.WARNING):
        address.check(f"{ports.HOST}:{silent},{ports.HOST}:{port}")
    assert f"{ports.HOST}:{silent} does not answer" in caplog.text


def metadata_response(brokers: int, cluster_id: str | None) -> bytes:
    """A Metadata response of version 2, as the protocol guide lays it out."""

    def text(value: str | None) -> bytes:
        return struct.pack(">h", -1) if value is None else struct.pack(">h", len(value)) + value.encode()

    listed = [
        struct.pack(">i", 1 + n) + text("127.0.0.1") + struct.pack(">i", 9092) + text(None) for n in range(brokers)
    ]
    controller_and_topics = struct.pack(">ii", 1, 0)
    return struct.pack(">ii", 1, brokers) + b"".join(listed) + text(cluster_id) + controller_and_topics


@pytest.mark.parametrize(("brokers", "cluster_id"), [(0, None), (0, "c"), (1, "c"), (3, "DPuX2C0eRYaZ7GjWxZ8tsA")])
def test_a_broker_says_its_cluster_and_how_many_serve(brokers: int, cluster_id: str | None) -> None:
    body = metadata_response(brokers, cluster_id)
    assert probe.parse(body) == probe.Answer(cluster_id, brokers)

    def talk(connection: socket.socket) -> None:
        (size,) = struct.unpack(">i", connection.recv(4, socket.MSG_WAITALL))
        connection.recv(size, socket.MSG_WAITALL)
        connection.sendall(struct.pack(">i", len(body)) + body)

    with server(talk) as port:
        assert probe.ask(ports.HOST, port) == probe.Answer(cluster_id, brokers)


@pytest.mark.parametrize(
    "greeting", [b"", b"\x00", b"HTTP/1.1 400 Bad Request\r\n\r\n", struct.pack(">iii", 8, 1, 5), struct.pack(">i", -1)]
)
def test_what_does_not_speak_kafka_is_no_answer(greeting: bytes) -> None:
    with server(lambda connection: connection.sendall(greeting)) as port:
        assert probe.ask(ports.HOST, port) is None


def test_nobody_there_is_no_answer() -> None:
    assert probe.ask(ports.HOST, ports.free_port()) is None


def test_a_free_port_is_free_and_not_one_that_clients_are_given() -> None:
    port = ports.free_port()
    assert port in ports.PORTS
    with socket.create_server((ports.HOST, port)):
        assert not ports.is_free(port)
    assert ports.is_free(port)
