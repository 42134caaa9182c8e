"""Blocks of code in the pages, and the command lines in them."""

from __future__ import annotations

import re
import shlex
import textwrap
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = ("benchmarks", "docs", "examples", "sample_models", "tests/specimens")
PAGES = sorted(
    [*ROOT.glob("*.md"), *(page for name in FOLDERS for page in (ROOT / name).rglob("*.md"))]
)
_BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)
_OPERATORS = ("|", "<", ">", ">>", "&&", ";")


def blocks(text: str, *languages: str) -> list[str]:
    """The blocks in one of ``languages``, also in lists; ``""`` stands for blocks without one."""
    return [
        textwrap.dedent(content)
        for _, language, content in _BLOCK.findall(text)
        if language in languages
    ]


def command_lines(text: str) -> Iterator[list[str]]:
    """The words of every command in the blocks for a shell, without comments and redirections."""
    for block in blocks(text, "", "sh"):
        yield from _commands(block)
    for block in blocks(text, "console"):
        yield from _commands(
            "\n".join(line[2:] for line in block.splitlines() if line.startswith("$ "))
        )


def _commands(block: str) -> Iterator[list[str]]:
    for line in block.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|<>&;")
        lexer.whitespace_split = True
        try:
            words = list(lexer)
        except ValueError:  # output with a quotation mark
            continue
        starts = [0, *(number for number, word in enumerate(words) if word in _OPERATORS)]
        for start, end in zip(starts, [*starts[1:], len(words)], strict=True):
            part = [word for word in words[start:end] if word not in _OPERATORS]
            if part:
                yield part


def inline_commands(text: str) -> list[list[str]]:
    """The words of every `edgeattn ...` in the text of a page."""
    text = _BLOCK.sub("", text)
    return [command.split() for command in re.findall(r"`(edgeattn\s[^`]+)`", text)]
