"""Makes the topics of contracts/topics.yaml. Idempotent: what exists is brought to the table's settings, and nothing is
ever deleted. Run: python -m endpunkt_infra.topics"""

import asyncio
import os
import sys
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import TopicAlreadyExistsError

from contracts.log import KafkaSettings, KafkaSettingsError
from contracts.topics import Topic, topics


async def make_topics(settings: KafkaSettings) -> list[str]:
    """Create what is missing, add partitions where the table has more, set every topic's settings.

    Returns the names of the topics that were created. Their replication factor is the cluster's default.
    Raises RuntimeError with each topic that the cluster refused.
    """
    admin = AIOKafkaAdminClient(**settings.client())
    await admin.start()
    try:
        existing = set(await admin.list_topics())
        missing = [topic for name, topic in topics().items() if name not in existing]
        present = [topic for name, topic in topics().items() if name in existing]
        refused = await _create(admin, missing) + await _add_partitions(admin, present)
        if refused:
            raise RuntimeError("the cluster refused: " + "; ".join(refused))
        if present:
            await admin.alter_configs(
                [ConfigResource(ConfigResourceType.TOPIC, topic.name, configs=topic.config()) for topic in present]
            )
        return [topic.name for topic in missing]
    finally:
        await admin.close()


async def _create(admin: Any, missing: list[Topic]) -> list[str]:
    if not missing:
        return []
    # The cluster's default is a replication factor of -1, which aiokafka takes only beside an (empty) assignment.
    response = await admin.create_topics(
        [NewTopic(topic.name, topic.partitions, -1, {}, topic_configs=topic.config()) for topic in missing]
    )
    return [
        f"topic {name}: {message or f'error {code}'}"
        for name, code, message in response.topic_errors
        if code not in (0, TopicAlreadyExistsError.errno)  # somebody else makes the same topics at this moment
    ]


async def _add_partitions(admin: Any, present: list[Topic]) -> list[str]:
    refused = []
    grown = {}
    for described in await admin.describe_topics([topic.name for topic in present]) if present else []:
        wanted, has = topics()[described["topic"]].partitions, len(described["partitions"])
        if has < wanted:
            grown[described["topic"]] = NewPartitions(wanted)
        elif has > wanted:
            refused.append(f"topic {described['topic']} has {has} partitions, contracts/topics.yaml says {wanted}")
    if grown:
        await admin.create_partitions(grown)
    return refused


def main() -> int:
    """Make the topics of the cluster in KAFKA_BOOTSTRAP_SERVERS and tell what was made."""
    try:
        made = asyncio.run(make_topics(KafkaSettings.from_environment(os.environ)))
    except (KafkaSettingsError, RuntimeError) as error:
        sys.stderr.write(f"topics: {error}\n")
        return 1
    sys.stdout.write(f"{len(made)} topics made, {len(topics()) - len(made)} were there\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
