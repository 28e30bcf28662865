"""A whole Endpunkt for one measurement, as `make up` starts it."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from endpunkt_infra.demo.story import Story
from endpunkt_infra.stack.control import down, up
from endpunkt_infra.stack.ports import free_ports


@contextmanager
def running_house(story: Story) -> Iterator[tuple[Path, Path, dict[str, str]]]:
    """Its home, a folder to work in, and its addresses. It is stopped and forgotten at the end."""
    with tempfile.TemporaryDirectory(prefix="endpunkt-bench-") as folder:
        home = Path(folder) / "home"
        try:
            yield home, Path(folder) / "work", up(home, free_ports(), story.say, alone=True)
        finally:
            down(home, story.say)
