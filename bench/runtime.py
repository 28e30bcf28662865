"""Our inference server beside Azure's and KServe's, with the same script: `make bench-runtime`.

Each server runs one worker on one core and the load comes from another. Rounds of the servers are interleaved, so that
what else the machine does meets all of them, and the median of the rounds counts. CPU time is that of the server's
processes by process accounting; `run()` alone is measured in our server's environment on the server's core.

Everyone has the scikit-learn of Azure's curated environment "sklearn-1.5". A newer one makes run() dearer, for everyone
alike: with 1.9, predict() of two rows takes twice as long, most of it in checks of its input.

What each environment holds is locked in bench/peers: `uv pip compile --universal --python-version 3.11
--generate-hashes --no-emit-index-url --no-header bench/peers/NAME.in -o bench/peers/NAME.lock` renews one.
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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import uv
from load import LoadError, load, request
from results import write_results

PEERS = Path(__file__).with_name("peers")
OURS = Path(__file__).parents[1] / "services" / "inference-server" / "src"
ROUNDS = 7
SECONDS = 2.0
WARM_UP_SECONDS = 0.5
CONNECTIONS = 8
START_SECONDS = 60.0
TARGETS = {
    "rps_vs_azureml": {"min": 5},
    "rps_vs_kserve": {"min": 3.5},
    "overhead_us_per_request": {"max": 45},  # where run() alone takes 33 to 35, see `overhead_vs_run`
}

ROWS = [
    [0.038, 0.051, 0.062, 0.022, -0.044, -0.035, -0.043, -0.003, 0.02, -0.018],
    [-0.002, -0.045, -0.051, -0.026, -0.008, -0.019, 0.074, -0.039, -0.068, -0.092],
]
BODY = json.dumps({"instances": ROWS}).encode()


@dataclass(frozen=True)
class Contender:
    environment: str  # bench/peers/<environment>.lock
    command: Callable[[Path, int], list[str]]
    path: str = "/score"


CONTENDERS = {
    "endpunkt": Contender(
        "endpunkt", lambda python, port: [str(python), "-m", "inference_server", "--port", str(port)]
    ),
    "azureml": Contender(
        "azureml",
        lambda python, port: [
            *(str(python.with_name("azmlinfsrv")), "--entry_script", str(PEERS / "score.py")),
            *("--model_dir", str(PEERS), "--port", str(port), "--health_port", str(port), "--worker_count", "1"),
        ],
    ),
    "kserve": Contender(
        "kserve",
        lambda python, port: [str(python), str(PEERS / "kserve_server.py"), str(port)],
        "/v1/models/diabetes:predict",
    ),
}


def environment(name: str, cache: Path) -> Path:
    """The Python of a virtual environment with what bench/peers/<name>.lock holds, made where it is missing."""
    lock, folder = PEERS / f"{name}.lock", cache / "peers" / name
    python = folder / "bin" / "python"
    if not (folder / "lock").exists() or (folder / "lock").read_bytes() != lock.read_bytes():
        tool = uv.find_uv_bin()
        subprocess.run([tool, "venv", "--quiet", "--clear", "--python", sys.executable, folder], check=True)
        subprocess.run([tool, "pip", "sync", "--quiet", "--python", python, "--require-hashes", lock], check=True)
        shutil.copy(lock, folder / "lock")
    return python


@contextmanager
def running(contender: Contender, python: Path, core: int, work: Path) -> Iterator[tuple[int, int]]:
    """The server's pid and port, once it answers."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    variables = {
        **{name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")},
        "AML_APP_ROOT": str(PEERS),
        "AZUREML_ENTRY_SCRIPT": "score.py",
        "PYTHONPATH": str(OURS),
    }
    log = work / f"{contender.environment}.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            contender.command(python, port),
            env=variables,
            cwd=work,
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=lambda: os.sched_setaffinity(0, {core}),
        )
    try:
        _wait(port, contender.path, process, log)
        yield process.pid, port
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _wait(port: int, path: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            if load(port, request(path, BODY), 0.5, 1)[0]:
                return
        except (OSError, LoadError):
            time.sleep(0.2)
    raise SystemExit(f"{' '.join(map(str, process.args))} did not start:\n{log.read_text()}")


def tree(pid: int) -> list[int]:
    """A process and its descendants."""
    children = [
        int(child) for listing in Path(f"/proc/{pid}/task").glob("*/children") for child in listing.read_text().split()
    ]
    return [pid, *(grandchild for child in children for grandchild in tree(child))]


def cpu_seconds(pid: int) -> float:
    """User and system time of the process tree, of children that have ended too."""
    ticks = 0
    for member in tree(pid):
        fields = Path(f"/proc/{member}/stat").read_text().rpartition(") ")[2].split()
        ticks += sum(int(field) for field in fields[11:15])
    return ticks / os.sysconf("SC_CLK_TCK")


def run_alone(python: Path, core: int) -> float:
    """CPU microseconds of one run()."""
    command = [python, PEERS / "alone.py", str(SECONDS / 2), BODY.decode()]
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, preexec_fn=lambda: os.sched_setaffinity(0, {core})
    )
    return float(done.stdout)


def main() -> int:
    """Measure, print, write bench/results/runtime.json; 1 when a target is missed."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise SystemExit("two cores are needed: one for the server and one for the load")
    server_core, load_core = cores[0], cores[-1]
    os.sched_setaffinity(0, {load_core})
    cache = Path(os.environ.get("ENDPUNKT_CACHE") or Path.home() / ".cache" / "endpunkt")
    pythons = {name: environment(contender.environment, cache) for name, contender in CONTENDERS.items()}
    rates: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    costs: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    alone: list[float] = []
    with tempfile.TemporaryDirectory(prefix="endpunkt-bench-") as folder:
        for number in range(ROUNDS):
            for name, contender in CONTENDERS.items():
                with running(contender, pythons[name], server_core, Path(folder)) as (pid, port):
                    data = request(contender.path, BODY)
                    load(port, data, WARM_UP_SECONDS, CONNECTIONS)
                    before = cpu_seconds(pid)
                    done, seconds = load(port, data, SECONDS, CONNECTIONS)
                    costs[name].append((cpu_seconds(pid) - before) / done * 1e6)
                    rates[name].append(done / seconds)
            alone.append(run_alone(pythons["endpunkt"], server_core))
            told = ", ".join(f"{name} {rates[name][-1]:.0f}/s {costs[name][-1]:.0f} µs" for name in CONTENDERS)
            print(f"  round {number + 1} of {ROUNDS}: {told}, run() alone {alone[-1]:.0f} µs", flush=True)
    rate = {name: statistics.median(values) for name, values in rates.items()}
    cost = {name: statistics.median(values) for name, values in costs.items()}
    run_us = statistics.median(alone)
    met = write_results(
        "runtime",
        ratios={
            "rps_vs_azureml": round(rate["endpunkt"] / rate["azureml"], 2),
            "rps_vs_kserve": round(rate["endpunkt"] / rate["kserve"], 2),
            "overhead_vs_run": round((cost["endpunkt"] - run_us) / run_us, 2),
        },
        figures={
            "overhead_us_per_request": round(cost["endpunkt"] - run_us, 1),
            "run_alone_us": round(run_us, 1),
            **{f"{name}_rps": round(value) for name, value in rate.items()},
            **{f"{name}_cpu_us_per_request": round(value, 1) for name, value in cost.items()},
        },
        targets=TARGETS,
    )
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
