"""Print stored text from management commands: a terminal shows the text and never obeys it."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TextIO, cast

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError, OutputWrapper
from rich.cells import cell_len

from saga_runtime.text import LONGEST_ERROR, cut, one_line_error, visible

LONGEST_CELL = 300
"""Characters of a value in a table; `--json` has the whole value."""
LONGEST_TEXT = 10_000
"""Characters shown of a text of several lines."""


class VisibleOutput(OutputWrapper):
    """Write to a terminal, which obeys nothing but line ends and our own colours."""

    def write(  # type: ignore[override]  # as Django overrides it
        self, msg: str = "", style_func: Any = None, ending: str | None = None
    ) -> None:
        """Write a message whose control characters are written out.

        Args:
            msg: one or several lines.
            style_func: colours the message, as Django's style functions do.
            ending: text behind the message; by default a line end.
        """
        super().write("\n".join(map(visible, msg.split("\n"))), style_func, ending)


class VisibleCommand(BaseCommand):
    """Base of commands with output of foreign origin; errors are shown as safely as results."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.stdout = VisibleOutput(_stream(self.stdout))
        self.stderr = VisibleOutput(_stream(self.stderr))
        self.stderr.style_func = self.style.ERROR

    def execute(self, *args: Any, **options: Any) -> str | None:
        """Run the command with visible outputs.

        Raises:
            CommandError: the command's own error, its text in one visible line.
        """
        for name in ("stdout", "stderr"):
            if options.get(name):
                options[name] = VisibleOutput(options[name])
        try:
            return super().execute(*args, **options)
        except CommandError as error:
            if type(error) is not CommandError:  # a failed check lists its errors in lines
                raise
            raise CommandError(visible(str(error)), returncode=error.returncode) from error

    def run_from_argv(self, argv: list[str]) -> None:
        """Run the command as typed; a wrong setting ends in one line, not in a traceback."""
        try:
            super().run_from_argv(argv)
        except ImproperlyConfigured as error:
            if "--traceback" in argv:
                raise
            sys.exit(f"error: {one_line_error(error).rstrip('.?')}")

    def say(self, text: str) -> None:
        """Print one line, whatever line ends the text holds."""
        self.stdout.write(cut(visible(text), LONGEST_ERROR))

    def say_lines(self, title: str, text: str) -> None:
        """Print a text of several lines, such as a traceback, indented below a title."""
        self.say("")
        self.say(title)
        for line in cut(text, LONGEST_TEXT).split("\n"):
            self.say(f"    {line}")

    def say_json(self, value: object) -> None:
        """Print one JSON value in ASCII, on one line."""
        self.stdout.write(json.dumps(value))

    def say_table(self, rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> None:
        """Print rows as a table, each in one line.

        Args:
            rows: mappings whose values may be of any type, and any text.
            columns: the keys to show, in order; the keys are the headings too.
        """
        cells = [list(columns), *([_cell(row[column]) for column in columns] for row in rows)]
        widths = [max(map(cell_len, column)) for column in zip(*cells, strict=True)]
        for line in cells:
            padded = (
                text + " " * (width - cell_len(text))
                for text, width in zip(line, widths, strict=True)
            )
            self.stdout.write("  ".join(padded).rstrip())


def _stream(output: OutputWrapper) -> TextIO:
    """Return the stream below, so that nothing is wrapped twice."""
    return cast("TextIO", output._out)  # noqa: SLF001


def _cell(value: object) -> str:
    match value:
        case None:
            text = ""
        case dict() | list():
            text = json.dumps(value)
        case _:
            text = str(value)
    return cut(visible(text), LONGEST_CELL)
