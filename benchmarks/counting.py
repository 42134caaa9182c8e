"""How many ARM instructions one inference takes, counted by a plugin of qemu.

The root is that of ``tests/pi``: Debian for ARM in a folder, with the wheels that a Pi installs. It
is not entered by chroot, as there: the qemu that takes plugins is dynamic, and runs here, with the
root as its prefix.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.routes import FORCED, ROUTES, judged

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests" / "pi"))

import emulated  # noqa: E402
from emulated import BOOKWORM, CACHE, PI4, PI5, Board, CannotEmulate  # noqa: E402

CLAIM = "instructions under emulation, not time"
BOARDS = {board.cpu: board for board in (PI4, PI5)}
QEMU = "qemu-aarch64"  # the dynamic one: qemu-aarch64-static takes no plugins
RUNTIMES = ("ai-edge-litert", "numpy")
SECONDS = 900
INSTRUCTIONS, FETCHED = "instructions", "lines_fetched"
# Kilobytes and ways of the data caches that a core of a Pi 4 and of a Pi 5 reaches, first to last:
# Arm's manuals of the Cortex-A72 and A76, and Raspberry Pi's of the two boards' processors.
CACHES = {
    "cortex-a72": ("cache=32/2", "cache=1024/16"),
    "cortex-a76": ("cache=64/4", "cache=512/8", "cache=2048/16"),
}

# The descriptions of the board are seen where programs look for them, and nowhere but here.
ENTER = """
set -e
root=$1 machine=$2; shift 2
mount --bind "$machine/proc" "$root/proc"
mount --bind "$machine/sys" "$root/sys"
exec "$@"
"""


@functools.cache
def plugin(name: str = "count.c") -> Path:
    """A plugin, compiled for this machine; :class:`CannotEmulate` where it cannot be."""
    if shutil.which("gcc") is None:
        raise CannotEmulate("counting instructions needs gcc, which is not here")
    if shutil.which(QEMU) is None:
        if os.geteuid() != 0:
            raise CannotEmulate("install qemu-user: it is not here, and we are not root")
        emulated._ask(["apt-get", "update", "-qq"])
        emulated._ask(["apt-get", "install", "-y", "-qq", "--no-install-recommends", "qemu-user"])
    source = HERE / name
    made = CACHE / f"{source.stem}-{hashlib.sha256(source.read_bytes()).hexdigest()[:12]}.so"
    if not made.exists():
        made.parent.mkdir(parents=True, exist_ok=True)
        aside = made.with_suffix(f".{os.getpid()}")
        subprocess.run(
            ["gcc", "-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-o", aside, source], check=True
        )
        aside.rename(made)
    return made


@functools.cache
def runtimes() -> Path:
    """The TFLite runtime for the root, kept by what was asked for."""
    asked = hashlib.sha256(repr((BOOKWORM.key, RUNTIMES)).encode())
    asked.update((emulated.PROJECT / "constraints.txt").read_bytes())
    folder: Path = CACHE / f"counted-{asked.hexdigest()[:12]}"
    if not folder.exists():
        aside = Path(tempfile.mkdtemp(prefix=".counted-", dir=CACHE))
        try:
            emulated.install(BOOKWORM, aside, RUNTIMES)
            aside.rename(folder)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return folder


def versions() -> dict[str, str]:
    """What is counted there, and in which emulator."""
    found = {}
    for folder in (runtimes(), emulated.built(BOOKWORM) / "opt" / "onnx"):
        for path in folder.glob("*.dist-info"):
            name, _, version = path.stem.partition("-")
            if name in ("ai_edge_litert", "onnxruntime"):
                found[name] = version
    told = subprocess.run([QEMU, "--version"], capture_output=True, text=True, check=True)
    return {**dict(sorted(found.items())), "qemu": told.stdout.split()[2]}


PLUGINS = {
    INSTRUCTIONS: lambda cpu: (str(plugin()),),
    FETCHED: lambda cpu: (str(plugin("fetch.c")), *CACHES[cpu]),
}


def made(name: str, labels: list[str], folder: Path) -> dict[str, Any]:
    """The files of these routes, by a process of their own: where each is, or why there is none."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.making", name, str(folder), *labels],
        cwd=HERE.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"the files of {name} were not made: {done.stderr[-2000:]}")
    return json.loads((folder / "made.json").read_text())  # type: ignore[no-any-return]


def counted(
    folder: Path, files: dict[str, Any], cpu: str, what: str = INSTRUCTIONS
) -> dict[str, dict[str, Any]]:
    """For each route the instructions of one inference on ``cpu``, and how right its answers are.

    Or, where ``what`` is :data:`FETCHED`, the cache lines that it fetches from memory.

    All files go through one process; where that dies, each gets its own.
    """
    labels = [label for label, file in files.items() if "path" in file]
    try:
        found = _counted(folder, labels, files, cpu, what)
    except _Died:
        found = {}
        for label in labels:
            try:
                found |= _counted(folder, [label], files, cpu, what)
            except _Died as error:
                found[label] = {"failed": str(error)}
    failed = {label: {"failed": f["failed"]} for label, f in files.items() if "failed" in f}
    return {
        label: {**{**found, **failed}[label], **_of_the_file(file)} for label, file in files.items()
    }


def _of_the_file(file: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in file.items() if key in ("bytes", "packed_bytes")}


class _Died(Exception):
    """The emulated process ended before it answered."""


def _counted(
    folder: Path, labels: list[str], files: dict[str, Any], cpu: str, what: str
) -> dict[str, dict[str, Any]]:
    routes = {**ROUTES, **FORCED}
    plan = [{"path": files[label]["path"], "runtime": routes[label].runtime} for label in labels]
    (folder / "plan.json").write_text(json.dumps(plan))
    counts = folder / "counts.txt"
    done = subprocess.run(
        _command(BOARDS[cpu], folder, counts, what),
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    if done.returncode:
        raise _Died(
            f"ended with {done.returncode}: {(done.stderr.strip() or '-').splitlines()[-1]}"
        )
    about, *told = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if about["machine"] != "aarch64":
        raise RuntimeError(f"this is no emulated ARM: {about}")
    if any(item["runtime"] == "tflite" for item in plan) and "XNNPACK delegate" not in done.stderr:
        raise RuntimeError("XNNPACK is off there: its counts would mean nothing")
    marks = iter([int(line) for line in counts.read_text().split()])
    expected = np.load(folder / "expected.npy")
    found = {}
    for label, item in zip(labels, told, strict=True):
        if "failed" in item:
            # How many of its marks were left is not known: none of those behind it can be read.
            if len(labels) > 1:
                raise _Died(item["failed"])
            found[label] = {"failed": item["failed"]}
            continue
        each = [-next(marks) + next(marks) for _ in range(item["counted"])]
        answers = np.load(folder / f"{item['number']}.npy")
        found[label] = {
            what: round(sum(each) / len(each)),
            **judged(routes[label], expected, answers),
        }
    return found


def _command(board: Board, folder: Path, counts: Path, what: str) -> list[str]:
    root = emulated.built(BOOKWORM)
    machine = CACHE / "boards" / board.name
    emulated._describe(board, machine)
    path = ":".join(map(str, (runtimes(), root / "opt" / "onnx")))
    # A process whose addresses and hashes were drawn at random would not repeat its count.
    environment = {"PYTHONPATH": path, "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
    return [
        *("unshare", "-Urm", "sh", "-c", ENTER, "enter", str(root), str(machine)),
        *("env", "-i", "PATH=/usr/bin", "LANG=C.UTF-8", *("setarch", "-R")),
        *(shutil.which(QEMU) or QEMU, "-cpu", board.cpu, "-L", str(root)),
        *("-plugin", ",".join((*PLUGINS[what](board.cpu), f"out={counts}"))),
        *(word for name, value in environment.items() for word in ("-E", f"{name}={value}")),
        *(str(root / "usr/bin/python3.11"), "-P", str(HERE / "infer.py"), str(folder)),
    ]


def prepared() -> None:
    """All that counting needs, made now; :class:`CannotEmulate` says what there cannot be."""
    emulated.built(BOOKWORM)
    plugin()
    runtimes()
