"""Calls of a loaded model leave no memory behind; ``make memory`` makes a million of them."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no /proc")
def test_memory_is_flat():
    script = Path(__file__).with_name("flat_memory.py")
    process = subprocess.run(
        [sys.executable, script, "--calls", "50000"], capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stdout + process.stderr
