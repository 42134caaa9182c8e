"""Count the ARM instructions of one inference with a plugin of qemu.

The root file system is that of ``tests/pi``: Debian for ARM with the wheels that a Pi installs. The
tests enter it with chroot; here, qemu runs outside with the root as its prefix, because only the
dynamically linked qemu supports plugins.
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

from benchmarks.routes import COUNTED_ONLY, ROUTES, compare_outputs

BENCHMARKS = Path(__file__).parent
sys.path.insert(0, str(BENCHMARKS.parent / "tests" / "pi"))

import emulated  # noqa: E402
from emulated import BOOKWORM, CACHE, PI4, PI5, Board, CannotEmulateError  # noqa: E402

BOARDS = {board.cpu: board for board in (PI4, PI5)}
QEMU = "qemu-aarch64"  # qemu-aarch64-static does not support plugins
RUNTIMES = ("ai-edge-litert", "numpy")
TIMEOUT_SECONDS = 3600
INSTRUCTIONS, FETCHED = "instructions", "lines_fetched"
# Size in KB and ways of the data caches of a Pi 4 and a Pi 5, from the first level to the last.
# Sources: Arm's manuals of Cortex-A72 and A76, Raspberry Pi's documentation of both processors.
CACHES = {
    "cortex-a72": ("cache=32/2", "cache=1024/16"),
    "cortex-a76": ("cache=64/4", "cache=512/8", "cache=2048/16"),
}

# Mounts the files that describe the board, visible to the started process only.
MOUNT_BOARD = """
set -e
root=$1 machine=$2; shift 2
mount --bind "$machine/proc" "$root/proc"
mount --bind "$machine/sys" "$root/sys"
exec "$@"
"""


@functools.cache
def plugin(name: str = "count.c") -> Path:
    """Compile a plugin and return its path.

    Raises :class:`CannotEmulateError` without gcc or qemu.
    """
    if shutil.which("gcc") is None:
        raise CannotEmulateError("counting instructions requires gcc, which is not installed")
    if shutil.which(QEMU) is None:
        if os.geteuid() != 0:
            raise CannotEmulateError("qemu-user is not installed, and installing it requires root")
        emulated.run_command(["apt-get", "update", "-qq"])
        emulated.run_command(
            ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "qemu-user"]
        )
    source = BENCHMARKS / name
    library = CACHE / f"{source.stem}-{hashlib.sha256(source.read_bytes()).hexdigest()[:12]}.so"
    if not library.exists():
        library.parent.mkdir(parents=True, exist_ok=True)
        temporary = library.with_suffix(f".{os.getpid()}")
        subprocess.run(
            ["gcc", "-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-o", temporary, source],
            check=True,
        )
        temporary.rename(library)
    return library


@functools.cache
def runtimes() -> Path:
    """Install the TFLite runtime for the root once per version; return its folder."""
    digest = hashlib.sha256(repr((BOOKWORM.key, RUNTIMES)).encode())
    digest.update((emulated.PROJECT / "constraints.txt").read_bytes())
    folder: Path = CACHE / f"counted-{digest.hexdigest()[:12]}"
    if not folder.exists():
        temporary = Path(tempfile.mkdtemp(prefix=".counted-", dir=CACHE))
        try:
            emulated.install(BOOKWORM, temporary, RUNTIMES)
            temporary.rename(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return folder


def versions() -> dict[str, str]:
    """Return the versions of the runtimes and of qemu."""
    installed = {}
    for folder in (runtimes(), emulated.build_root(BOOKWORM) / "opt" / "onnx"):
        for path in folder.glob("*.dist-info"):
            name, _, version = path.stem.partition("-")
            if name in ("ai_edge_litert", "onnxruntime"):
                installed[name] = version
    output = subprocess.run([QEMU, "--version"], capture_output=True, text=True, check=True)
    return {**dict(sorted(installed.items())), "qemu": output.stdout.split()[2]}


PLUGINS = {
    INSTRUCTIONS: lambda cpu: (str(plugin()),),
    FETCHED: lambda cpu: (str(plugin("fetch.c")), *CACHES[cpu]),
}


def make_files(name: str, labels: list[str], folder: Path) -> dict[str, Any]:
    """Convert a model by these routes in a new process; see :mod:`benchmarks.make_files`."""
    result = subprocess.run(
        [sys.executable, "-m", "benchmarks.make_files", name, str(folder), *labels],
        cwd=BENCHMARKS.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        raise RuntimeError(f"{name} was not converted: {result.stderr[-2000:]}")
    return json.loads((folder / "files.json").read_text())  # type: ignore[no-any-return]


def count(
    folder: Path, files: dict[str, Any], cpu: str, what: str = INSTRUCTIONS
) -> dict[str, dict[str, Any]]:
    """Count ``what`` for one inference of each route on ``cpu``, and compare the outputs.

    ``what`` is :data:`INSTRUCTIONS`, or :data:`FETCHED` for cache lines fetched from memory. All
    files run in one process; if it crashes, each file gets a process of its own.
    """
    labels = [label for label, file in files.items() if "path" in file]
    try:
        counts = _count_in_process(folder, labels, files, cpu, what)
    except ProcessFailedError:
        counts = {}
        for label in labels:
            try:
                counts |= _count_in_process(folder, [label], files, cpu, what)
            except ProcessFailedError as error:
                counts[label] = {"failed": str(error)}
    failed = {label: {"failed": f["failed"]} for label, f in files.items() if "failed" in f}
    return {
        label: {**{**counts, **failed}[label], **_properties(file, cpu)}
        for label, file in files.items()
    }


def _properties(file: dict[str, Any], cpu: str) -> dict[str, Any]:
    """The sizes of a file, and the estimate of its instructions on ``cpu``."""
    sizes = {key: value for key, value in file.items() if key in ("bytes", "packed_bytes")}
    return {**sizes, **({"estimated": file["estimated"][cpu]} if "estimated" in file else {})}


class ProcessFailedError(Exception):
    """The emulated process failed before it returned all results."""


def _count_in_process(
    folder: Path, labels: list[str], files: dict[str, Any], cpu: str, what: str
) -> dict[str, dict[str, Any]]:
    routes = {**ROUTES, **COUNTED_ONLY}
    plan = [{"path": files[label]["path"], "runtime": routes[label].runtime} for label in labels]
    readings = read_counters(folder, plan, cpu, what)
    expected = np.load(folder / "expected.npy")
    counts = {}
    for label, (report, differences) in zip(labels, readings, strict=True):
        if "failed" in report:
            counts[label] = {"failed": report["failed"]}
            continue
        outputs = np.load(folder / f"{report['number']}.npy")
        counts[label] = {
            what: round(sum(differences) / len(differences)),
            **compare_outputs(routes[label], expected, outputs),
        }
    return counts


def read_counters(
    folder: Path, plan: list[dict[str, str]], cpu: str, what: str = INSTRUCTIONS
) -> list[tuple[dict[str, Any], list[int]]]:
    """Run the files of ``plan`` (see :mod:`benchmarks.infer`) in one process on ``cpu``.

    Returns the report of each file and its count per sequence. Raises :class:`ProcessFailedError`
    if the process crashes.
    """
    (folder / "plan.json").write_text(json.dumps(plan))
    counts_file = folder / "counts.txt"
    result = subprocess.run(
        _command(BOARDS[cpu], folder, counts_file, what),
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_SECONDS,
    )
    if result.returncode:
        last_line = (result.stderr.strip() or "-").splitlines()[-1]
        raise ProcessFailedError(f"exit code {result.returncode}: {last_line}")
    lines = [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]
    system, *reports = lines
    if system["machine"] != "aarch64":
        raise RuntimeError(f"not an emulated ARM processor: {system}")
    uses_tflite = any(item["runtime"] == "tflite" for item in plan)
    if uses_tflite and "XNNPACK delegate" not in result.stderr:
        raise RuntimeError("TFLite ran without XNNPACK, so its counts are meaningless")
    readings = iter([int(line) for line in counts_file.read_text().split()])
    results = []
    for report in reports:
        values = [next(readings) for _ in range(report["readings"])]
        pairs = zip(values[::2], values[1::2], strict=False)
        results.append((report, [after - before for before, after in pairs]))
    return results


def _command(board: Board, folder: Path, counts_file: Path, what: str) -> list[str]:
    root = emulated.build_root(BOOKWORM)
    machine = CACHE / "boards" / board.name
    emulated.write_kernel_files(board, machine)
    path = ":".join(map(str, (runtimes(), root / "opt" / "onnx")))
    # Random hashes, and random addresses (setarch -R), would change the count in each run.
    environment = {"PYTHONPATH": path, "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
    return [
        *("unshare", "-Urm", "sh", "-c", MOUNT_BOARD, "mount-board", str(root), str(machine)),
        *("env", "-i", "PATH=/usr/bin", "LANG=C.UTF-8", *("setarch", "-R")),
        *(shutil.which(QEMU) or QEMU, "-cpu", board.cpu, "-L", str(root)),
        *("-plugin", ",".join((*PLUGINS[what](board.cpu), f"out={counts_file}"))),
        *(part for name, value in environment.items() for part in ("-E", f"{name}={value}")),
        *(str(root / "usr/bin/python3.11"), "-P", str(BENCHMARKS / "infer.py"), str(folder)),
    ]


def prepare() -> None:
    """Build everything that counting requires. Raises :class:`CannotEmulateError` if it cannot."""
    emulated.build_root(BOOKWORM)
    plugin()
    runtimes()
