"""Which deployment gets the next request.

PURE: integers in, names out. No clock, no randomness (an exact split needs neither) and no I/O may enter this module.

For any N requests each deployment has got its share of N, give or take less than one request. nginx's smooth weighted
round robin does not keep that promise for many deployments: 2, 1, 26, 3, 21, 15, 15, 1, 1, 15 % is off by 1.04 at one
point. Tijdeman's algorithm does, and no algorithm can do better for every split: with n deployments no count is ever
off by more than 1 - 1/(2n - 2).

Source: R. Tijdeman, "The chairman assignment problem", Discrete Mathematics 32 (1980), 323-330.
"""

from collections.abc import Mapping
from fractions import Fraction
from functools import lru_cache
from math import gcd


def sequence(traffic: Mapping[str, int]) -> tuple[str, ...]:
    """One period of picks for these weights (whole percents, so at most 100 picks); empty when all weights are 0.

    Turn j goes, among the deployments that are at least 1/(2n - 2) behind their share of j requests, to the one that
    must be served soonest, so that none ever falls behind by more than 1 - 1/(2n - 2).
    """
    return _sequence(tuple(sorted((name, weight) for name, weight in traffic.items() if weight > 0)))


@lru_cache(maxsize=1024)  # thousands of endpoints have a few splits among them
def _sequence(weights: tuple[tuple[str, int], ...]) -> tuple[str, ...]:
    if not weights:
        return ()
    unit = gcd(*(weight for _, weight in weights))
    period = sum(weight for _, weight in weights) // unit
    shares = {name: Fraction(weight // unit, period) for name, weight in weights}
    slack = Fraction(1, 2 * len(weights) - 2) if len(weights) > 1 else Fraction(1)
    served = dict.fromkeys(shares, 0)
    picks: list[str] = []
    for turn in range(1, period + 1):
        behind = {name: share * turn - served[name] for name, share in shares.items()}
        entitled = [name for name in shares if behind[name] >= slack]
        pick = min(entitled, key=lambda name: (1 - slack - behind[name]) / shares[name])
        served[pick] += 1
        picks.append(pick)
    return tuple(picks)


class Split:
    """A place in the endless sequence of one traffic setting."""

    __slots__ = ("_at", "_picks", "traffic")

    def __init__(self, traffic: Mapping[str, int]):
        self.traffic = dict(traffic)
        self._picks = sequence(traffic)
        self._at = -1

    def next(self) -> str | None:
        """The deployment whose turn it is; None when no deployment has a positive weight."""
        picks = self._picks
        if not picks:
            return None
        self._at = at = (self._at + 1) % len(picks)
        return picks[at]
