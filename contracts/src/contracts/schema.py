"""The contract as documents: a JSON Schema for each message and one AsyncAPI 3.0 description of the bus.

`main` writes them, the rest only makes them: python -m contracts.schema [FOLDER] (`make schemas`). A test checks that
what is committed is what this makes.
"""

import json
import sys
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml

from contracts.messages import Message
from contracts.topics import Topic, topics


def json_schemas() -> dict[str, dict[str, Any]]:
    """The JSON Schema (2020-12) of each message's value as it is written, by CloudEvents type."""
    return {
        type_name: {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            **message.model_json_schema(by_alias=False),
        }
        for type_name, message in sorted(Message.registry.items())
    }


def asyncapi() -> dict[str, Any]:
    """The bus: a channel for each topic with the messages it carries, and who sends and receives."""
    channels = {topic.name: _channel(topic) for topic in topics().values()}
    operations = {}
    for topic in topics().values():
        for action, services in (("send", [topic.writer]), ("receive", list(topic.readers))):
            operations[f"{action}-{topic.name}"] = {
                "action": action,
                "channel": {"$ref": _pointer("channels", topic.name)},
                "summary": f"{', '.join(services)} {'writes' if action == 'send' else 'reads'}",
            }
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Endpunkt",
            "version": "1.0.0",
            "description": "CloudEvents 1.0 in Kafka's binary mode: attributes in ce_* headers, data as the value.",
        },
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
        "components": {
            "messages": {name: _message(name, message) for name, message in sorted(Message.registry.items())}
        },
    }


def _channel(topic: Topic) -> dict[str, Any]:
    carried = sorted(name for name, message in Message.registry.items() if fnmatchcase(topic.name, message.TOPIC))
    return {
        "address": topic.name,
        "description": f"{topic.kind}, keyed by {topic.key}",
        "messages": {name: {"$ref": _pointer("components", "messages", name)} for name in carried},
        "bindings": {"kafka": {"partitions": topic.partitions, "topicConfiguration": _configuration(topic)}},
    }


def _configuration(topic: Topic) -> dict[str, Any]:
    return {"cleanup.policy": topic.cleanup.split(","), "retention.ms": topic.retention or -1}


def _message(name: str, message: type[Message]) -> dict[str, Any]:
    return {
        "name": name,
        "summary": (message.__doc__ or "").strip().splitlines()[0],
        "headers": {
            "type": "object",
            "required": ["ce_type"],
            "properties": {
                "ce_type": {"const": name},
                "ce_id": {"type": "string"},
                "ce_source": {"type": "string"},
                "ce_specversion": {"const": "1.0"},
                "ce_time": {"type": "string", "format": "date-time"},
                "traceparent": {"type": "string"},
            },
        },
        "payload": {"$ref": f"./schemas/{name}.json"},
    }


def _pointer(*parts: str) -> str:
    return "#/" + "/".join(part.replace("~", "~0").replace("/", "~1") for part in parts)


def documents() -> dict[str, str]:
    """Every generated file's text, by its path below the contracts folder."""
    files = {
        f"schemas/{name}.json": json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
        for name, schema in json_schemas().items()
    }
    files["asyncapi.yaml"] = yaml.safe_dump(asyncapi(), sort_keys=False, allow_unicode=True, width=120)
    return files


def main(folder: Path) -> None:
    """Write every document and remove schemas of messages that are gone."""
    files = documents()
    for stale in set(folder.glob("schemas/*.json")) - {folder / name for name in files}:
        stale.unlink()
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[2])
