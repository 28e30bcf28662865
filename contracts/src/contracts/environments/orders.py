"""From a file to what is to be built: its specification, and this machine's interpreter for it."""

import os
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass

from contracts.environments.lines import Trouble
from contracts.environments.pythons import Interpreter, chosen, installed, missing
from contracts.environments.specification import Specification, examined


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be built of `file`: what it asks for, for an interpreter."""

    file: str
    specification: Specification
    interpreter: Interpreter
    digest: str


class Orders:
    """Makes orders. Blocks, shortly: the interpreters are looked for by uv once, and when none of them will do."""

    def __init__(self, uv: str, environment: Mapping[str, str]):
        self._uv, self._environment = uv, environment
        self._own = sysconfig.get_python_version()
        self.installed: list[Interpreter] = []
        """The interpreters of this machine, as they were when one was last looked for."""

    def of(self, name: str, text: str) -> Order | list[Trouble]:
        """The order of the file `name`, or all that can be said against it."""
        specification, troubles = examined(name, text)
        interpreter = self._interpreter(specification.python)
        if interpreter is None:
            reason = missing(specification.python, self.installed, self._own)
            troubles.append(Trouble(specification.python_line or 1, reason))
        if troubles or interpreter is None:
            return sorted(troubles, key=lambda trouble: trouble.line)
        python = f"{interpreter.version} {interpreter.path}"
        digest = specification.digest(python, sysconfig.get_platform())
        return Order(name, specification, interpreter, digest)

    def _interpreter(self, specifier: str | None) -> Interpreter | None:
        """The interpreter for it. What is missing is looked for again: it may have been installed meanwhile."""
        found = chosen(specifier, self.installed, self._own) if self.installed else None
        if found is None or not os.path.exists(found.path):
            self.installed = installed(self._uv, self._environment)
            found = chosen(specifier, self.installed, self._own)
        return found
