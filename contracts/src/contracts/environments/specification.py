"""What an environment file asks for, every trouble that it has, and the digest of its meaning.

PURE: no I/O, no clock. Files come from people: a conda YAML, or a requirements.txt.
"""

import hashlib
import json
from dataclasses import dataclass

from contracts.environments.conda import read_conda
from contracts.environments.lines import Reading, Requirement, Trouble, logical, take

LARGEST = 256 << 10
"""Characters of a file."""

_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Specification:
    """What a file asks for. `python` is a version specifier (PEP 440) or None; `options` are for uv, in the order of
    the file, and `notes` say which lines were left out and why."""

    requirements: tuple[Requirement, ...] = ()
    options: tuple[str, ...] = ()
    notes: tuple[Trouble, ...] = ()
    python: str | None = None
    python_line: int = 0

    def digest(self, python: str, platform: str) -> str:
        """SHA-256 of what the environment is: the packages asked for, in whatever order and form of file, from where,
        and the interpreter and platform that it is for."""
        meaning = {
            "format": _FORMAT,
            "requirements": sorted({(one.text, one.hashes) for one in self.requirements}),
            "options": self.options,
            "python": python,
            "platform": platform,
        }
        return hashlib.sha256(json.dumps(meaning, sort_keys=True).encode()).hexdigest()


def read(name: str, text: str) -> Specification | list[Trouble]:
    """The specification in the file `name` (its ending tells which kind it is), or all its troubles in their order."""
    specification, troubles = examined(name, text)
    return troubles or specification


def examined(name: str, text: str) -> tuple[Specification, list[Trouble]]:
    """As much of the specification as could be read, and all its troubles in their order."""
    if len(text) > LARGEST:
        return Specification(), [Trouble(1, f"more than {LARGEST >> 10} Ki characters are no environment file")]
    reading: Reading
    if _is_conda(name, text):
        reading = conda = read_conda(text)
        python, line = conda.python, conda.python_line
    else:
        reading, python, line = Reading(), None, 0
        take(logical(text), reading)
    specification = Specification(
        tuple(reading.requirements), tuple(dict.fromkeys(reading.options)), tuple(reading.notes), python, line
    )
    return specification, sorted(reading.troubles, key=lambda trouble: trouble.line)


def _is_conda(name: str, text: str) -> bool:
    if name.lower().endswith((".yml", ".yaml")):
        return True
    keys = ("dependencies:", "channels:", "name:")
    return not name.lower().endswith((".txt", ".in")) and any(line.startswith(keys) for line in text.splitlines())
