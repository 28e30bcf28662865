"""The routing table from documents: what a route holds, and what lives on from entry to entry."""

from collections import Counter
from datetime import timedelta
from hashlib import sha256
from typing import Any

import pytest

from contracts.messages import (
    BatchEndpointSpec,
    DeploymentObserved,
    EndpointDesired,
    EndpointObserved,
    Instance,
    OnlineEndpointSpec,
)
from router.routes import DeploymentRoute, InstanceRoute, route_of
from router.table import RoutingTable

Documents = Any
READY = {"blue": {"b1": "127.0.0.1:5001"}, "green": {"g1": "[::1]:5002"}}


@pytest.fixture
def desired(documents: Documents) -> EndpointDesired:
    return _desired(documents, {"blue": 90, "green": 10})


def _desired(documents: Documents, traffic: dict[str, int], **more: Any) -> EndpointDesired:
    deployments = {
        "blue": documents.deployment(idempotent=True, request_timeout_ms=1500, max_queue_wait_ms=250),
        "green": documents.deployment(autoscaled=True, max_concurrent_requests_per_instance=7),
    }
    made: EndpointDesired = documents.desired(deployments, traffic, **more)
    return made


def test_a_route(documents: Documents, desired: EndpointDesired) -> None:
    route = route_of(desired, documents.observed(READY, 2))
    assert route is not None
    assert (route.name, route.traffic, route.problems) == ("diabetes", {"blue": 90, "green": 10}, ())
    assert route.digests == (sha256(b"the-primary-key").digest(), sha256(b"the-secondary-key").digest())
    assert route.deployments == {
        "blue": DeploymentRoute(
            timeout=1.5,
            concurrency=1,
            queue_wait=0.25,
            idempotent=True,
            desired=2,
            instances=(InstanceRoute("b1", "127.0.0.1", 5001),),
        ),
        "green": DeploymentRoute(
            timeout=5.0,
            concurrency=7,
            queue_wait=0.5,
            autoscaled=True,
            desired=2,
            instances=(InstanceRoute("g1", "::1", 5002),),
        ),
    }


def test_nothing_observed_yet(desired: EndpointDesired) -> None:
    route = route_of(desired, None)
    assert route is not None
    assert route.deployments["blue"].instances == ()
    assert route.deployments["blue"].desired == 0


def test_a_batch_endpoint_has_no_route(desired: EndpointDesired) -> None:
    batch = desired.replace(spec=BatchEndpointSpec(), deployments={}, traffic={})
    assert route_of(batch, None) is None


def test_an_endpoint_without_keys_lets_nobody_in(desired: EndpointDesired) -> None:
    route = route_of(desired.replace(keys=None), None)
    assert route is not None
    assert route.digests == ()


@pytest.mark.parametrize("state", ["Starting", "Draining", "Failed"])
def test_only_ready_instances_count(documents: Documents, desired: EndpointDesired, state: Any) -> None:
    observed = documents.observed(READY)
    blue = observed.deployments["blue"]
    other = blue.instances[0].model_copy(update={"state": state, "id": "b2"})
    observed = observed.replace(
        deployments={"blue": DeploymentObserved.model_validate({**dict(blue), "instances": (*blue.instances, other)})}
    )
    route = route_of(desired, observed)
    assert route is not None
    assert [instance.id for instance in route.deployments["blue"].instances] == ["b1"]


@pytest.mark.parametrize("address", ["", "localhost", ":80", "h:", "h:x", "h:0", "h:70000", "h:-1"])
def test_an_address_that_is_none_is_left_out_and_told(
    documents: Documents, desired: EndpointDesired, address: str
) -> None:
    observed = documents.observed({"blue": {"b1": address, "b2": "127.0.0.1:5001"}})
    route = route_of(desired, observed)
    assert route is not None
    assert [instance.id for instance in route.deployments["blue"].instances] == ["b2"]
    assert len(route.problems) == 1
    assert "diabetes/blue" in route.problems[0]
    assert "b1" in route.problems[0]


class Table:
    """A routing table with the documents that feed it."""

    def __init__(self) -> None:
        self.table: RoutingTable[Any, Any] = RoutingTable()
        self.observed: dict[str, EndpointObserved] = {}

    def put(self, desired: EndpointDesired, observed: EndpointObserved | None = None) -> Any:
        if observed is not None:
            self.observed[observed.endpoint] = observed
        return self.table.apply(desired.endpoint, desired, self.observed, now=1.0)

    def delete(self, name: str) -> Any:
        return self.table.apply(name, None, self.observed, now=1.0)

    def turns(self, count: int) -> Counter[str]:
        picked = (self.table.entries[b"diabetes"].turn() for _ in range(count))
        return Counter(deployment.name for deployment in picked if deployment is not None)


def test_an_unrelated_change_keeps_the_place_in_the_split(documents: Documents, desired: EndpointDesired) -> None:
    table = Table()
    counts = Counter[str]()
    for at in range(1000):
        table.put(desired.replace(generation=at + 1), documents.observed(READY, at % 3))
        counts += table.turns(1)
    assert counts == {"blue": 900, "green": 100}
    assert table.table.deployments["diabetes", "green"].tally.turns == 100


def test_a_changed_split_begins_anew(documents: Documents, desired: EndpointDesired) -> None:
    table = Table()
    table.put(desired, documents.observed(READY))
    table.turns(7)
    table.put(_desired(documents, {"blue": 50, "green": 50}))
    assert table.turns(100) == {"blue": 50, "green": 50}
    table.put(_desired(documents, {"blue": 0, "green": 0}))
    assert table.turns(3) == {}


def test_an_entry_is_replaced_as_a_whole(documents: Documents, desired: EndpointDesired) -> None:
    table = Table()
    table.put(desired, documents.observed(READY))
    before = table.table.entries[b"diabetes"]
    table.put(_desired(documents, {"green": 100}, primary="new"))
    after = table.table.entries[b"diabetes"]
    assert before.route.traffic == {"blue": 90, "green": 10}
    assert before.route.digests[0] != after.route.digests[0]
    assert after.route.traffic == {"green": 100}
    assert before.deployments[b"blue"] is after.deployments[b"blue"]


def test_a_removed_deployment_lives_until_its_last_request(documents: Documents, desired: EndpointDesired) -> None:
    table = Table()
    table.put(desired, documents.observed(READY))
    blue = table.table.deployments["diabetes", "blue"]
    room = blue.admit(1.0)
    change = table.put(documents.desired({"green": documents.deployment()}, {"green": 100}))
    assert [instance.id for instance in change.gone] == ["b1"]
    assert blue in change.deployments
    assert b"blue" not in table.table.entries[b"diabetes"].deployments
    assert table.table.forget_removed() == []
    blue.release(room)  # type: ignore[arg-type]
    assert table.table.forget_removed() == [("diabetes", "blue")]
    assert list(table.table.deployments) == [("diabetes", "green")]


def test_a_deleted_endpoint_is_gone_and_one_made_again_is_new(documents: Documents, desired: EndpointDesired) -> None:
    table = Table()
    table.put(desired, documents.observed(READY))
    table.turns(5)
    change = table.delete("diabetes")
    assert {instance.id for instance in change.gone} == {"b1", "g1"}
    assert table.table.entries == {}
    table.put(desired)
    assert table.table.forget_removed() == []
    assert table.turns(10) == {"blue": 9, "green": 1}
    assert table.delete("unheard-of").gone == ()


def test_of_names_that_differ_by_case_the_older_is_routed(documents: Documents, desired: EndpointDesired) -> None:
    younger = documents.desired(
        {"red": documents.deployment()},
        {"red": 100},
        name="Diabetes",
        created_at=desired.created_at + timedelta(days=1),
    )
    for order in ([desired, younger], [younger, desired]):
        table = Table()
        for document in order:
            table.put(document)
        assert table.table.entries[b"diabetes"].route.name == "diabetes"
        table.delete("diabetes")
        assert table.table.entries[b"diabetes"].route.name == "Diabetes"
        assert table.turns(1) == {"red": 1}


def test_the_instances_type_is_the_contracts() -> None:
    """Guards the two fields of the contract that routing depends on."""
    assert {"state", "address"} <= Instance.model_fields.keys()
    assert OnlineEndpointSpec().auth_mode == "key"
