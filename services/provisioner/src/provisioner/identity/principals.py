"""Which identity a request for a token means, and what the token says.

PURE: a request's query, principals, ids and `now` in; a principal, claims or a refusal out. No clock, no randomness,
no I/O, no web framework, no cryptography.
Source of the protocol and of the errors' shape: "REST endpoint reference" of App Service's managed identities,
api-version 2019-08-01, which `azure-identity` and MSAL speak when IDENTITY_ENDPOINT and IDENTITY_HEADER are set.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from contracts.identities import Principal
from contracts.messages import Part

API_VERSION = "2019-08-01"
TOKEN_SECONDS = 3600

_BY_CLIENT = ("client_id", "clientid")
_BY_OBJECT = ("object_id", "principal_id")
_BY_RESOURCE = ("mi_res_id", "msi_res_id")
_RESOURCE = re.compile(r"[\x21-\x7e]{1,512}")


class TokenRefused(Exception):
    """No token: an HTTP status and what the caller must do."""

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = status

    def document(self, correlation_id: str) -> dict[str, Any]:
        """{"statusCode", "message", "correlationId"}, which clients show to people."""
        return {"statusCode": self.status, "message": str(self), "correlationId": correlation_id}


class InstanceIdentity(Part):
    """What an instance may get tokens for. Of its secret header only the SHA-256 is kept."""

    instance: str
    endpoint: str
    deployment: str
    principals: tuple[Principal, ...]
    header_digest: str


def resource_of(query: Mapping[str, str]) -> str:
    """What the token shall be for (its audience). Raises TokenRefused."""
    if query.get("api-version") != API_VERSION:
        raise TokenRefused(400, f"The api-version must be {API_VERSION}.")
    if _RESOURCE.fullmatch(resource := query.get("resource", "")) is None:
        raise TokenRefused(400, "The parameter resource is missing or is no URI, such as https://storage.azure.com.")
    return resource


def chosen(query: Mapping[str, str], principals: Sequence[Principal]) -> Principal:
    """The identity that a request means: the one that it names, else the only one. Raises TokenRefused."""
    named = [name for name in (*_BY_CLIENT, *_BY_OBJECT, *_BY_RESOURCE) if query.get(name)]
    if len(named) > 1:
        raise TokenRefused(400, f"Name the identity once, not by {' and '.join(named)}.")
    if not named:
        if len(principals) != 1:
            raise TokenRefused(
                400,
                "Multiple user assigned identities exist, please specify the clientId / resourceId of the identity "
                "in the token request.",
            )
        return principals[0]
    name, wanted = named[0], query[named[0]].lower()
    for principal in principals:
        if wanted == _id_of(principal, name).lower():
            return principal
    raise TokenRefused(
        400,
        "Unable to load the proper Managed Identity. No identity of this endpoint has the given "
        f"{name}: `endpunkt online-endpoint show` lists them.",
    )


def claims(
    principal: Principal, of: InstanceIdentity, resource: str, issuer: str, tenant: str, now: int, seconds: int, id: str
) -> dict[str, Any]:
    """The claims of a token that holds from `now` (seconds since 1970) for `seconds`; `id` is its own.

    Names as in Entra's tokens of managed identities (version 1.0): `oid` and `sub` are the principal, `appid` the
    client id, `xms_mirid` the resource that the identity is of. `endpoint` and `deployment` say which instance asked.
    """
    return {
        "aud": resource,
        "iss": issuer,
        "iat": now,
        "nbf": now,
        "exp": now + seconds,
        "appid": principal.client_id,
        "idp": issuer,
        "idtyp": "app",
        "oid": principal.principal_id,
        "sub": principal.principal_id,
        "tid": tenant,
        "uti": id,
        "ver": "1.0",
        "xms_mirid": principal.resource_id,
        "endpoint": of.endpoint,
        "deployment": of.deployment,
    }


def _id_of(principal: Principal, parameter: str) -> str:
    if parameter in _BY_CLIENT:
        return principal.client_id
    return principal.principal_id if parameter in _BY_OBJECT else principal.resource_id
