"""The commands of the README print the output that it shows.

``python tests/test_readme.py`` replaces that output by the current one.
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
    blocks: list[tuple[str, list[str]]] = []
    for block in re.findall(r"```console\n(.*?)```", README, re.DOTALL):
        for line in block.splitlines():
            if line.startswith("$ "):
                blocks.append((line[2:], []))
            else:
                blocks[-1][1].append(line)
    return [(command, "\n".join(lines)) for command, lines in blocks]


def comparable(text: str) -> list[str]:
    """The lines, without rounding errors, tiny weights and spacing, which differ between machines.

    Sizes lose their decimals, because they differ by a few bytes between versions of the packages
    that write the files.
    """
    text = re.sub(r"\d(\.\d+)?e-\d+|\b0\.0\d+", "TINY", text)
    text = re.sub(r"(?<= )(\d+)\.\d(?= )", r"\1", text)
    return [re.sub(r" +", " ", line).strip() for line in text.strip().splitlines()]


def run_all(folder: Path) -> list[str]:
    """The outputs of the commands, run one after the other in ``folder``."""
    shutil.copytree(ROOT / "sample_models" / "find_max", folder / "sample_models" / "find_max")
    outputs = []
    for command, _ in transcript():
        program, *arguments = shlex.split(command)
        assert program == "edgeattn"
        process = subprocess.run(
            [sys.executable, "-m", "edgeattn", *arguments],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=1200,
        )
        assert process.returncode == 0, process.stderr
        outputs.append(process.stdout)
    return outputs


def test_output_of_the_console_blocks(tmp_path: Path) -> None:
    commands = transcript()
    assert [command.split()[1] for command, _ in commands] == ["convert", "validate", "run"]
    for (command, shown), output in zip(commands, run_all(tmp_path), strict=True):
        assert comparable(output) == comparable(shown), command


def updated_readme(folder: Path) -> str:
    """The README with the current output of its commands."""
    text = README
    for (command, shown), output in zip(transcript(), run_all(folder), strict=True):
        text = text.replace(f"$ {command}\n{shown}", f"$ {command}\n{output.rstrip()}")
    return text


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
        (ROOT / "README.md").write_text(updated_readme(Path(folder)), "utf-8")
