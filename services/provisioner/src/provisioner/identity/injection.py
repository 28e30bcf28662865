"""Secrets put where references to them stand, at the start of an instance and nowhere else."""

import json
from collections.abc import Mapping

from contracts.connections import Connection
from contracts.messages import DeploymentError
from contracts.shell.connections import BadConnection, Connections
from provisioner.identity.references import BadReference, Reference, parse

_CREATE = "endpunkt connection create -f connection.yml"


class SecretsInjectionError(Exception):
    """References that cannot be followed, all of them: their variables, connections and keys; never a value."""

    def __init__(self, problems: list[str]):
        super().__init__("; ".join(problems))

    @property
    def error(self) -> DeploymentError:
        """As the deployment's error."""
        return DeploymentError(code="SecretsInjectionError", message=str(self))


def resolve(variables: Mapping[str, str], connections: Connections) -> dict[str, str]:
    """`variables` with what their references stand for. Raises SecretsInjectionError."""
    resolved: dict[str, str] = {}
    problems: list[str] = []
    for name, value in variables.items():
        try:
            reference = parse(value)
            resolved[name] = value if reference is None else _followed(reference, connections)
        except (BadReference, BadConnection, LookupError) as error:
            problems.append(f"environment variable {name}: {error.args[0]}")
    if problems:
        raise SecretsInjectionError(problems)
    return resolved


def _followed(reference: Reference, connections: Connections) -> str:
    connection = connections.get(reference.connection)
    if connection is None:
        raise LookupError(f"there is no connection '{reference.connection}': create it ({_CREATE})")
    spec = connection.spec
    if reference.part == "connection":
        return json.dumps(_listed(connection))
    if reference.part == "target":
        if spec.target is None:
            raise LookupError(f"connection '{connection.name}' has no target: create it again with one ({_CREATE})")
        return spec.target
    values = spec.credentials if reference.part == "credentials" else spec.metadata
    if reference.key not in values:
        has = ", ".join(sorted(values)) or "none"
        raise LookupError(
            f"connection '{connection.name}' has no '{reference.key}' in its {reference.part}, which are: {has}. "
            f"Name one of them, or create the connection again with it ({_CREATE})"
        )
    return values[reference.key]


def _listed(connection: Connection) -> dict[str, object]:
    """The answer of Azure's ListSecrets (2023-08-01-preview), which SDKs parse."""
    spec = connection.spec
    is_key = set(spec.credentials) == {"key"}
    return {
        "name": connection.name,
        "type": "Microsoft.MachineLearningServices/workspaces/connections",
        "tags": spec.tags,
        "properties": {
            "authType": "ApiKey" if is_key else "CustomKeys",
            "category": _category(spec.type),
            "target": spec.target,
            "credentials": spec.credentials if is_key else {"keys": spec.credentials},
            "metadata": spec.metadata,
        },
    }


def _category(type: str) -> str:
    """Azure's name of a connection's type in its REST API."""
    known = {
        "custom": "CustomKeys",
        "api_key": "ApiKey",
        "azure_open_ai": "AzureOpenAI",
        "open_ai": "OpenAI",
        "azure_ai_services": "AIServices",
        "azure_ai_search": "CognitiveSearch",
    }
    return known.get(type) or "".join(part.capitalize() for part in type.split("_"))
