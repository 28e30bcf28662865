"""The pure rules of contracts.log: the parking limit and Kafka's settings."""

import pytest

from contracts.log import KafkaSettings, KafkaSettingsError, ParkingLimit
from contracts.topics import topics


def test_mistakes_now_and_then_never_reach_the_limit() -> None:
    limit = ParkingLimit(least=3, share=0.5, window=60)
    for second in range(1000):
        assert limit.count(float(second), parked=second % 3 == 0)


def test_a_reader_that_can_read_nothing_reaches_it() -> None:
    limit = ParkingLimit(least=3, share=0.5, window=60)
    assert limit.count(0, parked=True)
    assert limit.count(1, parked=True)
    assert not limit.count(2, parked=True)


def test_what_was_parked_long_ago_does_not_count() -> None:
    limit = ParkingLimit(least=3, share=0.5, window=60)
    assert limit.count(0, parked=True)
    assert limit.count(1, parked=True)
    assert limit.count(61, parked=True)


def test_kafka_settings_from_the_environment() -> None:
    settings = KafkaSettings.from_environment(
        {
            "KAFKA_BOOTSTRAP_SERVERS": "a:9093,b:9093",
            "KAFKA_SECURITY_PROTOCOL": "sasl_ssl",
            "KAFKA_SASL_MECHANISM": "scram-sha-512",
            "KAFKA_SASL_USERNAME": "ana",
            "KAFKA_SASL_PASSWORD": "pa$$",
        }
    )
    client = settings.client()
    assert client["bootstrap_servers"] == "a:9093,b:9093"
    assert client["security_protocol"] == "SASL_SSL"
    assert client["sasl_mechanism"] == "SCRAM-SHA-512"
    assert client["sasl_plain_password"] == "pa$$"
    assert client["ssl_context"].check_hostname
    assert "pa$$" not in repr(settings)


def test_kafka_settings_tell_every_problem_at_once() -> None:
    with pytest.raises(KafkaSettingsError) as caught:
        KafkaSettings.from_environment({"KAFKA_SECURITY_PROTOCOL": "SASL_TLS", "KAFKA_SASL_MECHANISM": "MAGIC"})
    for name in ("BOOTSTRAP_SERVERS", "SECURITY_PROTOCOL", "SASL_MECHANISM", "SASL_USERNAME", "SASL_PASSWORD"):
        assert f"KAFKA_{name}" in str(caught.value)


def test_accumulating_state_lies_on_as_many_partitions_as_its_input() -> None:
    assert topics()["usage.rollups"].partitions == topics()["usage.events"].partitions
    assert topics()["batch.jobs"].partitions == topics()["batch.commands"].partitions


def test_a_compacted_topic_is_never_deleted_by_age_unless_it_says_so() -> None:
    assert topics()["endpoints.desired"].config()["retention.ms"] == "-1"
    assert topics()["usage.rollups"].config()["cleanup.policy"] == "compact,delete"
    assert topics()["scaling.signals"].config()["retention.ms"] == str(24 * 3_600_000)
