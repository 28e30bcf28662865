"""What went wrong, as Azure's error document.

PURE: values in, values out. No clock, no I/O, no web framework.
Source of the shape: the `ErrorResponse` of Azure's REST API guidelines ({"error": {"code", "message", "details"}}).
"""

import re
from collections.abc import Sequence
from typing import Any

from contracts.messages import Problem

# A command wraps what the person sent: `spec` (and pydantic's mark of its kind) or `autoscale` stand before its fields.
_WRAPPING = re.compile(r"^(spec\.(online|batch)|spec|autoscale)(\.|$)")

_CONFLICTS = ("EndpointAlreadyExists", "ResourceNotReady")


class Refused(Exception):
    """A request that gets an error document: a status, a code, and every problem that there is."""

    def __init__(self, status: int, code: str, message: str, problems: Sequence[Problem] = ()):
        super().__init__(message)
        self.status = status
        self.document = error_document(code, message, problems)


def error_document(code: str, message: str, problems: Sequence[Problem] = ()) -> dict[str, Any]:
    """{"error": {"code", "message", "details": [{"code", "target", "message"}]}}; a target is a path in the body."""
    details = [
        {"code": problem.code, "target": target_of(problem.field), "message": problem.message} for problem in problems
    ]
    return {"error": {"code": code, "message": message, "details": details}}


def rejection(problems: Sequence[Problem]) -> Refused:
    """Several problems as one refusal: 409 when something is in the way, 404 when all of it is missing, else 400."""
    codes = [problem.code for problem in problems]
    conflicts = [code for code in codes if code in _CONFLICTS]
    if conflicts:
        status, code = 409, conflicts[0]
    elif set(codes) == {"ResourceNotFound"}:
        status, code = 404, "ResourceNotFound"
    else:
        status, code = 400, codes[0] if len(set(codes)) == 1 else "BadArgument"
    message = problems[0].message
    if len(problems) > 1 or code == "BadArgument":
        message = "; ".join(f"{target_of(problem.field)}: {problem.message}" for problem in problems)
    return Refused(status, code, message, problems)


def missing(what: str) -> Refused:
    """404 for a resource that is not there."""
    return Refused(404, "ResourceNotFound", f"there is no {what}")


def target_of(field: str) -> str:
    """A command's field as the path in the body that the person sent."""
    return _WRAPPING.sub("", field) or "body"
