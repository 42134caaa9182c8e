"""What the board draws, where its power controller tells: a Raspberry Pi 5's does.

``vcgencmd pmic_read_adc`` lists the current and the voltage of each rail behind the controller.
Their products, summed, are what the board's chips take; what the controller itself loses, and what
USB devices draw, is not in it.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
from collections.abc import Callable

# "   VDD_CORE_A current(7)=1.14112000A", and from other firmware "VDD_CORE_A=1.1411A".
RAIL = re.compile(r"^\s*(\w+)_([AV])(?:\s+\w+\(\d+\))?\s*=\s*([0-9.]+)[AV]\s*$", re.M)
EVERY = 0.5


def watts(told: str | None) -> float | None:
    """The power of all rails of which current and voltage are told; None where none is."""
    figures: dict[tuple[str, str], float] = {}
    for name, unit, number in RAIL.findall(told or ""):
        try:
            figures[name, unit] = float(number)
        except ValueError:
            continue
    rails = [name for name, unit in figures if unit == "A" and (name, "V") in figures]
    if not rails:
        return None
    return sum(figures[name, "A"] * figures[name, "V"] for name in rails)


def ask_controller() -> str | None:
    """What this board's power controller says; None where there is none to ask."""
    command = shutil.which("vcgencmd")
    if command is None:
        return None
    try:
        done = subprocess.run(
            [command, "pmic_read_adc"], capture_output=True, text=True, timeout=5, check=True
        )
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return done.stdout


class Sampler:
    """Asks for the power now and then while something else runs; the mean is in :attr:`watts`."""

    def __init__(self, ask: Callable[[], str | None] = ask_controller) -> None:
        self._ask = ask
        self._seen: list[float] = []
        self._done = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Sampler:
        # Where it cannot be told once, nothing more is asked.
        if watts(self._ask()) is not None:
            self._thread = threading.Thread(target=self._sample, daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        if self._thread is not None:
            self._thread.join()

    def _sample(self) -> None:
        while not self._done.wait(EVERY):
            value = watts(self._ask())
            if value is not None:
                self._seen.append(value)

    @property
    def telling(self) -> bool:
        """Whether the board tells what it draws."""
        return self._thread is not None

    @property
    def watts(self) -> float | None:
        """The mean of what was seen; None where nothing was."""
        return sum(self._seen) / len(self._seen) if self._seen else None
