"""One embedded broker, with everything that it keeps in one data directory.

kafka.pid           the process that runs on this directory, while one does (see Running)
kafka.port          the port of its last start: the next one uses it again, so that addresses stay valid
kafka.log           Kafka's own log of the last start (rolled, see infra/kafka/log4j2.properties)
kafka.out           what the JVM printed in the last start
server.properties   infra/kafka/server.properties and the addresses
topics/             the records
"""

import base64
import json
import logging
import os
import re
import subprocess
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from contracts.shell.files import locked, write_atomically
from contracts.shell.processes import ProcessIdentity
from endpunkt_infra.kafka import CONFIG, KafkaUnavailableError, jars, jvm, probe
from endpunkt_infra.kafka.ports import HOST, free_port, is_free

# What the JVM sees of our environment: no JAVA_TOOL_OPTIONS, no secrets.
_ENVIRONMENT = ("PATH", "HOME", "LANG", "TZ")
# A line of a log that says what went wrong: an error, or the head of a stack trace.
_TELLING = re.compile(r" (ERROR|FATAL) |^(Caused by: )?[\w.$]+(Exception|Error)\b|^Error")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Running:
    """The content of kafka.pid. `recording`: the start-up cache that the process writes when it exits, or ""."""

    process: ProcessIdentity
    port: int
    recording: str

    @classmethod
    def read(cls, file: Path) -> "Running | None":
        """None when there is no such file, or not one of ours."""
        try:
            content = json.loads(file.read_text())
            return cls(ProcessIdentity(**content["process"]), content["port"], content["recording"])
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError):
            log.warning("%s is not a pid file of ours and is ignored", file)
            return None


class Broker:
    """The broker of one data directory. Any number of these objects, in any processes, may speak of the same one."""

    def __init__(
        self,
        data_dir: Path,
        port: int = 0,
        *,
        secured: Mapping[str, int] | None = None,
        properties: Mapping[str, str] | None = None,
        format_options: Sequence[str] = (),
    ) -> None:
        """`port` 0: that of the last start on this directory, else a free one.

        `secured`: further listeners beside the plain one, the port of each by its protocol (such as SASL_SSL), with
        the `properties` that they need. `format_options` are for Kafka's own format command, such as --add-scram.
        """
        self.data_dir = data_dir.resolve()
        self._wanted_port = port
        self._secured = dict(secured or {})
        self._properties = dict(properties or {})
        self._format_options = tuple(format_options)
        self._pid_file = self.data_dir / "kafka.pid"
        self._port_file = self.data_dir / "kafka.port"
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> Running | None:
        """The process that runs on this directory now, if one does."""
        running = Running.read(self._pid_file)
        return running if running and running.process.alive else None

    @property
    def is_running(self) -> bool:
        return self.running is not None

    @property
    def last_address(self) -> str | None:
        """The bootstrap address of the last start on this directory; None when there was none."""
        try:
            return f"{HOST}:{int(self._port_file.read_text())}"
        except (FileNotFoundError, ValueError):
            return None

    def start(self, timeout: float = 60.0) -> str:
        """Start, unless it runs already; return the bootstrap address once it answers.

        Raises KafkaUnavailableError when it does not answer within `timeout` seconds (downloads not counted).
        """
        self.data_dir.mkdir(parents=True, exist_ok=True)
        with locked(self.data_dir / "kafka.lock"):
            if running := self.running:
                if self._wanted_port not in (0, running.port):
                    log.warning("Kafka runs already, on port %d; stop it first to change that", running.port)
                self._await_answer(running, timeout)
            else:
                self._clear_up(complete=False)
                running = self._launch(self._choose_port())
                try:
                    self._await_answer(running, timeout)
                except BaseException:
                    running.process.terminate(patience=5.0)
                    self._clear_up(complete=False)
                    raise
                write_atomically(self._port_file, str(running.port).encode())
            return f"{HOST}:{running.port}"

    def stop(self, timeout: float = 60.0) -> bool:
        """Stop it: SIGTERM, SIGKILL after `timeout` seconds. False when it did not run."""
        if not self.data_dir.is_dir():
            return False
        with locked(self.data_dir / "kafka.lock"):
            running = self.running
            if running and running.recording:
                log.info("Kafka stops; this once it writes the cache that makes its next start faster")
            in_order = running.process.terminate(timeout) if running else False
            if running and not in_order:
                log.warning("Kafka did not stop within %.0f s and was killed", timeout)
            self._clear_up(complete=in_order)
            return running is not None

    def _clear_up(self, complete: bool) -> None:
        """Forget a process that is gone. `complete`: it exited in good order, and so wrote all that it meant to."""
        gone = Running.read(self._pid_file)
        if self._child and self._child.poll() is not None:  # our own child leaves no zombie
            self._child = None
        if gone and gone.recording:
            jvm.settle(Path(gone.recording), complete)
        self._pid_file.unlink(missing_ok=True)

    def _choose_port(self) -> int:
        if self._wanted_port:
            if not is_free(self._wanted_port):
                raise KafkaUnavailableError(
                    f"{HOST}:{self._wanted_port} is taken by another process; end that one, or choose another port"
                )
            return self._wanted_port
        try:
            last = int(self._port_file.read_text())
        except (FileNotFoundError, ValueError):
            return free_port()
        if is_free(last):
            return last
        log.warning("%s:%d, the address of the last start, is taken by another process; choosing anew", HOST, last)
        return free_port()

    def _launch(self, port: int) -> Running:
        installation = jars.install()
        properties = self._write_properties(port)
        environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        cache = jvm.start_up_cache(installation)
        options = (
            *jvm.using(cache),
            f"-Dlog4j2.configurationFile={CONFIG / 'log4j2.properties'}",
            f"-Dendpunkt.kafka.log={self.data_dir / 'kafka.log'}",
        )
        if not (self.data_dir / "topics" / "meta.properties").exists():
            arguments = ("format", "--cluster-id", new_cluster_id(), "--config", str(properties), *self._format_options)
            formatted = subprocess.run(
                jvm.command(installation, options, "kafka.tools.StorageTool", *arguments),
                cwd=self.data_dir,
                env=environment,
                capture_output=True,
                text=True,
            )
            if formatted.returncode != 0:
                said = (formatted.stderr or formatted.stdout).strip()
                raise KafkaUnavailableError(f"{self.data_dir / 'topics'} cannot be formatted: {said}")
        recording = "" if jvm.using(cache) else str(jvm.new_recording(cache))
        if recording:
            options += (f"-XX:AOTCacheOutput={recording}",)
        with (self.data_dir / "kafka.out").open("wb") as output:
            self._child = subprocess.Popen(
                jvm.command(installation, options, "kafka.Kafka", str(properties)),
                cwd=self.data_dir,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # a Ctrl-C at the terminal is not for it
            )
        process = ProcessIdentity.of(self._child.pid)
        if process is None:
            raise KafkaUnavailableError(f"Kafka ended at once. {self._last_words()}")
        running = Running(process, port, recording)
        write_atomically(self._pid_file, json.dumps(asdict(running)).encode())
        return running

    def _write_properties(self, port: int) -> Path:
        controller = free_port(besides=port)
        offered = {"PLAINTEXT": port, **self._secured}
        listeners = ",".join(f"{protocol}://{HOST}:{number}" for protocol, number in offered.items())
        protocols = ",".join(f"{protocol}:{protocol}" for protocol in offered)
        lines = {
            "listeners": f"{listeners},CONTROLLER://{HOST}:{controller}",
            "advertised.listeners": listeners,
            "listener.security.protocol.map": f"{protocols},CONTROLLER:PLAINTEXT",
            "controller.quorum.voters": f"1@{HOST}:{controller}",
            "log.dirs": str(self.data_dir / "topics"),
            **self._properties,
        }
        file = self.data_dir / "server.properties"
        # Of a name that comes twice, the last counts.
        file.write_text(
            (CONFIG / "server.properties").read_text()
            + "".join(f"\n{name}={value}" for name, value in lines.items())
            + "\n"
        )
        return file

    def _await_answer(self, running: Running, timeout: float) -> None:
        """Return once this broker, not a stranger on its port, serves requests."""
        cluster_id = self._cluster_id()
        deadline = time.monotonic() + timeout
        while running.process.alive:
            answer = probe.ask(HOST, running.port)
            if answer and answer.cluster_id != cluster_id:
                raise KafkaUnavailableError(
                    f"{HOST}:{running.port} is answered by another Kafka, of cluster {answer.cluster_id} "
                    f"where ours is {cluster_id}; end that one, or choose another port"
                )
            if answer and answer.brokers:
                return
            if time.monotonic() > deadline:
                raise KafkaUnavailableError(f"Kafka did not answer within {timeout:.0f} s. {self._last_words()}")
            time.sleep(0.03)
        raise KafkaUnavailableError(f"Kafka ended before it answered. {self._last_words()}")

    def _cluster_id(self) -> str:
        lines = (self.data_dir / "topics" / "meta.properties").read_text().splitlines()
        return next(line.partition("=")[2] for line in lines if line.startswith("cluster.id="))

    def _last_words(self) -> str:
        """Where its logs are, and their last errors."""
        lines = [
            line
            for file in (self.data_dir / "kafka.out", self.data_dir / "kafka.log")
            if file.exists()
            for line in file.read_text(errors="replace").splitlines()
            if _TELLING.search(line)
        ]
        return "\n".join([f"See kafka.log and kafka.out in {self.data_dir}", *lines[-6:]])


def new_cluster_id() -> str:
    """A random id in Kafka's form: 16 bytes in URL-safe Base64. Not with a leading "-", which reads as an option."""
    while (text := base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")).startswith("-"):
        continue
    return text
