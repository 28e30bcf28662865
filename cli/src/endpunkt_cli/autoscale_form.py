"""Azure Monitor's autoscale settings, as the body of a request.

PURE: values in, values out; no disk, no network, no clock.
"""

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

from contracts.messages import AutoscaleSetting
from endpunkt_cli.files import BadFile, Source
from endpunkt_cli.forms import Resource, invalid

_LABELS = ("name", "targetResourceLocation")
"""What Azure's export repeats of the resource around the setting."""


def read_autoscale(source: Source, endpoint: str, deployment: str) -> Resource:
    """An autoscale setting: Azure Monitor's `properties`, alone or within the resource that Azure exports."""
    value = deepcopy(source.value)
    if isinstance(value.get("properties"), dict):
        value = value["properties"]
        inner = {path.removeprefix("properties."): at for path, at in source.places.items() if path != "properties"}
        source = Source(value, {**inner, "": source.place("properties")})
    own = f"/onlineendpoints/{endpoint}/deployments/{deployment}".lower()
    troubles = []
    for path, holder in _resource_names(value):
        if not str(holder.pop(path.rpartition(".")[2])).lower().endswith(own):
            hint = f"is not {deployment} of {endpoint}, which this setting scales by its own metrics: remove it"
            troubles.append(source.trouble(path, hint))
    value = {name: item for name, item in value.items() if name not in _LABELS and (item or name != "notifications")}
    troubles += invalid(AutoscaleSetting, value, source)
    if troubles:
        raise BadFile(troubles)
    return Resource({"endpoint_name": endpoint, "name": deployment}, value, source)


def _resource_names(value: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Where an autoscale setting names the resource that it scales or measures."""
    if "targetResourceUri" in value:
        yield "targetResourceUri", value
    for at, profile in enumerate(_items(value, "profiles")):
        for index, rule in enumerate(_items(profile, "rules")):
            trigger = rule.get("metricTrigger") if isinstance(rule, dict) else None
            if isinstance(trigger, dict) and "metricResourceUri" in trigger:
                yield f"profiles.{at}.rules.{index}.metricTrigger.metricResourceUri", trigger


def _items(value: Any, name: str) -> list[Any]:
    items = value.get(name) if isinstance(value, dict) else None
    return items if isinstance(items, list) else []
