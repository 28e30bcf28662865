"""Instances as processes of this machine: one `python -m inference_server` each.

The provisioner binds the port and passes the socket, so an address is known before the process runs and cannot be
taken by another. An instance outlives the provisioner: it leads a session of its own, writes to a file, and is found
again by its record. Its end is seen through a pidfd, at once, whether it is a child or was adopted.

What isolates an instance here: an environment of only what it is given, a session, a working folder of its own. It
runs as the provisioner's user, root included, and its memory and CPU are not limited; user code that is not trusted
needs a machine, or a compute, of its own.
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from contracts.artifacts import artifact_folder, artifact_path
from contracts.catalog import Catalog
from contracts.messages import DeploymentDesired, OnlineDeploymentSpec
from contracts.shell.processes import ProcessIdentity
from provisioner.compute.records import InstanceFolder, InstanceRecord, drain_seconds, folders
from provisioner.core.failures import Exit
from provisioner.core.lifecycle import Place

log = logging.getLogger(__name__)

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


class NotStarted(RuntimeError):
    """An instance could not be started; the text says why."""


class InstanceProcess:
    """One instance that runs. `on_exit` is called once, on the event loop, when its process has ended."""

    def __init__(self, record: InstanceRecord, folder: InstanceFolder, child: "subprocess.Popen[bytes] | None" = None):
        self.record = record
        self.folder = folder
        self._child = child
        self._pidfd = -1

    def watch(self, on_exit: Callable[[Exit], None]) -> None:
        """Begin to watch for its end. Raises ProcessLookupError when it is gone already and was no child."""
        self._pidfd = os.pidfd_open(self.record.pid)
        asyncio.get_running_loop().add_reader(self._pidfd, self._ended, on_exit)

    def terminate(self) -> None:
        """Ask it to end: it finishes what it has in hand."""
        self.record = self.record.model_copy(update={"stopping": True})
        with contextlib.suppress(OSError):
            # Only so that a provisioner which finds it later knows that its end is no accident.
            self.folder.write(self.record)
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGTERM)

    def kill(self) -> None:
        """End it with everything that it started (in its session)."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.record.pid, signal.SIGKILL)

    def _ended(self, on_exit: Callable[[Exit], None]) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        # Children of user code go with it. A child of ours is not reaped yet, so the group's number is still its own.
        self.kill()
        code = self._child.wait() if self._child is not None else None
        os.close(self._pidfd)
        on_exit(Exit(code))


class ProcessCompute:
    """Starts instances under <home>/instances and finds those that an earlier provisioner started."""

    def __init__(self, home: Path, artifacts: Path, catalog: Catalog):
        self._root = home.resolve() / "instances"
        self._failed = home.resolve() / "logs" / "deployments"
        self._artifacts = artifacts.resolve()
        self._catalog = catalog

    def start(self, id: str, place: Place, template: DeploymentDesired) -> InstanceProcess:
        """Start an instance. Raises NotStarted, with everything undone."""
        folder = InstanceFolder(self._root / id)
        child: subprocess.Popen[bytes] | None = None
        try:
            environment = self._environment(folder, template)
            folder.make()
            with socket.socket() as listener, folder.console.open("ab") as console:
                listener.bind(("127.0.0.1", 0))
                host, port = listener.getsockname()
                started_at = datetime.now(UTC)
                child = subprocess.Popen(
                    [sys.executable, "-m", "inference_server", "--fd", str(listener.fileno())],
                    pass_fds=[listener.fileno()],
                    env=environment,
                    cwd=folder.path,
                    stdin=subprocess.DEVNULL,
                    stdout=console,
                    stderr=console,
                    start_new_session=True,
                    umask=0o077,
                )
            record = InstanceRecord(
                id=id,
                place=place,
                template=template,
                address=f"{host}:{port}",
                started_at=started_at,
                process=_identity(child.pid),
            )
            folder.write(record)
        except OSError as error:
            if child is not None:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
            folder.remove()
            raise NotStarted(str(error)) from error
        return InstanceProcess(record, folder, child)

    def adopt(self) -> list[InstanceProcess]:
        """The instances that still run. Those that do not are cleaned up, and processes without a record ended."""
        adopted = []
        for folder in folders(self._root):
            record = folder.read()
            if record is not None and record.process.alive:
                adopted.append(InstanceProcess(record, folder))
            else:
                folder.remove()
        self._end_strays({process.record.pid for process in adopted})
        return adopted

    def failed_console(self, endpoint: str, deployment: str) -> Path:
        """Where the output of a deployment's last failed instance is kept."""
        return self._failed / f"{endpoint}.{deployment}.log"

    def _environment(self, folder: InstanceFolder, template: DeploymentDesired) -> dict[str, str]:
        """Everything that the process is given. Nothing of the provisioner's own environment is in it."""
        spec = template.spec
        assert isinstance(spec, OnlineDeploymentSpec)
        kind = self._catalog.instance_types.get(spec.instance_type)
        if kind is None:
            raise NotStarted(f"'{spec.instance_type}' is no longer in the catalogue: put the deployment with another")
        threads = max(1, int(kind.vcpus))
        code = artifact_path(self._artifacts, template.code)
        for artifact in (template.code, template.model):
            if artifact is not None and not artifact_path(self._artifacts, artifact).exists():
                missing = artifact_path(self._artifacts, artifact)
                raise NotStarted(f"{missing} is no longer in the artifact store: put the deployment again")
        environment = {
            "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(folder.path),
            "LANG": "C.UTF-8",
            **dict.fromkeys(_THREADS, str(threads)),
            **spec.environment_variables,
            "AML_APP_ROOT": str(code),
            "AZUREML_ENTRY_SCRIPT": spec.code_configuration.scoring_script,
            "SCORING_TIMEOUT_MS": str(spec.request_settings.request_timeout_ms),
            "ENDPUNKT_CONCURRENCY": str(spec.request_settings.max_concurrent_requests_per_instance),
            "ENDPUNKT_STATUS_FILE": str(folder.status_file),
            "ENDPUNKT_DRAIN_SECONDS": str(drain_seconds(spec)),
        }
        if template.model is not None:
            environment["AZUREML_MODEL_DIR"] = str(artifact_folder(self._artifacts, template.model))
        return environment

    def _end_strays(self, adopted: set[int]) -> None:
        """End the inference servers that run in our folders but have no record: the provisioner was killed between
        starting one and writing it down."""
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) in adopted:
                continue
            with contextlib.suppress(OSError):
                ours = Path(os.readlink(entry / "cwd")).parent == self._root
                leads = os.getsid(int(entry.name)) == int(entry.name)
                if ours and leads and b"inference_server" in (entry / "cmdline").read_bytes().split(b"\0"):
                    log.warning("ending process %s, an instance without a record", entry.name)
                    os.killpg(int(entry.name), signal.SIGKILL)


def _identity(child: int) -> ProcessIdentity:
    """Which process our child is. One that ended at once has no identity any more: then one that nobody has."""
    return ProcessIdentity.of(child) or ProcessIdentity(child, 0, "")
