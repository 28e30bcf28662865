"""Finds kcat, the command-line client that README's examples use: python -m endpunkt_infra.kcat prints how to call it.

It is taken from the PATH, else unpacked from Debian's (or Ubuntu's) packages into $ENDPUNKT_CACHE/kcat: no root.
"""

import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from endpunkt_infra.kafka.jars import cache_directory

# What every process on the machine already has; a second copy of these would not fit the loader.
_OF_THE_SYSTEM = ("libc6", "libgcc-s1", "gcc-")


class KcatMissing(RuntimeError):
    """There is no kcat and it cannot be installed; the text says what to do."""


def kcat_command(cache: Path) -> list[str]:
    """The words that run kcat. Raises KcatMissing."""
    if found := shutil.which("kcat"):
        return [found]
    folder = cache / "kcat"
    if not (folder / "usr" / "bin" / "kcat").exists():
        _unpack(folder)
    libraries = ":".join(str(path) for path in sorted((folder / "usr" / "lib").glob("*-linux-gnu*")))
    return ["env", f"LD_LIBRARY_PATH={libraries}", str(folder / "usr" / "bin" / "kcat")]


def _unpack(folder: Path) -> None:
    if shutil.which("apt-get") is None:
        raise KcatMissing("kcat is not installed and this is no Debian: install kcat with your package manager")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        work = Path(temporary)
        (work / "lists" / "partial").mkdir(parents=True)
        (work / "archives" / "partial").mkdir(parents=True)
        apt = ["-o", f"Dir::State::Lists={work / 'lists'}", "-o", f"Dir::Cache={work}", "-o", "APT::Sandbox::User="]
        _run(["apt-get", *apt, "--quiet", "update"], work)
        only_needed = [
            f"--no-{kind}" for kind in ("recommends", "suggests", "conflicts", "breaks", "replaces", "enhances")
        ]
        listed = _run(["apt-cache", *apt, "depends", "--recurse", *only_needed, "kcat"], work)
        packages = {line for line in listed.splitlines() if line and not line.startswith((" ", "<", *_OF_THE_SYSTEM))}
        _run(["apt-get", *apt, "--quiet", "download", *sorted(packages)], work)
        tree = work / "tree"
        for package in work.glob("*.deb"):
            _run(["dpkg", "--extract", str(package), str(tree)], work)
        try:
            tree.rename(folder)
        except OSError:
            if not folder.exists():  # another process was faster, which is just as well
                raise


def _run(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise KcatMissing(f"kcat is not installed, and installing it failed at {shlex.join(command)}:\n{done.stderr}")
    return done.stdout


def main() -> int:
    """Print kcat's command line."""
    try:
        sys.stdout.write(shlex.join(kcat_command(cache_directory())) + "\n")
    except KcatMissing as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
