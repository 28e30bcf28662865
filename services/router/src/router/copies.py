"""The copy of a request, for a deployment that is tried with real traffic: see `mirror`.

A copy has nobody who waits for it and nobody whose patience ends it, so its bounds are here: in time, as long as the
live request lasts and request_timeout_ms after; in bytes, COPY_BYTES of an answer.
"""

from collections import Counter
from typing import cast

from router.delivery import Delivery
from router.gateway import LiveDeployment
from router.mirror import Comparison, Nobody
from router.outcomes import CLIENT_GONE
from router.request import DONE

COPY_BYTES = 8 << 20
"""Of an answer that comes in parts; a longer one is given up, and counts as unanswered."""


class Copy(Delivery):
    """Takes no part of the `live` request but the bytes of its body. `outcomes` counts how the two answers compare."""

    __slots__ = ("_live",)

    def __init__(self, live: Delivery, outcomes: Counter[str]):
        super().__init__(live.gateway, Nobody(), live.head)
        self.request_id, self.body = live.request_id, live.body
        self._live = live
        comparison = Comparison(outcomes)
        live.watch, self.watch = comparison.live, comparison.copy

    def begin(self, target: LiveDeployment) -> None:
        """Go to `target` like any other request."""
        self.guarded(lambda: self.enter(target))

    def flowing(self) -> None:
        """A part of the answer has come: there is time for more while the live answer lasts."""
        if cast(Nobody, self.client).taken > COPY_BYTES:
            self._leave()
            self._end(CLIENT_GONE)
        elif self._live.phase is not DONE:
            super().flowing()
