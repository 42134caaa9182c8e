"""The README's commands are run, and print what it shows.

``python tests/test_readme.py`` writes what they print now into it.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")


def transcript() -> list[tuple[str, str]]:
    """``(command, output)`` of the console blocks, in order."""
    found: list[tuple[str, list[str]]] = []
    for block in re.findall(r"```console\n(.*?)```", README, re.DOTALL):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append((line[2:], []))
            else:
                found[-1][1].append(line)
    return [(command, "\n".join(lines)) for command, lines in found]


def comparable(text: str) -> list[str]:
    """Lines without what differs between machines: rounding errors, tiny weights and spacing.

    A size may differ by a few bytes with the versions of what wrote the file: its digits behind the
    point are left out. Everything else must be as shown.
    """
    text = re.sub(r"\d(\.\d+)?e-\d+|\b0\.0\d+", "TINY", text)
    text = re.sub(r"(?<= )(\d+)\.\d(?= )", r"\1", text)
    return [re.sub(r" +", " ", line).strip() for line in text.strip().splitlines()]


def run_all(folder: Path) -> list[str]:
    """What the commands print now, run one after the other in ``folder``."""
    shutil.copytree(ROOT / "sample_models" / "find_max", folder / "sample_models" / "find_max")
    printed = []
    for command, _ in transcript():
        program, *arguments = shlex.split(command)
        assert program == "edgeattn"
        done = subprocess.run(
            [sys.executable, "-m", "edgeattn", *arguments],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=1200,
        )
        assert done.returncode == 0, done.stderr
        printed.append(done.stdout)
    return printed


def test_console_blocks(tmp_path: Path) -> None:
    commands = transcript()
    assert [command.split()[1] for command, _ in commands] == ["convert", "validate", "run"]
    for (command, shown), printed in zip(commands, run_all(tmp_path), strict=True):
        assert comparable(printed) == comparable(shown), command


def renewed(folder: Path) -> str:
    """The README with what its commands print now."""
    text = README
    for (command, shown), printed in zip(transcript(), run_all(folder), strict=True):
        text = text.replace(f"$ {command}\n{shown}", f"$ {command}\n{printed.rstrip()}")
    return text


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for target in re.findall(r"^make (\w+)", README, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_links_lead_somewhere() -> None:
    for link in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / link).exists(), link


def test_exit_codes_are_those_of_the_errors() -> None:
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
        (ROOT / "README.md").write_text(renewed(Path(folder)), "utf-8")
