"""One request of a client, from the end of its head on.

An exchange is made when a request's head is read. It begins when its turn on the connection has come and its body is
complete, or is too long to wait for (then it has an `upload`). Here it gets its deployment; the rest of its way is the
same as that of a copy, see `delivery`.
"""

import logging
from time import time

from router.admission import choose, verified
from router.copies import Copy
from router.delivery import Delivery
from router.gateway import LiveEndpoint
from router.mirror import Nobody
from router.outcomes import Refusal
from router.request import DONE
from router.tokens import UnknownKey

log = logging.getLogger(__name__)


class Exchange(Delivery):
    """A request that has a client."""

    __slots__ = ()

    def begin(self) -> None:
        """Take a turn of the split, or the named deployment, and look for an instance."""
        head, gateway = self.head, self.gateway
        if head.unsure and self.refusal is None:
            head.unsure = False
            return self._verify()
        if gateway.tracing is not None:
            self.span = gateway.tracing.begin(head)
        self.ids += head.client_id
        if self.refusal is not None:
            self.ids += head.told
            return self._refuse(self.refusal)
        endpoint = gateway.table.find(head.name)
        deployment = choose(head, endpoint, gateway.suffix, self.request_id)
        self.ids += head.told
        if isinstance(deployment, Refusal):
            return self._refuse(deployment)
        self.enter(deployment)
        if endpoint is not None and endpoint.mirror is not None and head.pin is None and self.phase is not DONE:
            self._mirror(endpoint)
        return None

    def _mirror(self, endpoint: LiveEndpoint) -> None:
        """Send a copy where the endpoint mirrors to, if it is the turn of one. What fails here is not this request's
        matter. A body that is not kept is not copied, nor is a request for another protocol."""
        try:
            target = endpoint.mirrored()
            if target is not None and self.upload is None and not self.head.upgrade:
                Copy(self, target.tally.mirrored).begin(target)
        except Exception:
            log.exception("the router failed on the copy of a request (x-request-id: %s)", self.request_id.decode())

    def _verify(self, *, asked: bool = False) -> None:
        """Look at its token again, whose key was not known; `asked`: its issuer has been asked meanwhile."""
        if self.phase is DONE:
            return None
        gateway = self.gateway
        endpoint = gateway.table.find(self.head.name)
        if endpoint is not None:
            try:
                self.refusal = gateway.tokens.check(self.head.authorization, endpoint.route, time())
            except UnknownKey:
                if not asked:
                    return gateway.ask_issuers(lambda: self.guarded(lambda: self._verify(asked=True)))
                self.refusal = gateway.tokens.unknown_key(endpoint.route)
            client = self.client
            if self.refusal is None and client is not None and not isinstance(client, Nobody):
                self.refusal = verified(endpoint, client.peer, gateway.loop.time())
        return self.begin()
