"""Two processes write the same files, whatever their addresses in memory and seeds of hashes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sweep.sweeps import LUONG, SPECIMENS, WORDS

# Loops, whose functions a converter numbers.
CELLS = SPECIMENS / "tf2.15" / "cells.h5"


@pytest.mark.long
@pytest.mark.parametrize("model", [LUONG, WORDS, CELLS], ids=lambda path: path.stem)
def test_every_artifact_has_the_same_bytes(model: Path, tmp_path: Path) -> None:
    contents = []
    for seed in ("1", "2"):
        bundle = tmp_path / f"{seed}.edge"
        command = [sys.executable, "-P", "-m", "edgeattn", "convert", str(model), "-o", str(bundle)]
        schemes = ["--scheme", "float32", "--scheme", "dynamic_int8"]
        subprocess.run(
            [*command, *schemes, "--quiet"],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            stdout=subprocess.DEVNULL,
        )
        files = [*bundle.rglob("*.onnx"), *bundle.rglob("*.tflite")]
        contents.append({path.relative_to(bundle): path.read_bytes() for path in files})
    assert len(contents[0]) == 4
    assert contents[0] == contents[1]
