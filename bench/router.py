"""The router beside Envoy (and nginx, where it is installed): `make bench-router`.

Each proxy terminates TLS (or not), checks the key, follows a pin header, splits 90/10 over two deployments and counts
by deployment, on one core, with one worker. The load and the instances share the other core. Rounds of the proxies are
interleaved, and the median of the rounds counts. CPU time is the proxy's by process accounting.

`added_*` are latencies at half of the rate at which Envoy is saturated, in this run, open loop, minus those of the
instances without a proxy. `restore_*` is a start with 10,000 endpoints in Kafka, up to the open port, beside a consumer
that reads the same records and does nothing with them. bench/peers/envoy.lock holds Envoy, as `bench/runtime.py` says
of its peers.
"""

import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from proxies import HERE, HOST, House, envoy, nginx, ours
from restore import restored
from results import write_results
from runtime import cpu_seconds, environment

from contracts.shell.tls import server_context

ROUNDS = 5
SECONDS = 2.0
CONNECTIONS = 32
IDLE = 1000
MIB = 1 << 20
MANY = 10_000
RESTORES = 9
TARGETS = {
    "cpu_vs_envoy_tls": {"max": 0.9},
    "cpu_vs_envoy_plain": {"max": 0.9},
    "rps_vs_envoy_tls": {"min": 1.1},
    "rps_vs_envoy_plain": {"min": 1.1},
    "added_p50_vs_envoy": {"max": 1.0},
    "added_p99_vs_envoy": {"max": 1.0},
    "throughput_1mib_vs_envoy": {"min": 0.8},
    "throughput_1mib_answers_vs_envoy": {"min": 0.8},
    "idle_connection_kib": {"max": 40},
    "cpu_10k_endpoints_vs_1": {"max": 1.1},
    "restore_vs_bare_consumer": {"max": 1.3},
}


@contextmanager
def running(command: list[str], core: int, port: int, log: Path) -> Iterator[int]:
    """The pid of a process on `core`, once it listens on `port`."""
    with log.open("w") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=lambda: os.sched_setaffinity(0, {core}),
        )
    try:
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            with socket.socket() as probe:
                if not probe.connect_ex(("127.0.0.1", port)):
                    break
            time.sleep(0.05)
        else:
            raise SystemExit(f"{command[0]} does not listen:\n{log.read_text()}")
        yield process.pid
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextmanager
def loading(house: House, *arguments: object) -> Iterator[Callable[[], dict[str, float]]]:
    """A load whose connections are open; call it to have it run, and for what it measured."""
    process = subprocess.Popen(
        [sys.executable, str(HERE / "load.py"), *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {house.load_core}),
    )
    assert process.stdin is not None
    assert process.stdout is not None
    stdin, stdout = process.stdin, process.stdout

    def run() -> dict[str, float]:
        stdin.write("\n")
        stdin.flush()
        told: dict[str, float] = json.loads(stdout.readline() or "{}")
        if not told or told["bad"]:
            raise SystemExit(f"the load {arguments} got {told.get('bad', 'nothing but')} wrong answers")
        return told

    try:
        if stdout.readline() != "READY\n":
            raise SystemExit(f"the load {arguments} could not connect")
        yield run
    finally:
        process.kill()
        process.wait()


def free_port() -> int:
    """A port that nobody has."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


def resident_kib(pid: int) -> int:
    """A process's resident memory."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


class Bench:
    """Collects figures by proxy and name, a value for each round."""

    def __init__(self, house: House, commands: dict[str, Callable[[int, str], list[str]]]):
        self.house, self.commands = house, commands
        self.values: defaultdict[str, list[float]] = defaultdict(list)

    def median(self, name: str) -> float:
        """Of all rounds."""
        return statistics.median(self.values[name])

    def closed(self, who: str, scheme: str, label: str = "", command: list[str] | None = None, port: int = 0) -> None:
        """Requests as fast as they are answered."""
        port = port or free_port()
        command = command or self.commands[who](port, scheme)
        with running(command, self.house.core, port, self.house.folder / f"{who}.log") as pid:
            with loading(self.house, port, scheme, CONNECTIONS, 0.5) as warm:
                warm()
            with loading(self.house, port, scheme, CONNECTIONS, SECONDS) as load:
                before = cpu_seconds(pid)
                told = load()
                spent = cpu_seconds(pid) - before
            label = label or f"{who}_{scheme}"
            self.values[f"{label}_cpu_us"].append(spent / told["done"] * 1e6)
            self.values[f"{label}_rps"].append(told["done"] / told["seconds"])
            if label == f"{who}_tls":
                self._bodies(who, port)
                self._idle(who, port, pid)

    def _bodies(self, who: str, port: int) -> None:
        for label, request, answer in (("requests", MIB, 0), ("answers", 0, MIB)):
            with loading(self.house, port, "tls", 8, SECONDS, 0, request, answer) as load:
                told = load()
                self.values[f"{who}_mib_{label}_per_second"].append(told["done"] / told["seconds"])

    def _idle(self, who: str, port: int, pid: int) -> None:
        before = resident_kib(pid)
        with loading(self.house, port, "tls", IDLE, 0):
            self.values[f"{who}_idle_kib"].append((resident_kib(pid) - before) / IDLE)

    def open(self, who: str, rate: float) -> None:
        """Requests at even times, with TLS; `direct` is without a proxy."""
        port = self.house.blue if who == "direct" else free_port()
        if who == "direct":
            self._open(who, port, "plain", rate)
        else:
            log = self.house.folder / f"{who}.log"
            with running(self.commands[who](port, "tls"), self.house.core, port, log):
                with loading(self.house, port, "tls", CONNECTIONS, 0.5) as warm:
                    warm()
                self._open(who, port, "tls", rate)

    def _open(self, who: str, port: int, scheme: str, rate: float) -> None:
        with loading(self.house, port, scheme, CONNECTIONS, SECONDS, rate) as load:
            told = load()
            self.values[f"{who}_p50_us"].append(told["p50"])
            self.values[f"{who}_p99_us"].append(told["p99"])


def pem_of(folder: Path) -> Path:
    """A key with its certificate."""
    server_context(folder, "router", [HOST, "127.0.0.1"])
    return folder / "tls" / "router.pem"


def main() -> int:
    """Measure, print, write bench/results/router.json; 1 when a target is missed."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise SystemExit("two cores are needed: one for the proxy and one for the load")
    cache = Path(os.environ.get("ENDPUNKT_CACHE") or Path.home() / ".cache" / "endpunkt")
    binary = environment("envoy", cache).with_name("envoy")
    with tempfile.TemporaryDirectory(prefix="endpunkt-bench-") as name:
        folder = Path(name)
        house = House(cores[0], cores[-1], folder, pem_of(folder), free_port(), free_port())
        commands: dict[str, Callable[[int, str], list[str]]] = {
            "envoy": lambda port, scheme: envoy(house, port, scheme, binary),
            "ours": lambda port, scheme: ours(house, port, scheme),
        }
        if shutil.which("nginx"):
            commands["nginx"] = lambda port, scheme: nginx(house, port, scheme)
        else:
            print("  nginx is not installed here: it is left out")
        bench = Bench(house, commands)
        backend = [sys.executable, str(HERE / "backend.py"), str(house.blue), str(house.green)]
        with running(backend, house.load_core, house.green, folder / "backend.log"):
            for number in range(ROUNDS):
                for scheme in ("tls", "plain"):
                    for who in commands:
                        bench.closed(who, scheme)
                port = free_port()
                bench.closed("ours", "plain", "many", ours(house, port, "plain", MANY), port)
                for who in ("direct", *commands):
                    bench.open(who, bench.median("envoy_tls_rps") / 2)
                told = ", ".join(
                    f"{who} {bench.values[f'{who}_tls_rps'][-1]:.0f}/s {bench.values[f'{who}_tls_cpu_us'][-1]:.1f} µs"
                    f" ({bench.values[f'{who}_plain_cpu_us'][-1]:.1f} plain)"
                    for who in commands
                )
                print(f"  round {number + 1} of {ROUNDS}: {told}", flush=True)
        for who, took in restored(folder, house.core, house.load_core, MANY, RESTORES).items():
            bench.values[f"restore_{who}_ms"] += [seconds * 1000 for seconds in took]
    return report(bench)


def report(bench: Bench) -> int:
    """Ratios to Envoy, and every figure."""
    m = bench.median

    def added(who: str, what: str) -> float:
        return m(f"{who}_{what}_us") - m(f"direct_{what}_us")

    ratios = {
        **{f"cpu_vs_envoy_{each}": m(f"ours_{each}_cpu_us") / m(f"envoy_{each}_cpu_us") for each in ("tls", "plain")},
        **{f"rps_vs_envoy_{each}": m(f"ours_{each}_rps") / m(f"envoy_{each}_rps") for each in ("tls", "plain")},
        **{f"added_{each}_vs_envoy": added("ours", each) / added("envoy", each) for each in ("p50", "p99")},
        **{
            f"throughput_1mib{name}_vs_envoy": m(f"ours_mib_{each}_per_second") / m(f"envoy_mib_{each}_per_second")
            for name, each in (("", "requests"), ("_answers", "answers"))
        },
        "cpu_10k_endpoints_vs_1": m("many_cpu_us") / m("ours_plain_cpu_us"),
        "restore_vs_bare_consumer": m("restore_router_ms") / m("restore_bare_ms"),
    }
    met = write_results(
        "router",
        ratios={name: round(value, 2) for name, value in ratios.items()},
        figures={
            "idle_connection_kib": round(m("ours_idle_kib"), 1),
            **{name: round(m(name), 1) for name in sorted(bench.values)},
        },
        targets=TARGETS,
    )
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
