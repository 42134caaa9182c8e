"""ARM instructions of one inference: no figure of ours grows by more than 2% unseen.

Counted under emulation, and no time: exact, whatever else the machine does.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys

import pytest
from emulated import PROJECT, CannotEmulate

from benchmarks import counting, instructions


@pytest.fixture(scope="module")
def prepared():
    if importlib.util.find_spec("tensorflow") is None:
        pytest.skip("making the files needs the host's half")
    try:
        counting.prepared()
    except CannotEmulate as why:
        pytest.skip(str(why))


@pytest.fixture(scope="module")
def counted(prepared, tmp_path_factory):
    """What ``make instructions`` counts of two models, by the command itself."""
    path = tmp_path_factory.mktemp("counted") / "instructions.json"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.instructions", "--quick", "--output", str(path)],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    return done, json.loads(path.read_text()) if path.exists() else None


def test_none_has_grown(counted):
    done, _ = counted
    assert done.returncode == 0, f"{done.stdout}{done.stderr[-1000:]}"


def test_what_is_counted_is_right(counted):
    """Fast and wrong is worth nothing: on the emulated core too every file says what Keras says."""
    _, document = counted
    for name in instructions.QUICK:
        for cpu in instructions.CPUS:
            for label, route in document["models"][name][cpu].items():
                assert route.get("right") or "fused" in label, (name, cpu, label, route)


def test_the_counter_counts(prepared, tmp_path):
    """Beside what is known: a loop of two instructions, 100,000 and 200,000 times round."""
    program = tmp_path / "loop"
    program.write_bytes(_program())
    program.chmod(0o755)
    counts = tmp_path / "counts.txt"
    done = subprocess.run(
        [counting.QEMU, "-plugin", f"{counting.plugin()},out={counts}", str(program)],
        check=False,
        timeout=60,
        env={"PATH": os.environ["PATH"]},
    )
    assert done.returncode == 0
    first, second, third = (int(line) for line in counts.read_text().split())
    # And seven around each: two that set the counter of the loop, five that ask.
    assert (second - first, third - second) == (2 * 100_000 + 7, 2 * 200_000 + 7)


def _program() -> bytes:
    """An ELF file for aarch64, assembled by hand, since no assembler for ARM is here.

    Asks for the count, goes round 100,000 times, asks, goes round 200,000 times, asks, exits.
    """
    import struct

    def movz(register: int, value: int, shift: int = 0) -> int:
        return 0xD2800000 | shift // 16 << 21 | value << 5 | register

    def movk(register: int, value: int, shift: int) -> int:
        return 0xF2800000 | shift // 16 << 21 | value << 5 | register

    svc = 0xD4000001
    # getpriority(0, ASKED): the number of the call in x8.
    ask = [movz(0, 0), movz(1, 0xEA77), movk(1, 0x0ED6, 16), movz(8, 141), svc]

    def loop(times: int) -> list[int]:
        subs = 0xF1000400 | 9 << 5 | 9  # subs x9, x9, #1
        back = 0x54000001 | (-1 & 0x7FFFF) << 5  # b.ne to it
        return [movz(9, times & 0xFFFF), movk(9, times >> 16, 16), subs, back]

    end = [movz(0, 0), movz(8, 93), svc]
    code = [*ask, *loop(100_000), *ask, *loop(200_000), *ask, *end]
    text = b"".join(struct.pack("<I", word) for word in code)
    base, headers = 0x400000, 64 + 56
    size = headers + len(text)
    elf = b"\x7fELF\x02\x01\x01" + bytes(9)
    elf += struct.pack("<HHIQQQIHHHHHH", 2, 183, 1, base + headers, 64, 0, 0, 64, 56, 1, 64, 0, 0)
    elf += struct.pack("<IIQQQQQQ", 1, 5, 0, base, base, size, size, 0x1000)
    return elf + text
