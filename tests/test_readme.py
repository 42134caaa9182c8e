"""The commands of the README print the output that it shows.

``python tests/test_readme.py`` replaces that output by the current one.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import pytest
from console_pages import comparable, copy_sample_models, outputs, transcript, updated_page

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")


@pytest.mark.long
def test_output_of_the_console_blocks(tmp_path: Path) -> None:
    copy_sample_models(tmp_path, "find_max")
    commands = transcript(README)
    assert [command.split()[1] for command, _ in commands] == ["convert", "validate", "run"]
    for (command, shown), output in zip(commands, outputs(README, tmp_path), strict=True):
        assert comparable(output) == comparable(shown), command


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for target in re.findall(r"^make (\w+)", README, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_linked_files_exist() -> None:
    for link in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / link).exists(), link


def test_exit_codes_of_all_errors_are_listed() -> None:
    from edgeattn import errors

    codes = {int(code) for code in re.findall(r"^\| (\d+) \|", README, re.MULTILINE)}
    raised = {
        item.exit_code
        for item in vars(errors).values()
        if isinstance(item, type) and issubclass(item, errors.EdgeattnError)
    }
    assert raised <= codes


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        copy_sample_models(Path(folder), "find_max")
        (ROOT / "README.md").write_text(updated_page(README, Path(folder)), "utf-8")
