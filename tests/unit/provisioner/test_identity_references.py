"""Secrets by reference: what is one, what is none, and what stands in its place at an instance's start."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from contracts.connections import Connection, ConnectionSpec
from contracts.shell.connections import Connections
from provisioner.identity.injection import SecretsInjectionError, resolve
from provisioner.identity.references import BadReference, Reference, parse, problems

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "means"),
    [
        ("${{azureml://connections/aoai/credentials/key}}", Reference("aoai", "credentials", "key")),
        ("${{azureml://connections/a_b-c/credentials/OPENAI.KEY}}", Reference("a_b-c", "credentials", "OPENAI.KEY")),
        ("${{azureml://connections/aoai/metadata/ApiVersion}}", Reference("aoai", "metadata", "ApiVersion")),
        ("${{azureml://connections/aoai/target}}", Reference("aoai", "target")),
        ("${{azureml://connections/aoai}}", Reference("aoai", "connection")),
        ("  ${{ azureml://connections/aoai/target }}\n", Reference("aoai", "target")),
        ("", None),
        ("plain", None),
        ("azureml://connections/aoai/target", None),
        ("${{ a template of somebody's own }}", None),
        ("${HOME}", None),
    ],
)
def test_references(value: str, means: Reference | None) -> None:
    assert parse(value) == means


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("Bearer ${{azureml://connections/aoai/credentials/key}}", "the whole value"),
        ("${{azureml://connections/aoai/credentials/key}}${{azureml://connections/aoai/target}}", "the whole value"),
        ("${{azureml://connections/aoai/credentials}}", "credentials/KEY"),
        ("${{azureml://connections/aoai/secrets/key}}", "credentials/KEY"),
        ("${{azureml://connections/aoai/target/more}}", "the whole value"),
        ("${{azureml://connections/../../etc/passwd}}", "the whole value"),
        ("${{azureml://datastores/mine}}", "the whole value"),
        ("${{azureml:aoai}}", "the whole value"),
        ("${{azureml://connections/aoai", "the whole value"),
        ("${{keyvault:https://v.vault.azure.net/secrets/s/1}}", "no key vaults here"),
        ("${{ KeyVault:https://v.vault.azure.net/secrets/s/1 }}", "no key vaults here"),
    ],
)
def test_what_looks_like_one_and_is_none_is_refused(value: str, says: str) -> None:
    with pytest.raises(BadReference, match=says):
        parse(value)


def test_every_problem_is_told_at_its_variable() -> None:
    variables = {
        "OK": "${{azureml://connections/aoai/target}}",
        "BAD": "x${{azureml://connections/aoai}}",
        "VAULT": "${{keyvault:https://v/secrets/s/1}}",
    }
    found = list(problems("spec.environment_variables", variables))
    assert [problem.field for problem in found] == [
        "spec.environment_variables.BAD",
        "spec.environment_variables.VAULT",
    ]
    batch = list(problems("spec.settings.environment_variables", variables, online=False))
    assert [problem.field.rpartition(".")[2] for problem in batch] == ["OK", "BAD", "VAULT"]


@pytest.fixture
def connections(tmp_path: Path) -> Connections:
    kept = Connections(tmp_path)
    kept.put(
        connection(
            "aoai",
            type="azure_open_ai",
            target="https://a.openai.azure.com",
            credentials={"key": "s3cret"},
            metadata={"ApiVersion": "2024-02-01"},
        )
    )
    kept.put(connection("several", credentials={"USER": "me", "PASSWORD": "hunter2"}))
    return kept


def connection(name: str, type: str = "custom", **fields: object) -> Connection:
    spec = ConnectionSpec.model_validate({"type": type, **fields})
    return Connection(name=name, created_at=NOON, updated_at=NOON, spec=spec)


def test_what_stands_in_its_place(connections: Connections) -> None:
    resolved = resolve(
        {
            "PLAIN": "as it is",
            "KEY": "${{azureml://connections/aoai/credentials/key}}",
            "BASE": "${{azureml://connections/aoai/target}}",
            "VERSION": "${{azureml://connections/aoai/metadata/ApiVersion}}",
            "PASSWORD": "${{azureml://connections/several/credentials/PASSWORD}}",
            "WHOLE": "${{azureml://connections/aoai}}",
            "KEYS": "${{azureml://connections/several}}",
        },
        connections,
    )
    whole, keys = json.loads(resolved.pop("WHOLE")), json.loads(resolved.pop("KEYS"))
    assert resolved == {
        "PLAIN": "as it is",
        "KEY": "s3cret",
        "BASE": "https://a.openai.azure.com",
        "VERSION": "2024-02-01",
        "PASSWORD": "hunter2",
    }
    assert whole["properties"] == {
        "authType": "ApiKey",
        "category": "AzureOpenAI",
        "target": "https://a.openai.azure.com",
        "credentials": {"key": "s3cret"},
        "metadata": {"ApiVersion": "2024-02-01"},
    }
    assert keys["properties"]["authType"] == "CustomKeys"
    assert keys["properties"]["credentials"] == {"keys": {"USER": "me", "PASSWORD": "hunter2"}}


def test_what_cannot_be_followed_is_told_whole_and_without_values(connections: Connections) -> None:
    with pytest.raises(SecretsInjectionError) as caught:
        resolve(
            {
                "FINE": "${{azureml://connections/aoai/credentials/key}}",
                "GONE": "${{azureml://connections/gone/credentials/key}}",
                "TYPO": "${{azureml://connections/several/credentials/PASWORD}}",
                "NOWHERE": "${{azureml://connections/several/target}}",
                "META": "${{azureml://connections/several/metadata/x}}",
            },
            connections,
        )
    error = caught.value.error
    assert error.code == "SecretsInjectionError"
    assert "GONE: there is no connection 'gone'" in error.message
    assert "TYPO: connection 'several' has no 'PASWORD' in its credentials, which are: PASSWORD, USER" in error.message
    assert "NOWHERE: connection 'several' has no target" in error.message
    assert "META: connection 'several' has no 'x' in its metadata, which are: none" in error.message
    assert "FINE" not in error.message
    assert not any(secret in error.message for secret in ("s3cret", "hunter2"))


def test_a_new_value_is_read_at_the_next_start(connections: Connections) -> None:
    variables = {"KEY": "${{azureml://connections/aoai/credentials/key}}"}
    connections.put(connection("aoai", credentials={"key": "newer"}))
    assert resolve(variables, connections) == {"KEY": "newer"}
    connections.delete("aoai")
    with pytest.raises(SecretsInjectionError):
        resolve(variables, connections)
