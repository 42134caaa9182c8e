"""Script: installs wheels into a virtual environment of a device, without an index.

Run by :meth:`edgeattn.targets.ssh.SSHHost.run_script`. Reads a line of JSON from standard input,
followed by the bytes of the new wheels. The keys of the JSON object:

    environment    name of the virtual environment, a folder of the home folder
    digests        SHA-256 of every wheel, by file name
    sizes          bytes of every new wheel, by file name, in the order in which they follow
    requirements   requirements to install from the wheels
    own            file name of edgeattn's own wheel

It uses the standard library only and must run on Python 3.11.
"""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

CACHE = Path("~/.cache/edgeattn/wheels").expanduser()


def receive(sizes: dict[str, int], digests: dict[str, str]) -> None:
    """Store the new wheels, and remove those of earlier installations."""
    CACHE.mkdir(parents=True, exist_ok=True)
    for name, size in sizes.items():
        data = sys.stdin.buffer.read(size)
        if hashlib.sha256(data).hexdigest() != digests[name]:
            sys.exit("a file was damaged in transfer: " + name)
        temporary = CACHE / ".part"
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(CACHE / name)
    for path in CACHE.iterdir():
        if path.name not in digests:
            path.unlink()


def run(*command: Any) -> None:
    process = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if process.returncode:
        sys.exit(process.stdout.decode("utf-8", "replace"))


def main() -> None:
    request = json.loads(sys.stdin.buffer.readline())
    receive(request["sizes"], request["digests"])
    environment = Path.home() / request["environment"]
    # Removed first and written last: an interrupted installation has no record.
    record = environment / "edgeattn-installed.json"
    record.unlink(missing_ok=True)
    if not (environment / "bin/pip").exists():
        run(sys.executable, "-m", "venv", "--clear", environment)
    pip = [environment / "bin/python", "-m", "pip", "install", "--quiet"]
    pip += ["--disable-pip-version-check", "--no-index", "--no-compile"]
    run(*pip, "--find-links", CACHE, *request["requirements"])
    run(*pip, "--no-deps", "--force-reinstall", CACHE / request["own"])
    record.write_text(json.dumps(request["digests"]))
    print("null")


if __name__ == "__main__":
    main()
