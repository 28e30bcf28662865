"""The inference server, laid out once per content, where every environment imports it by PYTHONPATH.

It is found and copied, never imported: this process need not run what users' environments run.
"""

import compileall
import hashlib
import importlib.util
import shutil
import tempfile
from pathlib import Path

from contracts.shell.files import READABLE_FOLDER, open_to_read

_PACKAGE = "inference_server"


def install(home: Path) -> Path:
    """The folder for PYTHONPATH: <home>/runtime/<digest>, which holds the package and nothing else. It is complete as
    soon as it is there, everybody may read it, and it is compiled for this process's Python. Blocks."""
    files = _files()
    digest = hashlib.sha256()
    for name, path in files:
        content = path.read_bytes()
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    root = home.resolve() / "runtime"
    place = root / digest.hexdigest()[:32]
    if not place.is_dir():
        root.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(dir=root, prefix=".building-"))
        try:
            _copy(files, building)
            try:
                building.rename(place)
            except OSError:
                if not place.is_dir():  # another process was first
                    raise
        finally:
            shutil.rmtree(building, ignore_errors=True)
        root.chmod(READABLE_FOLDER)
    return place


def _files() -> list[tuple[str, Path]]:
    """The package's files by their names in it. Raises RuntimeError."""
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError(f"{_PACKAGE} is not installed beside this service: run make setup")
    folder = Path(next(iter(spec.submodule_search_locations)))
    files = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return sorted((str(path.relative_to(folder)), path) for path in files)


def _copy(files: list[tuple[str, Path]], building: Path) -> None:
    for name, path in files:
        target = building / _PACKAGE / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    compileall.compile_dir(building, quiet=2)
    open_to_read(building)
