"""Hook of mkdocs: write each management command's options in the place of `<!-- commands -->`."""

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
MARK = "<!-- commands -->"
COMMANDS = {
    "run_outbox_relay": "relay",
    "run_saga_consumer": "sagas",
    "sagas": "sagas",
    "outbox": "outbox",
    "up": "config",
    "audit_orders": "orders",
    "receive_stock": "orders",
    "place_orders": "orders",
}
OF_DJANGO = {
    "--help", "--version", "--settings", "--pythonpath", "--traceback", "--no-color",
    "--force-color", "--verbosity", "--skip-checks",
}  # fmt: skip


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace the mark by the reference of all commands."""
    return markdown.replace(MARK, "\n".join(_reference())) if MARK in markdown else markdown


def _reference() -> Iterator[str]:
    import django

    sys.path.insert(0, str(ROOT))
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    os.environ.setdefault("SAGAZ_LOGGING", "false")
    django.setup()
    from django.core.management import load_command_class

    for name, app in COMMANDS.items():
        command = load_command_class(app, name)
        yield from _described(command.create_parser("manage.py", name), title=name, level=2)


def _described(parser: argparse.ArgumentParser, *, title: str, level: int) -> Iterator[str]:
    """Describe a command, then its sub-commands one level below."""
    yield f"{'#' * level} `{title}`\n"
    if parser.description:
        yield f"{parser.description}\n"
    below = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    own = [a for a in parser._actions if a not in below and not OF_DJANGO & {*a.option_strings}]
    if own:
        yield "| argument | default | |\n|---|---|---|"
        yield from (_row(action) for action in own)
        yield ""
    for action in below:
        helps = {choice.dest: choice.help for choice in action._choices_actions}
        for name, parser_below in action.choices.items():
            if not parser_below.description:
                parser_below.description = helps.get(name)
            yield from _described(parser_below, title=f"{title} {name}", level=level + 1)


def _row(action: argparse.Action) -> str:
    name = ", ".join(action.option_strings) or action.dest
    if action.choices:
        name += f" {{{','.join(map(str, action.choices))}}}"
    elif action.option_strings and action.nargs != 0:
        name += f" {action.metavar or action.dest.upper()}"
    text = " ".join((action.help or "").split()) % {"default": action.default}
    has_default = action.default not in (None, False, argparse.SUPPRESS) and "default" not in text
    default = f"`{action.default}`" if has_default else ""
    return f"| `{name}` | {default} | {text} |"
