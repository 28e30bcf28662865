"""The topics of contracts/topics.yaml on a cluster: made once, brought back to the table, never made smaller."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from contracts.log import KafkaSettings
from contracts.topics import Topic, topics
from endpunkt_infra.kafka.broker import Broker
from endpunkt_infra.topics import make_topics

PATIENCE = 30


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaSettings]:
    """A broker without a topic."""
    broker = Broker(tmp_path_factory.mktemp("kafka"))
    try:
        yield KafkaSettings(broker.start())
    finally:
        broker.stop()


@asynccontextmanager
async def administering(kafka: KafkaSettings) -> AsyncIterator[Any]:
    admin = AIOKafkaAdminClient(**kafka.client())
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()


@pytest.fixture
async def admin(cluster: KafkaSettings) -> AsyncIterator[Any]:
    """An administrator of a cluster that has no topic of ours, whatever ran before."""
    async with administering(cluster) as admin:
        await delete(admin, *topics().keys() & set(await admin.list_topics()))
        yield admin


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """The controller answers before the broker tells of a change."""
    async with asyncio.timeout(PATIENCE):
        while not await condition():  # noqa: ASYNC110 - what the broker does sets no event here
            await asyncio.sleep(0.01)


async def until_listed(admin: Any, holds: Callable[[set[str]], bool]) -> None:
    async def listed() -> bool:
        return holds(set(await admin.list_topics()))

    await until(listed)


async def delete(admin: Any, *names: str) -> None:
    if names:
        await admin.delete_topics(list(names))
    await until_listed(admin, lambda listed: listed.isdisjoint(names))


async def create(admin: Any, *wanted: NewTopic) -> None:
    await admin.create_topics(list(wanted))
    await until_listed(admin, lambda listed: listed >= {topic.name for topic in wanted})


async def make_and_see(cluster: KafkaSettings, admin: Any) -> list[str]:
    made = await make_topics(cluster)
    await until_listed(admin, lambda listed: listed >= topics().keys())
    return made


async def partitions(admin: Any) -> dict[str, int]:
    """How many each topic has."""
    return {one["topic"]: len(one["partitions"]) for one in await admin.describe_topics(list(topics()))}


async def configs(admin: Any) -> dict[str, dict[str, str]]:
    """The settings that the table speaks of, as each topic has them."""
    asked = [ConfigResource(ConfigResourceType.TOPIC, name) for name in topics()]
    answers = await admin.describe_configs(asked)
    found = {}
    for answer in answers:
        for code, message, _, name, entries in answer.resources:
            assert code == 0, message
            found[name] = {entry[0]: entry[1] for entry in entries if entry[0] in topics()[name].config()}
    return found


def as_in_the_table() -> dict[str, dict[str, str]]:
    return {name: topic.config() for name, topic in topics().items()}


def new_topic(topic: Topic, partitions: int) -> NewTopic:
    return NewTopic(topic.name, partitions, 1, topic_configs=topic.config())


async def test_all_are_made_in_the_tables_order_and_the_second_call_makes_none(
    cluster: KafkaSettings, admin: Any
) -> None:
    assert await make_and_see(cluster, admin) == list(topics())
    made = await partitions(admin), await configs(admin)
    assert made == ({name: topic.partitions for name, topic in topics().items()}, as_in_the_table())
    assert await make_and_see(cluster, admin) == []
    assert (await partitions(admin), await configs(admin)) == made


async def test_one_that_is_missing_is_made_and_the_others_stay(cluster: KafkaSettings, admin: Any) -> None:
    await make_and_see(cluster, admin)
    await delete(admin, "batch.progress")
    assert await make_and_see(cluster, admin) == ["batch.progress"]


async def test_settings_that_somebody_changed_are_the_tables_again(cluster: KafkaSettings, admin: Any) -> None:
    await make_and_see(cluster, admin)
    slips = {
        "endpoints.desired": {"cleanup.policy": "delete", "retention.ms": "1000"},
        "usage.rollups": {"min.cleanable.dirty.ratio": "0.9", "delete.retention.ms": "1"},
    }
    await admin.alter_configs(
        [ConfigResource(ConfigResourceType.TOPIC, name, configs=slip) for name, slip in slips.items()]
    )

    async def slipped() -> bool:
        told = await configs(admin)
        return all(told[name].items() >= slip.items() for name, slip in slips.items())

    await until(slipped)
    assert await make_and_see(cluster, admin) == []

    async def repaired() -> bool:
        return await configs(admin) == as_in_the_table()

    await until(repaired)


async def test_a_topic_with_fewer_partitions_than_the_table_grows(cluster: KafkaSettings, admin: Any) -> None:
    grown = topics()["scaling.signals"]
    await create(admin, new_topic(grown, 1))
    made = await make_and_see(cluster, admin)
    assert made == [name for name in topics() if name != grown.name]
    assert grown.partitions > 1

    async def grew() -> bool:
        return await partitions(admin) == {name: topic.partitions for name, topic in topics().items()}

    await until(grew)


async def test_topics_with_more_partitions_than_the_table_are_all_told_and_stay(
    cluster: KafkaSettings, admin: Any
) -> None:
    larger = [topics()["usage.events"], topics()["deadletter.studio"]]
    await create(admin, *(new_topic(topic, topic.partitions + 3) for topic in larger))
    with pytest.raises(RuntimeError, match="the cluster refused: ") as refused:
        await make_topics(cluster)
    for name, has, wanted in (("usage.events", 7, 4), ("deadletter.studio", 4, 1)):
        assert f"topic {name} has {has} partitions, contracts/topics.yaml says {wanted}" in str(refused.value)
    assert {topic.name: (await partitions(admin))[topic.name] for topic in larger} == {
        topic.name: topic.partitions + 3 for topic in larger
    }


async def test_what_is_no_topic_of_ours_is_left_alone(cluster: KafkaSettings, admin: Any) -> None:
    if "somebody.elses" not in await admin.list_topics():
        await create(admin, NewTopic("somebody.elses", 2, 1, topic_configs={"retention.ms": "1234"}))
    await make_and_see(cluster, admin)
    [described] = await admin.describe_topics(["somebody.elses"])
    assert len(described["partitions"]) == 2
    [answer] = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, "somebody.elses")])
    assert {entry[0]: entry[1] for entry in answer.resources[0][4]}["retention.ms"] == "1234"


async def test_the_command_tells_how_many_it_made_and_what_was_refused(cluster: KafkaSettings, admin: Any) -> None:
    def run() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "endpunkt_infra.topics"]
        environment = {**os.environ, "KAFKA_BOOTSTRAP_SERVERS": cluster.bootstrap_servers}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    [first, *others] = topics().values()
    await create(admin, new_topic(first, first.partitions))
    assert (run().stdout, run().stdout) == (
        f"{len(others)} topics made, 1 were there\n",
        f"0 topics made, {len(topics())} were there\n",
    )
    await delete(admin, first.name)
    await create(admin, new_topic(first, first.partitions + 1))
    refused = run()
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith(f"topics: the cluster refused: topic {first.name} has {first.partitions + 1} ")


async def test_two_who_make_them_at_once_do_not_disturb_each_other(cluster: KafkaSettings, admin: Any) -> None:
    await until_listed(admin, lambda listed: not topics().keys() & listed)
    made = await asyncio.gather(make_topics(cluster), make_topics(cluster))
    assert set(made[0]) | set(made[1]) == topics().keys()
    await until_listed(admin, lambda listed: topics().keys() <= listed)
