"""Whether a bearer token lets its bearer score: our own (`aml_token`), or another issuer's (`aad_token`).

PURE: keys are given, and so is `now` (seconds since 1970). No clock and no I/O may enter this module.

A signature is checked once for each token and remembered, as the token's digest, for as long as the token holds and its
key is trusted: an RSA signature costs as much as a whole request. Of too many tokens, those that were used last are
remembered.
"""

import json
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from joserfc import jwt
from joserfc.errors import InvalidKeyIdError, JoseError
from joserfc.jwk import KeySet, import_key

from contracts.scoring_tokens import AUDIENCE, is_for
from router.auth import bearer
from router.outcomes import NO_ISSUER, NOT_ALLOWED, TOKEN_REFUSED, Refusal
from router.routes import EndpointRoute

LEEWAY_SECONDS = 60
"""How far the issuer's clock may be from this one."""

_REMEMBERED = 10_000
_ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "Ed25519", "EdDSA"]
"""Signatures by public keys. `none` and shared secrets are no part of it, whatever a token says of itself."""


class UnknownKey(Exception):
    """The token names a key that is not known (yet): the issuer may have published a new one."""


@dataclass(frozen=True, slots=True)
class Issuer:
    """Another issuer of tokens (OIDC). A token must name it, `audience`, and `role` (or `role/<endpoint>`) in its claim
    `role_claim`."""

    name: str
    audience: str = AUDIENCE
    role: str = "endpunkt.score"
    role_claim: str = "roles"


@dataclass(slots=True)
class Tokens:
    """Judges tokens. `issuer` None: nobody else's are taken."""

    issuer: Issuer | None = None
    _own: KeySet = field(default_factory=lambda: KeySet([]))
    _outer: KeySet = field(default_factory=lambda: KeySet([]))
    _published: dict[str, frozenset[str]] = field(default_factory=dict)
    _verified: OrderedDict[bytes, Mapping[str, Any]] = field(default_factory=OrderedDict)

    def trust(
        self, own: Iterable[Mapping[str, Any]] | None = None, outer: Iterable[Mapping[str, Any]] | None = None
    ) -> None:
        """Trust these public keys (RFC 7517) from now on, and no others; None leaves those of before. What is signed
        with a key that is gone holds no more. The same keys again change nothing: anybody can have them read."""
        if own is not None and self._are_new("own", own := list(own)):
            self._own = _key_set(own)
        if outer is not None and self._are_new("outer", outer := list(outer)):
            self._outer = _key_set(outer)

    def _are_new(self, whose: str, keys: Iterable[Mapping[str, Any]]) -> bool:
        """Whether these are others than before, in whatever order; then nothing is verified any more."""
        published = frozenset(json.dumps(dict(key), sort_keys=True, default=repr) for key in keys)
        if self._published.get(whose) == published:
            return False
        self._published[whose] = published
        self._verified.clear()
        return True

    def check(self, authorization: bytes | None, route: EndpointRoute, now: float) -> Refusal | None:
        """Why a request to an endpoint that takes tokens is refused, or None. Raises UnknownKey."""
        token = bearer(authorization)
        if token is None:
            return self._refused(route, "there is none")
        own = route.auth == "aml_token"
        if not own and self.issuer is None:
            return NO_ISSUER.about(endpoint=route.name)
        digest = sha256(b"own " + token if own else b"outer " + token).digest()
        claims = self._verified.get(digest)
        if claims is None:
            try:
                claims = jwt.decode(token.decode("latin-1"), self._own if own else self._outer, _ALGORITHMS).claims
            except InvalidKeyIdError:
                raise UnknownKey from None
            except (JoseError, ValueError) as error:
                return self._refused(route, f"it cannot be verified: {str(error) or type(error).__name__}")
            if len(self._verified) >= _REMEMBERED:
                self._verified.popitem(last=False)
            self._verified[digest] = claims
        else:
            self._verified.move_to_end(digest)
        if (reason := _out_of_time(claims, now)) is not None:
            return self._refused(route, reason)
        if own:
            return None if is_for(claims, route.name, route.created_at) else NOT_ALLOWED.about(endpoint=route.name)
        return self._of_the_issuer(claims, route)

    def unknown_key(self, route: EndpointRoute) -> Refusal:
        """The answer where the issuer has been asked and has no such key."""
        return self._refused(route, "it is signed with a key that its issuer does not publish")

    def _of_the_issuer(self, claims: Mapping[str, Any], route: EndpointRoute) -> Refusal | None:
        issuer = self.issuer
        assert issuer is not None
        if claims.get("iss") != issuer.name:
            return self._refused(route, f"its issuer (iss) is not {issuer.name}")
        if issuer.audience not in _listed(claims.get("aud")):
            return self._refused(route, f"it is not for {issuer.audience} (aud)")
        if not {issuer.role, f"{issuer.role}/{route.name}"} & set(_listed(claims.get(issuer.role_claim))):
            return NOT_ALLOWED.about(endpoint=route.name)
        return None

    def _refused(self, route: EndpointRoute, reason: str) -> Refusal:
        return TOKEN_REFUSED.about(endpoint=route.name, reason=reason.replace("{", "(").replace("}", ")"))


def _key_set(keys: Iterable[Mapping[str, Any]]) -> KeySet:
    """Keys of a kind that is not known here verify nothing here."""
    known = []
    for key in keys:
        try:
            known.append(import_key(dict(key)))
        except Exception:  # noqa: S112 (they are somebody's words, and can be anything)
            continue
    return KeySet(known)


def _out_of_time(claims: Mapping[str, Any], now: float) -> str | None:
    ends, begins = claims.get("exp"), claims.get("nbf", 0)
    if not isinstance(ends, int | float) or not isinstance(begins, int | float):
        return "it does not say how long it holds (exp)"
    if now >= ends + LEEWAY_SECONDS:
        return "it has expired"
    return "it does not hold yet (nbf)" if now < begins - LEEWAY_SECONDS else None


def _listed(value: object) -> list[str]:
    """A claim that is a list, or one text with spaces between its parts."""
    if isinstance(value, str):
        return value.split(" ")
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []
