"""What of a Python interpreter an instance must be able to reach, and how it is called."""

import os
import re
from pathlib import Path

_MOST_LINKS = 40
_SAFE_PATH_SINCE = (3, 11)


def prefixes(python: Path) -> list[Path]:
    """The folders that `python` runs from: its virtual environment, the installation that this was made from, and those
    to which links lead on the way. Both a link's own name and its target: programs use either."""
    found = dict.fromkeys([python.parent.parent])
    with_home = _configuration(python.parent.parent / "pyvenv.cfg").get("home")
    if with_home:
        found[Path(with_home).parent] = None
    link = python
    for _ in range(_MOST_LINKS):
        if not link.is_symlink():
            break
        link = Path(os.path.normpath(link.parent / link.readlink()))
        found[link.parent.parent] = None
    for folder in list(found):
        found[folder.resolve()] = None
    return list(found)


def command(python: Path, descriptor: int) -> list[str]:
    """The inference server on the socket `descriptor`. Its working folder, which user code may write to, is no place
    to import from."""
    safe = ["-P"] if _version(python) >= _SAFE_PATH_SINCE else []
    return [str(python), *safe, "-m", "inference_server", "--fd", str(descriptor)]


def _version(python: Path) -> tuple[int, ...]:
    settings = _configuration(python.parent.parent / "pyvenv.cfg")
    text = settings.get("version_info") or settings.get("version") or python.resolve().name.removeprefix("python")
    return tuple(int(number) for number in re.findall(r"\d+", text)[:2])


def _configuration(path: Path) -> dict[str, str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    return {name.strip(): value.strip() for name, _, value in (line.partition("=") for line in lines)}


def closed_to_others(path: Path) -> Path | None:
    """The first folder on the way to `path` that other users may not pass; None when the way is open."""
    return next((folder for folder in reversed(path.parents) if not folder.stat().st_mode & 0o001), None)


def readable_by_others(path: Path) -> bool:
    """Whether other users may read the folder or file `path` once they stand before it."""
    needed = 0o005 if path.is_dir() else 0o004
    return path.stat().st_mode & needed == needed
