"""Script: describes the system of a device that may not have edgeattn.

Run by :meth:`edgeattn.targets.ssh.SSHHost.run_script`. Reads a JSON list of file patterns, relative
to ``/``, from standard input and prints one line of JSON. It uses the standard library only and
must run on Python 3.5, so that a system that is too old is reported as such.
"""

import glob
import json
import os
import platform
import shutil
import subprocess
import sys
from typing import Dict, List


def read_files(patterns: List[str]) -> Dict[str, str]:
    """The text of the readable files that match ``patterns``, by their path relative to ``/``."""
    texts = {}
    for pattern in patterns:
        for path in sorted(glob.glob("/" + pattern)):
            try:
                with open(path, "rb") as file:
                    texts[path[1:]] = file.read(1 << 16).decode("utf-8", "replace")
            except OSError:
                pass
    return texts


def can_import(module: str) -> bool:
    try:
        __import__(module)
    except Exception:
        return False
    return True


def main() -> None:
    texts = read_files(json.loads(sys.stdin.buffer.readline().decode()))
    # Not the working folder: ssh may start in another one.
    home = os.path.expanduser("~")
    firmware = None
    try:
        firmware = subprocess.check_output(["vcgencmd", "get_throttled"], timeout=5).decode()
    except Exception:
        pass
    snapshot = {
        "files": texts,
        "firmware": firmware,
        "machine": platform.machine(),
        "bits": 64 if sys.maxsize > 2**32 else 32,
        "version": list(sys.version_info[:2]),
        "python": platform.python_version(),
        "libc": " ".join(platform.libc_ver()),
        "cores": os.cpu_count(),
        "free_bytes": shutil.disk_usage(home if os.path.isdir(home) else "/").free,
        "venv": can_import("venv") and can_import("ensurepip"),
    }
    print(json.dumps(snapshot))


if __name__ == "__main__":
    main()
