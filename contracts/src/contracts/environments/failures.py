"""What a person is told when uv could not resolve or install: which line, why, and what to do next.

PURE: from uv's words (see the tests for samples of each) to one paragraph.
"""

import re
from collections.abc import Sequence

from contracts.environments.specification import Specification

_STEPS = (
    (
        r"building from source is disabled",
        "only built packages (wheels) are installed, since a build runs its author's code with this service's rights: "
        "choose a version that has a wheel for this Python, or allow builds with ENDPUNKT_ENVIRONMENT_BUILDS=true",
    ),
    (
        r"not found in the package registry",
        "check the name's spelling, or name the index that has it with --extra-index-url",
    ),
    (r"[Hh]ash mismatch", "the index serves another file than the one whose --hash the file gives: check both"),
    (
        r"error sending request|Failed to fetch|dns error|Connection refused|timed out",
        "the package index cannot be reached from this machine: try again, or set UV_DEFAULT_INDEX to one that can",
    ),
    (r"No space left|os error 28", "the disk is full: make room in the services' home and in uv's cache"),
    (
        r"no wheels with a matching|does not satisfy Python|requires Python|Requires-Python",
        "choose a version made for this Python, or another python=",
    ),
    (r"there (is|are) no versions? of|no version of", "choose a version that exists"),
    (r"", "loosen or change one of these versions"),
)
_SAID = re.compile(r"^(error|cause|hint):\s*")
_NOISE = re.compile(
    r"warning|Resolved|Prepared|Installed|Downloading|Downloaded|Using|Creating|Activate|Building|Built|"
    r"No solution found|Wheels are required for"
)


def readable(said: Sequence[str], specification: Specification) -> str:
    """One paragraph out of uv's lines."""
    lines = [line.strip() for line in said]
    first = next((number for number, line in enumerate(lines) if line.startswith("error:")), 0)
    sentences: list[str] = []
    for line in filter(None, lines[first:]):
        text = _SAID.sub("", line)
        if _NOISE.match(text):
            continue
        if sentences and text == line:  # uv's sentences go on over several lines
            sentences[-1] += f" {text}"
        else:
            sentences.append(text)
    reason = "; ".join(dict.fromkeys(sentence.rstrip(".") for sentence in sentences)) or "uv did not say why"
    step = next(step for pattern, step in _STEPS if re.search(pattern, "\n".join(lines)))
    return f"{reason[:1500]}{_lines(reason, specification)}. Next: {step}"


def _lines(reason: str, specification: Specification) -> str:
    named = [
        f"line {one.line} asks for {one.text}"
        for one in specification.requirements
        if re.search(rf"(?<![\w.-]){re.escape(one.name)}(?![\w-])", reason, re.IGNORECASE)
    ]
    return f" ({', '.join(named[:5])})" if named else ""
