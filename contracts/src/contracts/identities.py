"""Who an endpoint's instances are: principals, whose ids follow from what they belong to.

PURE: the tenant and the endpoint in, ids out; no clock, no randomness, no I/O. Whoever knows the installation's tenant
id names the same principals, so that they need no table: the token service and the management API agree by computing.
"""

from datetime import datetime
from uuid import UUID, uuid5

from contracts.messages import EndpointDesired, OnlineEndpointSpec, Part

_RESOURCE = "/subscriptions/{tenant}/resourceGroups/endpunkt/providers/Microsoft.MachineLearningServices"
_ENDPOINT = _RESOURCE + "/workspaces/endpunkt/onlineEndpoints/{endpoint}"


class Principal(Part):
    """One identity, in Azure's terms: the resource that it is of, its object id in the tenant, and the client
    (application) id by which code asks for it."""

    resource_id: str
    principal_id: str
    client_id: str


def system_assigned(tenant: UUID, endpoint: str, created_at: datetime) -> Principal:
    """The identity that an endpoint has of its own. An endpoint that is made again under its old name is another."""
    of = f"system-assigned/{endpoint}/{created_at.isoformat()}"
    return _principal(tenant, of, _ENDPOINT.format(tenant=tenant, endpoint=endpoint))


def user_assigned(tenant: UUID, resource_id: str) -> Principal:
    """The identity that `resource_id` names. Azure's resource ids do not tell upper case from lower."""
    return _principal(tenant, f"user-assigned/{resource_id.lower()}", resource_id)


def principals(tenant: UUID, endpoint: EndpointDesired) -> tuple[Principal, ...]:
    """The identities of an endpoint's instances; a batch endpoint has none."""
    if not isinstance(endpoint.spec, OnlineEndpointSpec):
        return ()
    identity = endpoint.spec.identity
    if identity.type == "system_assigned":
        return (system_assigned(tenant, endpoint.endpoint, endpoint.created_at),)
    return tuple(user_assigned(tenant, assigned.resource_id) for assigned in identity.user_assigned_identities)


def _principal(tenant: UUID, of: str, resource_id: str) -> Principal:
    return Principal(
        resource_id=resource_id,
        principal_id=str(uuid5(tenant, f"{of}/principal")),
        client_id=str(uuid5(tenant, f"{of}/client")),
    )
