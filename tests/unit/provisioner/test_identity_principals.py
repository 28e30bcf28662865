"""Which identity a request for a token means, and what its token says."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from contracts.identities import Principal, principals, system_assigned, user_assigned
from contracts.messages import BatchEndpointSpec, EndpointDesired, ManagedIdentity, OnlineEndpointSpec
from provisioner.identity.principals import InstanceIdentity, TokenRefused, chosen, claims, resource_of

TENANT = UUID("6f2f6d2e-6d2c-4b1e-8a53-000000000001")
NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
RED = "/subscriptions/s/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/red"
BLUE = "/subscriptions/s/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/blue"
OWN = system_assigned(TENANT, "diabetes", NOON)


def endpoint(*assigned: str) -> EndpointDesired:
    identity = ManagedIdentity.model_validate(
        {"type": "user_assigned", "user_assigned_identities": [{"resource_id": each} for each in assigned]}
        if assigned
        else {}
    )
    spec = OnlineEndpointSpec(identity=identity)
    return EndpointDesired(endpoint="diabetes", generation=1, created_at=NOON, updated_at=NOON, spec=spec)


def test_ids_follow_from_what_an_identity_is_of() -> None:
    assert system_assigned(TENANT, "diabetes", NOON) == OWN
    others = [
        system_assigned(TENANT, "diabetes", NOON + timedelta(seconds=1)),  # deleted and made again
        system_assigned(TENANT, "other", NOON),
        system_assigned(UUID(int=1), "diabetes", NOON),
        user_assigned(TENANT, RED),
        user_assigned(TENANT, BLUE),
    ]
    ids = [id for each in (OWN, *others) for id in (each.principal_id, each.client_id)]
    assert len(set(ids)) == len(ids)
    assert all(str(UUID(id)) == id for id in ids)


def test_a_resource_id_has_no_case() -> None:
    lower, upper = user_assigned(TENANT, RED), user_assigned(TENANT, RED.upper())
    assert (lower.principal_id, lower.client_id) == (upper.principal_id, upper.client_id)


def test_an_endpoint_has_its_own_identity_or_those_that_it_names() -> None:
    assert principals(TENANT, endpoint()) == (OWN,)
    assert principals(TENANT, endpoint(RED, BLUE)) == (user_assigned(TENANT, RED), user_assigned(TENANT, BLUE))
    batch = endpoint().replace(spec=BatchEndpointSpec())
    assert principals(TENANT, batch) == ()


RED_ID, BLUE_ID = user_assigned(TENANT, RED), user_assigned(TENANT, BLUE)


@pytest.mark.parametrize(
    ("query", "of", "meant"),
    [
        ({}, (OWN,), OWN),
        ({}, (RED_ID,), RED_ID),
        ({"client_id": OWN.client_id}, (OWN,), OWN),
        ({"client_id": BLUE_ID.client_id}, (RED_ID, BLUE_ID), BLUE_ID),
        ({"client_id": BLUE_ID.client_id.upper()}, (RED_ID, BLUE_ID), BLUE_ID),
        ({"clientid": BLUE_ID.client_id}, (RED_ID, BLUE_ID), BLUE_ID),
        ({"object_id": RED_ID.principal_id}, (RED_ID, BLUE_ID), RED_ID),
        ({"principal_id": RED_ID.principal_id}, (RED_ID, BLUE_ID), RED_ID),
        ({"mi_res_id": BLUE.upper()}, (RED_ID, BLUE_ID), BLUE_ID),
        ({"msi_res_id": BLUE}, (RED_ID, BLUE_ID), BLUE_ID),
        ({"client_id": ""}, (OWN,), OWN),
    ],
)
def test_the_identity_that_a_request_means(query: dict[str, str], of: tuple[Principal, ...], meant: Principal) -> None:
    assert chosen(query, of) == meant


@pytest.mark.parametrize(
    ("query", "of", "says"),
    [
        ({}, (RED_ID, BLUE_ID), "Multiple user assigned identities exist"),
        ({"client_id": RED_ID.client_id}, (OWN,), "Unable to load the proper Managed Identity"),
        ({"client_id": RED_ID.principal_id}, (RED_ID,), "no identity of this endpoint has the given client_id"),
        ({"client_id": OWN.client_id, "mi_res_id": RED}, (OWN, RED_ID), "client_id and mi_res_id"),
    ],
)
def test_requests_that_mean_none(query: dict[str, str], of: tuple[Principal, ...], says: str) -> None:
    with pytest.raises(TokenRefused, match=f"(?i){says}") as refused:
        chosen(query, of)
    document = refused.value.document("c0ffee")
    assert document == {"statusCode": 400, "message": str(refused.value), "correlationId": "c0ffee"}


def test_the_resource() -> None:
    query = {"api-version": "2019-08-01", "resource": "https://storage.azure.com"}
    assert resource_of(query) == "https://storage.azure.com"
    for bad in (
        {**query, "api-version": "2017-09-01"},
        {"resource": "https://storage.azure.com"},
        {**query, "resource": ""},
        {**query, "resource": "two words"},
        {**query, "resource": "x" * 513},
        {"api-version": "2019-08-01"},
    ):
        with pytest.raises(TokenRefused) as refused:
            resource_of(bad)
        assert refused.value.status == 400


def test_what_a_token_says() -> None:
    of = InstanceIdentity(
        instance="diabetes-blue-1", endpoint="diabetes", deployment="blue", principals=(OWN,), header_digest="d"
    )
    assert claims(OWN, of, "https://vault.azure.net", "https://me/identity", str(TENANT), 1000, 3600, "id") == {
        "aud": "https://vault.azure.net",
        "iss": "https://me/identity",
        "idp": "https://me/identity",
        "iat": 1000,
        "nbf": 1000,
        "exp": 4600,
        "oid": OWN.principal_id,
        "sub": OWN.principal_id,
        "appid": OWN.client_id,
        "tid": str(TENANT),
        "idtyp": "app",
        "uti": "id",
        "ver": "1.0",
        "xms_mirid": OWN.resource_id,
        "endpoint": "diabetes",
        "deployment": "blue",
    }
