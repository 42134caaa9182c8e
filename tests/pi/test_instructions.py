"""ARM instructions of one inference: no count of edgeattn grows by more than 2%.

Counts are made under emulation; they are exact and do not depend on other load.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys

import pytest
from emulated import PROJECT, CannotEmulateError

from benchmarks import counting, instruction_tables, instructions

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def emulator():
    if importlib.util.find_spec("tensorflow") is None:
        pytest.skip("converting the models requires TensorFlow")
    try:
        counting.prepare()
    except CannotEmulateError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def quick_run(emulator, tmp_path_factory):
    """The result and the document of a quick run of the command."""
    path = tmp_path_factory.mktemp("instructions") / "instructions.json"
    result = subprocess.run(
        [sys.executable, "-m", "benchmarks.instructions", "--quick", "--output", str(path)],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
        timeout=3600,
    )
    return result, json.loads(path.read_text()) if path.exists() else None


def test_no_count_has_grown(quick_run):
    result, _ = quick_run
    assert result.returncode == 0, f"{result.stdout}{result.stderr[-1000:]}"


def test_counted_files_are_correct(quick_run):
    """The outputs on the emulated core agree with Keras, unless the page says "(incorrect)"."""
    _, document = quick_run
    recorded = json.loads(instructions.RECORDED.read_text())["models"]
    for name in instructions.QUICK:
        for cpu in instruction_tables.CPUS:
            for label, route in document["models"][name][cpu].items():
                if recorded[name][cpu][label].get("correct") and "fused" not in label:
                    assert route.get("correct"), (name, cpu, label, route)
                assert route.get("correct") or "int8" in label or "fused" in label


def test_plugin_counts_a_known_loop(emulator, tmp_path):
    """A loop of two instructions with 100,000 and with 200,000 iterations."""
    program = tmp_path / "loop"
    program.write_bytes(_program())
    program.chmod(0o755)
    counts = tmp_path / "counts.txt"
    result = subprocess.run(
        [counting.QEMU, "-plugin", f"{counting.plugin()},out={counts}", str(program)],
        check=False,
        timeout=600,
        env={"PATH": os.environ["PATH"]},
    )
    assert result.returncode == 0
    first, second, third = (int(line) for line in counts.read_text().split())
    # Plus seven instructions per loop: two set its counter, five request the count.
    assert (second - first, third - second) == (2 * 100_000 + 7, 2 * 200_000 + 7)


def _program() -> bytes:
    """Return an ELF file for aarch64, assembled by hand to need no cross-assembler.

    It requests the count before, between and after loops of 100,000 and 200,000 iterations.
    """
    import struct

    def movz(register: int, value: int, shift: int = 0) -> int:
        return 0xD2800000 | shift // 16 << 21 | value << 5 | register

    def movk(register: int, value: int, shift: int) -> int:
        return 0xF2800000 | shift // 16 << 21 | value << 5 | register

    svc = 0xD4000001
    # getpriority(0, COUNT_REQUEST), with the number of the system call in x8.
    request = [movz(0, 0), movz(1, 0xEA77), movk(1, 0x0ED6, 16), movz(8, 141), svc]

    def loop(times: int) -> list[int]:
        subs = 0xF1000400 | 9 << 5 | 9  # subs x9, x9, #1
        back = 0x54000001 | (-1 & 0x7FFFF) << 5  # b.ne to subs
        return [movz(9, times & 0xFFFF), movk(9, times >> 16, 16), subs, back]

    end = [movz(0, 0), movz(8, 93), svc]
    code = [*request, *loop(100_000), *request, *loop(200_000), *request, *end]
    text = b"".join(struct.pack("<I", word) for word in code)
    base, headers = 0x400000, 64 + 56
    size = headers + len(text)
    elf = b"\x7fELF\x02\x01\x01" + bytes(9)
    elf += struct.pack("<HHIQQQIHHHHHH", 2, 183, 1, base + headers, 64, 0, 0, 64, 56, 1, 64, 0, 0)
    elf += struct.pack("<IIQQQQQQ", 1, 5, 0, base, base, size, size, 0x1000)
    return elf + text
