"""Count the share of docstring words that are bare pronouns, package by package.

A pronoun makes a reader look elsewhere for the noun; where one in eight words is a pronoun, a file
cannot be read alone. The figure shows a direction and is no gate.

Usage: python tools/docstring_pronouns.py [PACKAGE ...]
"""

import argparse
import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

PACKAGES = ("saga_runtime", "brokers", "outbox", "relay", "sagas", "orders", "config")
PRONOUNS = frozenset(
    (
        *("it", "its", "itself", "he", "she", "him", "his", "her", "they", "them", "their"),
        *("this", "that", "these", "those", "one", "ones", "other", "others", "another"),
        *("what", "whatever", "who", "whoever", "whom", "whose", "which", "whichever"),
        *("nobody", "somebody", "anybody", "everybody"),
    )
)
WORD = re.compile(r"[A-Za-z]+(?:'[a-z]+)?")
CODE = re.compile(r"``.*?``|`[^`]*`", re.DOTALL)


def docstrings(path: Path) -> Iterator[str]:
    """Yield the docstrings of a module, its classes, functions and attributes.

    Args:
        path: a Python file.

    Yields:
        Each docstring; of attributes, the string that stands alone behind them.
    """
    for node in ast.walk(ast.parse(path.read_text())):
        body = getattr(node, "body", None)
        for statement in body if isinstance(body, list) else []:  # a lambda's is an expression
            match statement:
                case ast.Expr(value=ast.Constant(value=str() as text)):
                    yield text


def count(package: Path) -> tuple[Counter[str], int]:
    """Count the pronouns and the words of a package's docstrings.

    Args:
        package: a folder; its migrations are left out.

    Returns:
        How often each pronoun stands in a docstring, and the number of all words in docstrings.
        Words in backticks are code and count as neither.
    """
    pronouns: Counter[str] = Counter()
    words = 0
    for path in sorted(package.rglob("*.py")):
        if "migrations" in path.parts:
            continue
        for text in docstrings(path):
            spoken = [word.lower() for word in WORD.findall(CODE.sub(" ", text))]
            words += len(spoken)
            pronouns.update(word for word in spoken if word in PRONOUNS)
    return pronouns, words


def main() -> None:
    """Print a line per package: its share of pronouns, its words, and its commonest pronouns."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("packages", nargs="*", default=PACKAGES, type=Path)
    total: Counter[str] = Counter()
    all_words = 0
    for package in parser.parse_args().packages:
        pronouns, words = count(Path(package))
        total += pronouns
        all_words += words
        print(line(str(package), pronouns, words))
    print(line("all", total, all_words))


def line(name: str, pronouns: Counter[str], words: int) -> str:
    """Return a package's line of the table."""
    share = pronouns.total() / max(words, 1)
    common = ", ".join(f"{word} {n}" for word, n in pronouns.most_common(6))
    return f"{name:14} {share:6.1%} of {words:6} words   {common}"


if __name__ == "__main__":
    main()
