"""Who an endpoint's instances are, as Azure's files say it."""

from typing import Any

import pytest

from endpunkt_cli.files import Source
from endpunkt_cli.forms import read

RED, BLUE = "/subscriptions/s/red", "/subscriptions/s/blue"
BOTH = {"type": "user_assigned", "user_assigned_identities": [{"resource_id": RED}, {"resource_id": BLUE}]}


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ({"type": "system_assigned"}, {"type": "system_assigned"}),
        ({"type": "system_assigned", "principal_id": "p", "tenant_id": "t", "user_assigned_identities": None},
         {"type": "system_assigned"}),
        ({"type": "user_assigned", "user_assigned_identities": RED},
         {"type": "user_assigned", "user_assigned_identities": [{"resource_id": RED}]}),
        ({"type": "user_assigned", "user_assigned_identities": [RED, BLUE]}, BOTH),
        (BOTH, BOTH),
        ({"type": "user_assigned", "tenant_id": "t", "principal_id": None, "user_assigned_identities": [
            {"resource_id": RED, "client_id": "c", "principal_id": "p"},
            {"resource_id": BLUE, "client_id": "c", "object_id": "p"},
        ]}, BOTH),
    ],
)  # fmt: skip
def test_forms_of_azure(written: dict[str, Any], meant: dict[str, Any]) -> None:
    resource = read("online-endpoint", Source({"name": "diabetes", "identity": written}), "/")
    assert resource.body["identity"] == meant
