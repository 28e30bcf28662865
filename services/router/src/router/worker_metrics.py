"""The metrics of several router processes as one page: each sample with the label `process`.

Not their sums: a process that is replaced counts from 0 again, which Prometheus sees in its own series and could not
see in a sum. `sum without (process) (rate(...))` adds up what is to be added up.
"""

from collections.abc import Iterator, Sequence
from http.client import HTTPConnection, HTTPException
from typing import Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

_ANSWER_SECONDS = 1.0


class Process(Protocol):
    """A process as this module sees it."""

    number: int
    deaths: int

    @property
    def ready(self) -> bool:
        """Whether it answers requests."""

    def health_port(self) -> int | None:
        """Where its metrics are."""


class WorkerMetrics(Collector):
    """Asks each of `processes` when it is asked itself; one that does not answer is left out."""

    def __init__(self, processes: Sequence[Process], host: str):
        self._processes, self._host = processes, host

    def describe(self) -> list[Metric]:
        """Nothing is asked to learn what there is."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Each metric with the samples of all. Blocks, shortly: who asks has nothing else to do."""
        up = GaugeMetricFamily("endpunkt_router_process_ready", "Whether it answers requests", labels=["process"])
        deaths = CounterMetricFamily("endpunkt_router_process_deaths", "Ends that nobody asked for", labels=["process"])
        merged: dict[str, Metric] = {}
        for process in self._processes:
            number = str(process.number)
            up.add_metric([number], process.ready)
            deaths.add_metric([number], process.deaths)
            for family in text_string_to_metric_families(self._page(process)):
                into = merged.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                for sample in family.samples:
                    into.add_sample(sample.name, {**sample.labels, "process": number}, sample.value)
        yield from (up, deaths, *merged.values())

    def _page(self, process: Process) -> str:
        port = process.health_port()
        if port is None:
            return ""
        connection = HTTPConnection(self._host, port, timeout=_ANSWER_SECONDS)
        try:
            connection.request("GET", "/metrics")
            return connection.getresponse().read().decode()
        except (OSError, HTTPException):
            return ""
        finally:
            connection.close()
