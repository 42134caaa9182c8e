"""Script: lists the wheels on a device and what was installed from them.

Run by :meth:`edgeattn.targets.ssh.SSHHost.run_script`. Reads the name of the virtual environment, a
folder of the home folder, as a line of JSON from standard input and prints one line of JSON. It
uses the standard library only and must run on Python 3.11.
"""

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

CACHE = Path("~/.cache/edgeattn/wheels").expanduser()


def installed_wheels(environment: Path) -> Any:
    """The record that ``install_wheels.py`` wrote, if the packages can still be imported."""
    try:
        record = json.loads((environment / "edgeattn-installed.json").read_text())
        command = [str(environment / "bin/python"), "-c", "import click, numpy, edgeattn"]
        return None if subprocess.call(command) else record
    except (OSError, ValueError):
        return None


def main() -> None:
    environment = Path.home() / json.loads(sys.stdin.buffer.readline())
    files = CACHE.iterdir() if CACHE.is_dir() else ()
    wheels = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    print(json.dumps({"wheels": wheels, "installed": installed_wheels(environment)}))


if __name__ == "__main__":
    main()
