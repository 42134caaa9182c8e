"""Functions that Dask workers call in tests. Each call appends its name to a file."""

import time
from pathlib import Path


def echo(folder: str, name: str) -> str:
    with Path(folder, "calls").open("a") as file:
        file.write(f"{name}\n")
    return name


def blocked(folder: str, name: str) -> str:
    """Returns when the file ``go`` exists."""
    echo(folder, name)
    while not Path(folder, "go").exists():
        time.sleep(0.05)
    return name
