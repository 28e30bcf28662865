"""Instances as processes of this machine: one `python -m inference_server` each, within what `isolation` can do.

The provisioner binds the port and passes the socket, so an address is known before the process runs and cannot be
taken by another. An instance outlives the provisioner: it leads a session of its own, writes to a file, and is found
again by its record. Its end is seen through a pidfd, at once, whether it is a child or was adopted, and takes
everything along that it started.
"""

import asyncio
import contextlib
import logging
import os
import signal
import subprocess
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from contracts.catalog import Catalog
from contracts.messages import DeploymentDesired, OnlineDeploymentSpec
from contracts.shell.processes import ProcessIdentity
from provisioner.compute.collected import fetch
from provisioner.compute.interpreter import command
from provisioner.compute.isolation import Isolation, Room, launcher
from provisioner.compute.limits import Limits, limits_of
from provisioner.compute.ports import Ports
from provisioner.compute.prepared import Prepared
from provisioner.compute.records import InstanceFolder, InstanceRecord, folders
from provisioner.compute.use import Sessions, Use
from provisioner.compute.users import USERS, kill_all_of
from provisioner.compute.variables import variables_of
from provisioner.core.failures import Exit, not_started, why_not_started
from provisioner.core.lifecycle import Place

log = logging.getLogger(__name__)

KEPT_CONSOLES = 3
"""Of how many ended instances of a deployment the output is kept."""

_HOST = "127.0.0.1"


class NotStarted(RuntimeError):
    """An instance could not be started; the text says why, `error` what its deployment is told."""

    def __init__(self, reason: str, code: str = "InternalServerError"):
        super().__init__(reason)
        self.error = not_started(reason, code)


class InstanceProcess:
    """One instance that runs. `on_exit` is called once, on the event loop, when its process has ended."""

    def __init__(self, record: InstanceRecord, folder: InstanceFolder, child: "subprocess.Popen[bytes] | None" = None):
        self.record = record
        self.folder = folder
        self._child = child
        self._pidfd = -1
        self._out_of_memory = False

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
        """End it with everything that it started."""
        # Also when it has not joined its group or become its user yet.
        self.record.process.send(signal.SIGKILL)
        self._kill_the_rest()

    def use(self, sessions: Sessions) -> Use | None:
        """What it uses, all its processes together; None when it is gone."""
        group = self.record.group
        if group is not None and (counted := group.use()) is not None:
            return counted
        return sessions.use(self.record.pid, self.record.user)

    def exhausted(self) -> None:
        """It uses more memory than its type has, and no kernel ends it for that."""
        self._out_of_memory = True
        self.kill()

    def _kill_the_rest(self) -> None:
        if self.record.group is not None:
            self.record.group.kill()
        elif self.record.user is not None:
            kill_all_of(self.record.user)
        else:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.record.pid, signal.SIGKILL)

    def _ended(self, on_exit: Callable[[Exit], None]) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        # A child of ours is not reaped yet, so its session's number is still its own.
        self._kill_the_rest()
        code = self._child.wait() if self._child is not None else None
        os.close(self._pidfd)
        group = self.record.group
        exhausted = self._out_of_memory or (group is not None and group.out_of_memory())
        on_exit(Exit(code, exhausted, self.record.memory_bytes, group.peak_bytes() if group is not None else None))


class ProcessCompute:
    """Starts instances under <home>/instances and finds those that an earlier provisioner started."""

    def __init__(self, home: Path, catalog: Catalog, users: range = USERS):
        self._home = home.resolve()
        self._root = self._home / "instances"
        self._kept = self._home / "logs" / "deployments"
        self._catalog = catalog
        self._ports = Ports()
        self.isolation = Isolation(self._home, users)

    def enforcement(self) -> list[str]:
        """What keeps instances apart and bounded here, and what does not, as sentences for people."""
        return self.isolation.enforcement()

    def limits(self, spec: OnlineDeploymentSpec) -> Limits | None:
        """What an instance may use; None when its type is no longer in the catalogue."""
        kind = self._catalog.instance_types.get(spec.instance_type)
        return limits_of(kind, os.cpu_count() or 1) if kind is not None else None

    def start(
        self, id: str, place: Place, template: DeploymentDesired, prepared: Prepared, variables: Mapping[str, str]
    ) -> InstanceProcess:
        """Start an instance; `variables` are the deployment's, with secrets. Raises NotStarted, with everything
        undone."""
        spec = template.spec
        assert isinstance(spec, OnlineDeploymentSpec)
        kind, limits = self._catalog.instance_types.get(spec.instance_type), self.limits(spec)
        if kind is None or limits is None:
            reason = f"'{spec.instance_type}' is no longer in the catalogue: put the deployment with another"
            raise NotStarted(reason, "InvalidDeploymentSpec")
        for path in (prepared.python, prepared.runtime, prepared.code, prepared.model):
            if path is not None and not path.exists():
                raise NotStarted(f"{path} is no longer there: put the deployment again", "ResourceNotFound")
        folder = InstanceFolder(self._root / id)
        child: subprocess.Popen[bytes] | None = None
        room: Room | None = None
        try:
            room = self.isolation.room(id, limits, prepared)
            folder.make(room.user)
            environment = variables_of(place, spec, kind.vcpus, prepared, variables, folder)
            with self._ports.bind(_HOST) as listener, folder.console.open("ab") as console:
                port = listener.getsockname()[1]
                argv = command(prepared.python, listener.fileno())
                told = self.isolation.instructions(room, limits, prepared, folder, argv, environment)
                launch, descriptor = launcher(told)
                started_at = datetime.now(UTC)
                try:
                    child = subprocess.Popen(
                        launch,
                        pass_fds=[listener.fileno(), descriptor],
                        env={},
                        cwd="/",
                        stdin=subprocess.DEVNULL,
                        stdout=console,
                        stderr=console,
                        start_new_session=True,
                    )
                finally:
                    os.close(descriptor)
            record = InstanceRecord(
                id=id,
                place=place,
                template=template,
                address=f"{_HOST}:{port}",
                started_at=started_at,
                process=_identity(child.pid),
                memory_bytes=limits.memory_bytes,
                user=room.user,
                group=room.group,
            )
            folder.write(record)
        except OSError as error:
            if child is not None:
                child.kill()
                child.wait()
            if room is not None:
                if room.group is not None:
                    room.group.kill()
                self.isolation.give_back(room)
            folder.remove()
            raise NotStarted(str(error), why_not_started(error.errno)) from error
        return InstanceProcess(record, folder, child)

    def adopt(self) -> list[InstanceProcess]:
        """The instances that still run. What those that do not left is cleaned up, and processes without a record are
        ended."""
        adopted = []
        for folder in folders(self._root):
            record = folder.read()
            if record is None:
                _end_owner(folder, self.isolation)
                folder.remove()
            elif record.process.alive:
                adopted.append(InstanceProcess(record, folder))
                self._ports.remember(int(record.address.rpartition(":")[2]))
                if record.user is not None:
                    self.isolation.users.keep(record.user)
            else:
                ended = InstanceProcess(record, folder)
                if record.group is not None or record.user is not None:
                    ended.kill()
                self.discard(ended, keep_console=True)
        self._end_strays({process.record.pid for process in adopted}, {process.record.id for process in adopted})
        return adopted

    def fetch_collected(self, process: InstanceProcess, ended: bool = False) -> int:
        """Move the data that an instance has collected to <home>/data: what is finished, and once it has ended the rest
        too. How many files that were. Blocks."""
        record = process.record
        if record.spec.data_collector is None:
            return 0
        place = record.place
        return fetch(process.folder.collected, place.endpoint, place.deployment, self._home / "data", ended)

    def discard(self, process: InstanceProcess, keep_console: bool) -> None:
        """Clear up after an instance that has ended, with the output kept or not. Blocks for as long as there are
        files: call it in a thread."""
        record = process.record
        while self.fetch_collected(process, ended=True):
            pass
        if keep_console:
            kept = self._kept_folder(record.place.endpoint, record.place.deployment)
            process.folder.keep_console(kept / f"{record.id}.log")
            for older in self.kept_consoles(record.place.endpoint, record.place.deployment)[KEPT_CONSOLES:]:
                older.unlink(missing_ok=True)
        process.folder.remove()
        self.isolation.give_back(Room(record.user, record.group))

    def close(self) -> None:
        """No more instances are started."""
        self.isolation.groups.close()

    def kept_consoles(self, endpoint: str, deployment: str) -> list[Path]:
        """The kept output of instances that have ended, newest first: <instance>.log each."""
        found = self._kept_folder(endpoint, deployment).glob("*.log")
        return sorted(found, key=_changed_at, reverse=True)

    def forget_consoles(self, endpoint: str, deployment: str) -> None:
        """The deployment is gone: so is what its instances said."""
        folder = self._kept_folder(endpoint, deployment)
        for path in self.kept_consoles(endpoint, deployment):
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            folder.rmdir()

    def _kept_folder(self, endpoint: str, deployment: str) -> Path:
        return self._kept / f"{endpoint}.{deployment}"

    def _end_strays(self, pids: set[int], ids: set[str]) -> None:
        """End what runs without a record: the provisioner was killed between starting it and writing that down."""
        for id in self.isolation.groups.instances():
            if id not in ids:
                stray = self.isolation.groups.group(id)
                stray.kill()
                stray.remove()
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) in pids:
                continue
            with contextlib.suppress(OSError):
                ours = Path(os.readlink(entry / "cwd")).parent.parent == self._root
                leads = os.getsid(int(entry.name)) == int(entry.name)
                if ours and leads and b"inference_server" in (entry / "cmdline").read_bytes().split(b"\0"):
                    log.warning("ending process %s, an instance without a record", entry.name)
                    os.killpg(int(entry.name), signal.SIGKILL)


def _end_owner(folder: InstanceFolder, isolation: Isolation) -> None:
    """End the processes of the user to whom an instance's folder was given."""
    with contextlib.suppress(OSError):
        if isolation.switches and (owner := folder.work.stat().st_uid) in isolation.users:
            kill_all_of(owner)


def _changed_at(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:  # meanwhile it was one too many
        return 0


def _identity(child: int) -> ProcessIdentity:
    """Which process our child is. One that ended at once has no identity any more: then one that nobody has."""
    return ProcessIdentity.of(child) or ProcessIdentity(child, 0, "")
