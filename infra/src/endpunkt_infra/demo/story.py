"""Telling the demo in a terminal: a line a step, a bar where it waits, a table at the end."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table


class Story:
    """Prints to `console` and keeps how long each step took."""

    def __init__(self, console: Console, steps: int):
        self._console = console
        self._steps = steps
        self.seconds: dict[str, float] = {}

    @contextmanager
    def step(self, name: str, title: str) -> Iterator[None]:
        """A step of the story; its time is kept under `name`."""
        self._console.print(f"[bold cyan]{len(self.seconds) + 1}/{self._steps}[/] [bold]{title}[/]")
        began = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - began, 2)

    def say(self, text: str) -> None:
        """A line about what was done or seen."""
        self._console.print(f"    {text}", highlight=False, soft_wrap=True)

    @contextmanager
    def waiting(self, title: str, total: float | None = None) -> Iterator["Bar"]:
        """A progress bar; without a total it only moves."""
        columns = (TextColumn("    {task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
        with Progress(
            *columns, console=self._console, transient=True, disable=not self._console.is_terminal
        ) as progress:
            yield Bar(progress, title, total)

    def table(self, title: str, rows: Mapping[str, Any]) -> None:
        """The end of the story."""
        table = Table(title=title, title_justify="left", show_header=False)
        for name, value in rows.items():
            table.add_row(name, str(value))
        self._console.print(table)


class Bar:
    """One progress bar."""

    def __init__(self, progress: Progress, title: str, total: float | None):
        self._progress = progress
        self._task = progress.add_task(title, total=total)

    def at(self, completed: float) -> None:
        """How far it is."""
        self._progress.update(self._task, completed=completed)
