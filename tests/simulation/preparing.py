"""What instances are made of, brought to the machine in the background, as provisioner.preparation."""

from collections.abc import Collection
from functools import partial

from contracts.messages import DeploymentDesired, DeploymentError
from provisioner.core.failures import not_built, not_fetched

from .machine import UNBUILDABLE, Turn
from .world import World

Key = tuple[str, str, int]


class Preparation:
    """What one life of a provisioner knows of it: nothing yet (None), that all is there, or why not."""

    def __init__(self, world: World, changed: set[str]):
        self._world, self._changed = world, changed
        self._state: dict[Key, tuple[DeploymentDesired, DeploymentError | bool | None]] = {}

    def of(self, endpoint: str, name: str, template: DeploymentDesired) -> DeploymentError | bool:
        """Whether instances can start, or why they cannot, which is told once."""
        key = (endpoint, name, template.generation)
        known, state = self._state.get(key, (template, None))
        if _parts(known) != _parts(template):
            state = None
        self._state[key] = template, None if isinstance(state, DeploymentError) else state
        return False if state is None else state

    def keep(self, endpoint: str, needed: Collection[tuple[str, int]]) -> None:
        """Forget what nothing needs."""
        for key in [key for key in self._state if key[0] == endpoint and key[1:] not in needed]:
            del self._state[key]

    def turns(self) -> list[Turn]:
        """What is under way ends, in any order."""
        return [partial(self._end, key) for key, (_, state) in self._state.items() if state is None]

    def _end(self, key: Key) -> str:
        template, _ = self._state[key]
        self._changed.add(key[0])
        ended: DeploymentError | bool = True
        if template.environment is not None and template.environment.artifact.name == UNBUILDABLE:
            ended = not_built("there is no such package", ())
        elif self._world.happens(self._world.chaos.refuse):
            ended = not_fetched("the store does not answer")
        else:
            self._world.machine.prepared.add(_parts(template))
        self._state[key] = template, ended
        return f"preparing {key} ended with {ended}"


def _parts(template: DeploymentDesired) -> tuple[object, ...]:
    return template.model, template.code, template.environment
