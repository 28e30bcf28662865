"""What events tell people of an instance.

PURE, see the package.
"""

from collections.abc import Sequence


def created(instance_type: str, address: str, lacks: Sequence[str], overruled: Sequence[str]) -> str:
    """That there is one: `lacks` is what of its type's promises this machine does not enforce, `overruled` are the
    variables of the deployment that it has otherwise."""
    said = [f"an instance of {instance_type} at {address}"]
    if lacks:
        said.append(f"not enforced on this machine: {', '.join(lacks)}")
    if overruled:
        said.append(f"set by Endpunkt and not as the deployment says: {', '.join(overruled)}")
    return "; ".join(said)


def unready(failures: int, last: str) -> str:
    """That one which was ready is not any more; `last` is what the last question found."""
    return f"the readiness probe failed {failures} times in a row, the last: {last}; it gets no request meanwhile"
