"""How endpoint files say who an endpoint's instances are, in each of Azure's forms.

PURE: values in, values out; no disk, no network, no clock.
"""

from typing import Any

_SHOWN = ("principal_id", "tenant_id")
_SHOWN_OF_EACH = ("client_id", "principal_id", "object_id")
"""What the API tells of an identity, and nobody chooses: what was shown can be used as a file."""


def identity(value: dict[str, Any]) -> None:
    """Rewrites `identity` of an endpoint's file to what the API takes: user-assigned ones may be one resource id, or a
    list of ids or of mappings."""
    given = value.get("identity")
    if not isinstance(given, dict):
        return
    for name in _SHOWN:
        given.pop(name, None)
    assigned = given.get("user_assigned_identities")
    if isinstance(assigned, str):
        assigned = [assigned]
    if isinstance(assigned, list):
        given["user_assigned_identities"] = [_one(each) for each in assigned]
    elif assigned is None:
        given.pop("user_assigned_identities", None)


def _one(assigned: Any) -> Any:
    if isinstance(assigned, str):
        return {"resource_id": assigned}
    if isinstance(assigned, dict):
        return {name: item for name, item in assigned.items() if name not in _SHOWN_OF_EACH}
    return assigned
