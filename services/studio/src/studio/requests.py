"""What a person sends, as commands.

PURE: bytes and text in, messages out. No clock, no randomness, no I/O, no web framework. Every function raises
`Refused` with every problem of the request at once.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal, TypeVar

from pydantic import ValidationError
from pydantic_core import from_json

from contracts.envelope import problems_of
from contracts.messages import (
    CreateEndpoint,
    GetLogs,
    Message,
    Problem,
    PutDeployment,
    RegenerateKey,
    SetAutoscale,
    StartBatchJob,
    UpdateEndpoint,
)
from studio.replies import rejection

Kind = Literal["online", "batch"]
Body = dict[str, Any]
M = TypeVar("M", bound=Message)

_CONTAINERS = {"InferenceServer": "inference-server", "StorageInitializer": "storage-initializer"}
_COMMAND_ID = re.compile(r"[A-Za-z0-9_-]{1,40}")


def body_of(raw: bytes) -> Body:
    """The JSON object in `raw`."""
    try:
        body = from_json(raw, allow_inf_nan=False)
    except ValueError as error:
        raise rejection([_problem("body", f"is no JSON: {error}")]) from None
    if not isinstance(body, dict):
        raise rejection([_problem("body", 'must be a JSON object, such as {"description": "…"}')])
    return body


def command_id(given: str | None, fallback: str) -> str:
    """The id of a command: `x-ms-client-request-id`, so that a request that is sent again is applied once."""
    if given is None:
        return fallback
    if _COMMAND_ID.fullmatch(given) is None:
        hint = "takes 1 to 40 letters, digits, '-' and '_'; leave it out and one is made"
        raise rejection([_problem("x-ms-client-request-id", hint)])
    return given


def precondition(if_match: str | None, if_none_match: str | None) -> Literal["create", "update"] | None:
    """What must be true of a deployment that is put: `If-None-Match: *` it is new, `If-Match: *` it exists."""
    problems = [
        _problem(name, "takes only *: this version has no entity tags")
        for name, value in (("If-Match", if_match), ("If-None-Match", if_none_match))
        if value not in (None, "*")
    ]
    if if_match and if_none_match:
        problems.append(_problem("If-Match", "contradicts If-None-Match: send one of them"))
    if problems:
        raise rejection(problems)
    return "update" if if_match else "create" if if_none_match else None


def create_endpoint(kind: Kind, endpoint: str, body: Body) -> CreateEndpoint:
    """PUT of an endpoint."""
    return command(CreateEndpoint, {"endpoint": endpoint, "spec": _of_kind(kind, body)})


def update_endpoint(endpoint: str, body: Body) -> UpdateEndpoint:
    """PATCH of an endpoint."""
    return command(UpdateEndpoint, {"endpoint": endpoint}, body)


def regenerate_key(endpoint: str, body: Body) -> RegenerateKey:
    """POST regenerateKeys: {"keyType": "Primary" or "Secondary"}."""
    problems = [_problem(name, "unknown field; the body is keyType alone") for name in body if name != "keyType"]
    key_type = body.get("keyType")
    if key_type not in ("Primary", "Secondary"):
        problems.append(_problem("keyType", "must be Primary or Secondary"))
    if problems:
        raise rejection(problems)
    return command(RegenerateKey, {"endpoint": endpoint, "key_type": str(key_type).lower()})


def put_deployment(
    kind: Kind, endpoint: str, deployment: str, body: Body, must: Literal["create", "update"] | None
) -> PutDeployment:
    """PUT of a deployment."""
    path = {"endpoint": endpoint, "deployment": deployment, "spec": _of_kind(kind, body), "must": must}
    return command(PutDeployment, path)


def get_logs(endpoint: str, deployment: str, body: Body) -> GetLogs:
    """POST getLogs: {"tail": lines, "containerType": "InferenceServer" or "StorageInitializer"}, both optional; and
    {"instance": id} for one instance alone."""
    known = ("tail", "containerType", "instance")
    problems = [_problem(name, f"unknown field; the body has {', '.join(known)}") for name in body if name not in known]
    tail = body.get("tail", 5000)
    if not isinstance(tail, int) or isinstance(tail, bool) or not 1 <= tail <= 100_000:
        problems.append(_problem("tail", "must be a number of lines, from 1 to 100000"))
    container = body.get("containerType", "InferenceServer")
    if not isinstance(container, str) or container not in _CONTAINERS:
        problems.append(_problem("containerType", f"must be {' or '.join(_CONTAINERS)}"))
    instance = body.get("instance")
    if not isinstance(instance, str | None):
        problems.append(_problem("instance", "must be an instance's id, as the deployment shows it"))
    if problems:
        raise rejection(problems)
    path = {"endpoint": endpoint, "deployment": deployment, "container": _CONTAINERS[container], "lines": tail}
    return command(GetLogs, {**path, "instance": instance})


def set_autoscale(endpoint: str, deployment: str, body: Body) -> SetAutoscale:
    """PUT of a deployment's autoscale setting."""
    return command(SetAutoscale, {"endpoint": endpoint, "deployment": deployment, "autoscale": body})


def start_job(endpoint: str, body: Body, fallback: str) -> StartBatchJob:
    """POST of a job; its id is the body's `job`, else `fallback`."""
    return command(StartBatchJob, {"endpoint": endpoint}, {"job": fallback, **body})


def period(query: Mapping[str, str]) -> tuple[datetime | None, datetime | None]:
    """`from` and `to` of a query: days (2026-11-01, UTC midnight) or instants with an offset (2026-11-01T12:00Z)."""
    problems = []
    instants: list[datetime | None] = []
    for name in ("from", "to"):
        instant = None
        if text := query.get(name):
            try:
                instant = datetime.fromisoformat(text)
            except ValueError:
                problems.append(_problem(name, "is no ISO 8601 date or time, such as 2026-11-01 or 2026-11-01T12:00Z"))
            else:
                if instant.tzinfo is None and len(text) > len("2026-11-01"):
                    problems.append(_problem(name, "needs its offset, such as Z for UTC"))
                instant = instant.replace(tzinfo=instant.tzinfo or UTC)
        instants.append(instant)
    if problems:
        raise rejection(problems)
    return instants[0], instants[1]


def _of_kind(kind: Kind, body: Body) -> Body:
    if body.get("kind", kind) != kind:
        raise rejection([_problem("kind", f"is {kind} at this address: leave it out, or use the other one")])
    return {**body, "kind": kind}


def command(model: type[M], path: Body, body: Body | None = None) -> M:
    """A command of what the path says and what the body says; the body may not repeat the path."""
    body = body or {}
    twice = [_problem(name, "is part of the address: leave it out of the body") for name in body if name in path]
    problems: tuple[Problem, ...] = ()
    try:
        valid = model.model_validate({**body, **path})
    except ValidationError as error:
        problems = problems_of(error)
    if twice or problems:
        raise rejection([*twice, *problems])
    return valid


def _problem(field: str, message: str) -> Problem:
    return Problem(code="BadArgument", field=field, message=message)
