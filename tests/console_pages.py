"""Console blocks of pages: commands with the output that they print."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def transcript(page: str) -> list[tuple[str, str]]:
    """``(command, output)`` of the console blocks of a page, in order."""
    blocks: list[tuple[str, list[str]]] = []
    for block in re.findall(r"```console\n(.*?)```", page, re.DOTALL):
        for line in block.splitlines():
            if line.startswith("$ "):
                blocks.append((line[2:], []))
            else:
                blocks[-1][1].append(line)
    return [(command, "\n".join(lines)) for command, lines in blocks]


def comparable(text: str) -> list[str]:
    """The lines, without rounding errors, tiny weights and spacing, which differ between machines.

    Sizes lose their decimals, because they differ by a few bytes between versions of the packages
    that write the files. A signal-to-noise ratio above 100 dB is that of rounding errors.
    """
    text = re.sub(r"(?<=e-\d\d) +\d{3}\.\d(?= )", " TINY", text)
    text = re.sub(r"\d(\.\d+)?e-\d+|\b0\.0\d+", "TINY", text)
    text = re.sub(r"(?<= )(\d+)\.\d(?= )", r"\1", text)
    return [re.sub(r" +", " ", line).strip() for line in text.strip().splitlines()]


def run_command(command: str, folder: Path) -> str:
    """The output of ``edgeattn ...`` in ``folder``; a failing verdict must have exit code 1."""
    program, *arguments = shlex.split(command)
    assert program == "edgeattn"
    process = subprocess.run(
        [sys.executable, "-m", "edgeattn", *arguments],
        cwd=folder, capture_output=True, text=True, timeout=1200,
    )  # fmt: skip
    failed = re.search(r"^fail ", process.stdout, re.MULTILINE) is not None
    assert process.returncode == int(failed), process.stderr
    return process.stdout


def outputs(page: str, folder: Path) -> list[str]:
    """The outputs of the commands of a page, run one after the other in ``folder``."""
    return [run_command(command, folder) for command, _ in transcript(page)]


def updated_page(page: str, folder: Path) -> str:
    """The page with the current output of its commands."""
    for (command, shown), output in zip(transcript(page), outputs(page, folder), strict=True):
        block = f"$ {command}\n" + (f"{shown}\n" if shown else "")
        page = page.replace(block, f"$ {command}\n{output.rstrip()}\n", 1)
    return page


def copy_sample_models(folder: Path, *names: str) -> None:
    for name in names:
        shutil.copytree(ROOT / "sample_models" / name, folder / "sample_models" / name)
    # Modules that the training scripts share.
    for module in (ROOT / "sample_models").glob("*.py"):
        shutil.copy(module, folder / "sample_models")
