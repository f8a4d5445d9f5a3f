"""Tables and progress bars."""

import json
import sys
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

console = Console(highlight=False)


def say(text: str) -> None:
    """One line for the user."""
    # Never broken into lines: programs read this too.
    console.print(text, markup=False, soft_wrap=True)


def complain(text: str) -> None:
    """One line on standard error."""
    sys.stderr.write(text + "\n")


def print_json(value: Any) -> None:
    """One JSON object, for programs."""
    sys.stdout.write(json.dumps(value, default=str, ensure_ascii=False, indent=2) + "\n")


def print_table(title: str, columns: list[str], rows: list[list[object]]) -> None:
    """A table; markup in the values is shown, not obeyed."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(escape("" if value is None else str(value)) for value in row))
    console.print(table)


def escape(text: str) -> str:
    """Received text must not steer the terminal: control characters are shown as dots, markup is inert."""
    from rich.markup import escape as escape_markup

    return escape_markup(printable(text))


def printable(text: str) -> str:
    """Received text without what steers a terminal."""
    return "".join(c if c.isprintable() else "·" for c in text)


def progress() -> Progress:
    """A progress bar with counts and the time left."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
    )
