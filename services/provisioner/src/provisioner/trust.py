"""What an instance is trusted with at its start: the endpoint's identity, and the secrets that its variables name."""

from collections.abc import Mapping

from contracts.messages import EndpointDesired, OnlineDeploymentSpec
from contracts.shell.connections import Connections
from provisioner.identity.injection import resolve
from provisioner.identity.server import Identity


class InstanceTrust:
    """Joins identity and connections."""

    def __init__(self, identity: Identity, connections: Connections):
        self._identity = identity
        self._connections = connections

    def variables(
        self, endpoint: EndpointDesired, deployment: str, instance: str, spec: OnlineDeploymentSpec
    ) -> Mapping[str, str]:
        """The environment variables of a new instance. Raises SecretsInjectionError."""
        return {
            **resolve(spec.environment_variables, self._connections),
            **self._identity.variables(endpoint, deployment, instance),
        }

    def forget(self, instance: str) -> None:
        """The instance has ended: its header opens nothing any more."""
        self._identity.forget(instance)
