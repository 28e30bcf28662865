"""Which deployments are watched, with which profile, and their windows.

PURE: messages and `now` in; no clock, no I/O, no Kafka.
"""

from dataclasses import dataclass
from datetime import datetime

from autoscaler.readings import whole_seconds
from autoscaler.window import SETTLE_SECONDS, Window
from contracts.messages import EndpointDesired, LoadSample, ResourceSample, ScaleProfile

REPLAY_SECONDS = 600
"""How far back samples are read again after a start, and the least that a window holds."""


@dataclass(slots=True)
class Watched:
    """A deployment with an autoscale setting. `profile` is None while the setting is switched off."""

    endpoint: str
    deployment: str
    declared: int
    profile: ScaleProfile | None
    window: Window


class Deployments:
    """The watched deployments by key (endpoint/deployment), kept up to date from desired state and samples."""

    def __init__(self) -> None:
        self.by_key: dict[str, Watched] = {}
        self._keys: dict[str, set[str]] = {}
        self._early: dict[str, Window] | None = {}

    def change(self, endpoint: str, desired: EndpointDesired | None, now: datetime) -> None:
        """Take an endpoint's desired state, or its deletion."""
        found = {}
        for name, (deployment, spec) in desired.online().items() if desired else ():
            if (setting := deployment.autoscale) is None:
                continue
            key = f"{endpoint}/{name}"
            [profile] = setting.profiles
            window = self._window(key, _seconds(profile), now)
            found[key] = Watched(endpoint, name, spec.instance_count, profile if setting.enabled else None, window)
        for key in self._keys.get(endpoint, set()) - found.keys():
            del self.by_key[key]
        self._keys[endpoint] = set(found)
        self.by_key.update(found)

    def add(self, sample: LoadSample | ResourceSample, now: datetime) -> None:
        """Take a sample. Those of deployments that nobody asked to watch are not kept."""
        key = sample.key()
        if watched := self.by_key.get(key):
            watched.window.add(sample)
        elif self._early is not None:
            self._early.setdefault(key, Window(_REPLAYED, now)).add(sample)

    def caught_up(self) -> None:
        """All desired state was read: samples that came before their deployment belong to none."""
        self._early = None

    def _window(self, key: str, seconds: int, now: datetime) -> Window:
        if watched := self.by_key.get(key):
            window = watched.window
        elif self._early and key in self._early:
            window = self._early.pop(key)
        else:
            window = Window(seconds, now)
        return window if window.seconds >= seconds else window.resized(seconds)


_REPLAYED = REPLAY_SECONDS + SETTLE_SECONDS + 1


def _seconds(profile: ScaleProfile) -> int:
    """How many seconds the rules look back, at least those that are replayed."""
    longest = max((whole_seconds(rule.metric_trigger.time_window) for rule in profile.rules), default=0)
    return max(longest, REPLAY_SECONDS) + SETTLE_SECONDS + 1
