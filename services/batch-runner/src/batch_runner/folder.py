"""How a job lies on disk, under <home>/jobs/<job>:

    lock              held by the process that runs the job
    plan.json         what it runs
    segments/         one file for each settled mini-batch; its name says what became of it (see `judge.Segment`)
    logs/             job_progress_overview.txt, preparation.txt (files and environment), and user/ with error.txt and
                      what the workers printed
    output/           the output, when the job names no other place

Each file appears whole or not at all, so the listing of `segments` is the ledger of what is done. The output is built
in a folder beside its place and moved there in one step.
"""

import fcntl
import hashlib
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from batch_runner.judge import Segment, segments
from batch_runner.lifecycle import Disk
from batch_runner.plan import Plan
from contracts.shell.files import write_atomically

log = logging.getLogger(__name__)

_READABLE = 0o644


class JobFolder:
    """The folder of one job."""

    def __init__(self, home: Path, job: str):
        self.root = home.resolve() / "jobs" / job
        self.default_output = self.root / "output"
        self._plan = self.root / "plan.json"
        self._segments = self.root / "segments"
        self._logs = self.root / "logs"

    @contextmanager
    def lock(self) -> Iterator[bool]:
        """Whether the job is this process's alone, for as long as the context lasts. A dead process holds no lock."""
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / "lock").open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True

    # The plan

    def read_plan(self, submitted_at: datetime) -> Plan | None:
        """The plan of the job that was submitted then; None when there is none, or another job's of the same id."""
        try:
            plan = Plan.from_json(self._plan.read_bytes())
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError) as error:
            log.warning("%s is no plan (%r): the job is planned anew", self._plan, error)
            return None
        return plan if plan.submitted_at == submitted_at else None

    def write_plan(self, plan: Plan) -> Plan:
        """Begin: nothing settled, an empty output in the making, and the plan, in that order."""
        self.building(plan.output).mkdir(parents=True, exist_ok=True)
        shutil.rmtree(self._segments, ignore_errors=True)
        self._segments.mkdir(parents=True)
        for kind in ("stdout", "stderr"):
            (self._logs / "user" / kind).mkdir(parents=True, exist_ok=True)
        place = os.stat(self.building(plan.output))
        plan = replace(plan, output_id=(place.st_dev, place.st_ino))
        write_atomically(self._plan, plan.to_json())
        return plan

    def write_failure(self, plan: Plan, failure: str) -> Plan:
        """Note the decision that the job fails."""
        plan = replace(plan, failure=failure)
        write_atomically(self._plan, plan.to_json())
        return plan

    def look(self, plan: Plan | None) -> Disk:
        """What is done."""
        if plan is None:
            return Disk()
        left = plan.mini_batches - len(self.segments())
        return Disk(planned=True, failing=plan.failure is not None, left=left, committed=self._committed(plan))

    # What is done

    def segments(self) -> dict[int, Segment]:
        """The settled mini-batches."""
        with suppress(FileNotFoundError):
            return segments(os.listdir(self._segments))
        return {}

    def write_segment(self, segment: Segment, content: bytes) -> None:
        """Settle a mini-batch, with its rows as lines."""
        temporary = self._segments / f".{segment.index}"
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(self._segments / segment.name)

    # The output

    def building(self, output: str) -> Path:
        """Where the output is built: beside its place, so that moving it there is one step."""
        return Path(output).parent / f".building-{hashlib.sha256(os.fsencode(self.root)).hexdigest()[:16]}"

    def write_output(self, plan: Plan) -> None:
        """Put the rows together in the order of the mini-batches, and the output in its place. Raises OSError."""
        building = self.building(plan.output)
        if plan.spec.settings.output_action == "append_row":
            target = building / plan.spec.settings.output_file_name
            target.unlink(missing_ok=True)  # whatever the script put there, a link to elsewhere perhaps
            with target.open("xb") as output:
                for _, segment in sorted(self.segments().items()):
                    with (self._segments / segment.name).open("rb") as rows:
                        shutil.copyfileobj(rows, output, 1 << 20)
                output.flush()
                os.fsync(output.fileno())
        if os.path.lexists(plan.output):
            raise FileExistsError(f"{plan.output} was made by somebody else while the job ran")
        os.rename(building, plan.output)

    def discard_output(self, output: str, plan: Plan | None) -> None:
        """Remove what the job has written, and nothing that is not its own."""
        _remove(self.building(output))
        if plan is not None and self._committed(plan):
            _remove(Path(plan.output))

    def tidy(self) -> None:
        """Remove what only a running job needs."""
        _remove(self._segments)

    def _committed(self, plan: Plan) -> bool:
        with suppress(OSError):
            place = os.lstat(plan.output)
            return (place.st_dev, place.st_ino) == plan.output_id
        return False

    # Logs

    def worker_log(self, kind: str, worker: str) -> Path:
        """Where a worker's stdout or stderr goes."""
        return self._logs / "user" / kind / f"{worker}.txt"

    def write_progress(self, overview: str) -> None:
        """Replace the progress overview."""
        write_atomically(self._logs / "job_progress_overview.txt", overview.encode(), _READABLE)

    def write_preparation(self, text: str) -> None:
        """Add to what is told of the files' and the environment's coming to this machine."""
        with (self._logs / "preparation.txt").open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)

    def write_error(self, text: str) -> None:
        """Add to the users' error log."""
        with (self._logs / "user" / "error.txt").open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)


def _remove(folder: Path) -> None:
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        pass
    except OSError as error:
        log.warning("%s cannot be removed, do it by hand: %s", folder, error)
