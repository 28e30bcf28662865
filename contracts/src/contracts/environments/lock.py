"""The lock file: which release of each package, with the digests that it may have.

PURE: text in, text out. The form is pip's, as uv writes it without annotations.
"""

import re
from collections.abc import Iterable, Iterator

from packaging.utils import canonicalize_name

from contracts.environments.lines import Requirement


def blocks(lock: str) -> Iterator[list[str]]:
    """The lines of each package: the release, and indented below it its digests."""
    block: list[str] = []
    for line in lock.splitlines():
        if line and not line[0].isspace():
            if block:
                yield block
            block = []
        if line.strip():
            block.append(line)
    if block:
        yield block


def releases(lock: str) -> list[str]:
    """What is locked, such as numpy==1.26.4."""
    return [block[0].removesuffix("\\").strip() for block in blocks(lock)]


def held(lock: str, requirements: Iterable[Requirement]) -> str:
    """The lock in which packages whose digests the person gave have those and no others."""
    given = {one.name: one.hashes for one in requirements if one.hashes}
    lines: list[str] = []
    for block in blocks(lock):
        name = canonicalize_name(re.split(r"[\s=@;\[]", block[0], maxsplit=1)[0])
        if name in given:
            block = [" \\\n".join([block[0].removesuffix("\\").strip(), *(f"    --hash={one}" for one in given[name])])]
        lines += block
    return "".join(f"{line}\n" for line in lines)
