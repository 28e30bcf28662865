"""The committed contract: examples parse for ever, schemas and AsyncAPI are what the code says."""

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from contracts import schema
from contracts.envelope import Envelope, Record, Undecodable, decode, encode, text_headers
from contracts.messages import Message, UpdateEndpoint
from contracts.topics import dead_letter_topic, topics

CONTRACTS = Path(__file__).parents[2] / "contracts"
EXAMPLES = sorted((CONTRACTS / "examples").glob("*.json"))


def message_type(example: Path) -> type[Message]:
    return Message.registry[f"endpunkt.{example.name.split('.')[0]}.v1"]


def topic_of(message: type[Message]) -> str:
    return message.TOPIC.replace("*", "router")


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_parses_and_survives_the_bus_unchanged(example: Path) -> None:
    kind = message_type(example)
    message = kind.model_validate_json(example.read_bytes())
    key, value, headers = encode(message, Envelope(id="id-1", source="test"))
    record = Record(topic_of(kind), 0, 0, key.decode(), value, text_headers(headers))
    assert decode(record, strict=True) == message
    assert within(json.loads(example.read_bytes()), json.loads(value)) == []


def within(example: object, told: object, path: str = "") -> list[str]:
    """Where `told` lacks or changes something of `example`: a field that came later may be beside it."""
    if isinstance(example, dict) and isinstance(told, dict):
        return [at for name in example for at in within(example[name], told.get(name), f"{path}.{name}")]
    if isinstance(example, list) and isinstance(told, list) and len(example) == len(told):
        pairs = zip(example, told, strict=True)
        return [at for index, pair in enumerate(pairs) for at in within(*pair, f"{path}.{index}")]
    return [] if example == told else [path]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_fits_its_committed_json_schema(example: Path) -> None:
    committed = json.loads((CONTRACTS / "schemas" / f"{message_type(example).TYPE}.json").read_text())
    jsonschema.Draft202012Validator(committed).validate(json.loads(example.read_text()))


def test_every_message_has_an_example_and_a_topic_that_exists() -> None:
    assert {message_type(example).TYPE for example in EXAMPLES} == set(Message.registry)
    assert {topic_of(message) for message in Message.registry.values()} <= set(topics())


def test_regenerating_the_documents_changes_nothing() -> None:
    generated = schema.documents()
    committed = {
        str(path.relative_to(CONTRACTS)): path.read_text(encoding="utf-8")
        for path in [*CONTRACTS.glob("schemas/*.json"), CONTRACTS / "asyncapi.yaml"]
    }
    assert committed == generated, "run `make schemas` and commit what it changes"


def test_asyncapi_refers_only_to_what_exists() -> None:
    document = yaml.safe_load((CONTRACTS / "asyncapi.yaml").read_text())
    messages = document["components"]["messages"]
    for channel in document["channels"].values():
        assert channel["messages"], channel["address"]
        assert {reference["$ref"].rsplit("/", 1)[1] for reference in channel["messages"].values()} <= set(messages)
    for message in messages.values():
        assert (CONTRACTS / message["payload"]["$ref"]).exists()


def test_a_reader_ignores_a_new_field_at_any_depth_and_a_strict_one_names_each() -> None:
    value = b'{"endpoint": "diabetes", "traffik": 1, "defaults": {"deployment_name": "blue", "since": 2}}'
    record = Record("endpoints.commands", 0, 7, "diabetes", value, {"ce_type": UpdateEndpoint.TYPE, "ce_id": "mine"})
    decoded = decode(record)
    assert isinstance(decoded, UpdateEndpoint)
    assert decoded.defaults is not None
    assert decoded.defaults.deployment_name == "blue"
    with pytest.raises(Undecodable) as caught:
        decode(record, strict=True)
    assert {problem.field for problem in caught.value.problems} == {"traffik", "defaults.since"}
    assert caught.value.id == "mine"


@pytest.mark.parametrize(
    ("headers", "value", "field", "says"),
    [
        ({}, b"{}", "ce_type", "is missing"),
        ({"ce_type": "endpunkt.Nonsense.v1"}, b"{}", "ce_type", "is not a message of endpoints.commands"),
        ({"ce_type": "endpunkt.UsageRecorded.v1"}, b"{}", "ce_type", "endpunkt.UpdateEndpoint.v1"),
        ({"ce_type": "endpunkt.UpdateEndpoint.v1"}, b"{not json", "value", "Invalid JSON"),
        ({"ce_type": "endpunkt.UpdateEndpoint.v1"}, b'"text"', "value", "object"),
        ({"ce_type": "endpunkt.UpdateEndpoint.v1"}, None, "value", "is empty"),
        ({"ce_type": "endpunkt.UpdateEndpoint.v1"}, b'{"endpoint": "1x"}', "endpoint", "at least 3"),
        (
            {"ce_type": "endpunkt.UpdateEndpoint.v1"},
            b'{"endpoint": "1xyz"}',
            "endpoint",
            "3 to 32 letters, digits and hyphens",
        ),
    ],
)
def test_what_is_no_message_is_refused_with_the_field_and_the_reason(
    headers: dict[str, str], value: bytes | None, field: str, says: str
) -> None:
    with pytest.raises(Undecodable, match=says) as caught:
        decode(Record("endpoints.commands", 2, 5, None, value, headers))
    assert [problem.field for problem in caught.value.problems] == [field]
    assert caught.value.id == "endpoints.commands-2-5"


@pytest.mark.parametrize(("service"), ["provisioner", "router", "autoscaler", "batch-runner", "metering", "studio"])
def test_each_service_has_its_dead_letter_topic(service: str) -> None:
    assert topics()[dead_letter_topic(service)].writer == service


def test_readme_tells_the_table_of_topics_as_it_is() -> None:
    readme = (CONTRACTS.parent / "README.md").read_text(encoding="utf-8")
    rows = {}
    for line in readme.splitlines():
        if line.startswith("| `") and line.count("|") == 6:
            rows[line.split("`")[1]] = [cell.strip() for cell in line.split("|")[2:-1]]
    told = {name: row for name, row in rows.items() if "." in name}
    wanted = {
        topic.name: [f"{topic.kind}, {topic.key}", topic.cleanup, topic.writer, ", ".join(topic.readers)]
        for topic in topics().values()
        if not topic.name.startswith("deadletter.")
    }
    letters = topics()["deadletter.router"]
    wanted["deadletter.<service>"] = ["Event, origin", letters.cleanup, "that service", ", ".join(letters.readers)]
    assert told == wanted
