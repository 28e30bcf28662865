"""The router's Prometheus metrics, read from its counters when somebody asks: the hot path knows nothing of them."""

from collections.abc import Callable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from router.gateway import Gateway

_BY = ["endpoint", "deployment"]


class RouterMetrics(Collector):
    """`read_at` gives the time (seconds since 1970) at which the table last took a record from Kafka, `heard_at` when
    the broker last answered at all, `waiting` how many endpoints wait to be restored."""

    def __init__(
        self,
        gateway: Gateway,
        read_at: Callable[[], float],
        heard_at: Callable[[], float | None],
        waiting: Callable[[], int] = lambda: 0,
    ):
        self._gateway = gateway
        self._read_at, self._heard_at, self._waiting = read_at, heard_at, waiting

    def collect(self) -> Iterator[Metric]:
        """Each metric with its samples."""
        gateway = self._gateway
        requests = CounterMetricFamily(
            "endpunkt_router_requests",
            "Requests that ended; without a deployment those that were refused before one was chosen",
            labels=[*_BY, "status", "status_class"],
        )
        for (endpoint, status), count in gateway.unrouted.items():
            requests.add_metric([endpoint, "", str(status), f"{status // 100}xx"], count)
        seconds = CounterMetricFamily(
            "endpunkt_router_request_seconds", "From a request's last byte to its answer's, in all", labels=_BY
        )
        turns = CounterMetricFamily("endpunkt_router_split_turns", "Turns that the split gave", labels=_BY)
        handed = CounterMetricFamily("endpunkt_router_handed", "Requests that a model has had (metered)", labels=_BY)
        retries = CounterMetricFamily("endpunkt_router_retries", "Requests handed to a model again", labels=_BY)
        mirrored = CounterMetricFamily(
            "endpunkt_router_mirrored",
            "Copies of requests, by how the answer compares with the live one (same, status, body, unanswered)",
            labels=[*_BY, "outcome"],
        )
        ejections = CounterMetricFamily("endpunkt_router_ejections", "Instances ejected", labels=_BY)
        in_flight = GaugeMetricFamily("endpunkt_router_in_flight", "Requests that run or wait", labels=_BY)
        waiting = GaugeMetricFamily("endpunkt_router_waiting", "Requests that wait for an instance", labels=_BY)
        instances = GaugeMetricFamily("endpunkt_router_ready_instances", "Ready instances in the table", labels=_BY)
        for key, deployment in gateway.table.deployments.items():
            tally = deployment.tally
            for status, count in tally.statuses.items():
                requests.add_metric([*key, str(status), f"{status // 100}xx"], count)
            seconds.add_metric(key, tally.seconds)
            turns.add_metric(key, tally.turns)
            handed.add_metric(key, tally.handed)
            retries.add_metric(key, tally.retries)
            for outcome, count in tally.mirrored.items():
                mirrored.add_metric([*key, outcome], count)
            ejections.add_metric(key, tally.ejections)
            in_flight.add_metric(key, deployment.in_flight)
            waiting.add_metric(key, len(deployment.waiting))
            instances.add_metric(key, len(deployment.instances))
        yield from (requests, seconds, turns, handed, retries, mirrored, ejections, in_flight, waiting, instances)
        yield GaugeMetricFamily("endpunkt_router_table_entries", "Endpoints in the table", len(gateway.table.entries))
        yield GaugeMetricFamily(
            "endpunkt_router_table_waiting",
            "Endpoints of the log that nobody has asked for since the start",
            self._waiting(),
        )
        yield GaugeMetricFamily(
            "endpunkt_router_table_read_timestamp_seconds", "When the table last took a record", self._read_at()
        )
        yield GaugeMetricFamily(
            "endpunkt_router_log_heard_timestamp_seconds",
            "When Kafka last answered; 0 before it did. Requests go by the table of then",
            self._heard_at() or 0.0,
        )
        yield GaugeMetricFamily("endpunkt_router_connections", "Clients' connections", len(gateway.clients))
