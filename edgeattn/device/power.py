"""Power consumption of a board with a readable power controller, such as a Raspberry Pi 5.

``vcgencmd pmic_read_adc`` prints the current and the voltage of each rail behind the controller.
The sum of their products is the power of the board's chips. It includes neither the losses of the
controller itself nor USB devices.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable

from edgeattn.device.info import vcgencmd

# "   VDD_CORE_A current(7)=1.14112000A"; other firmware prints "VDD_CORE_A=1.1411A".
_RAIL = re.compile(r"^\s*(\w+)_([AV])(?:\s+\w+\(\d+\))?\s*=\s*([0-9.]+)[AV]\s*$", re.M)
INTERVAL_SECONDS = 0.5


def total_watts(reading: str | None) -> float | None:
    """The power of all rails with a current and a voltage in the output of ``vcgencmd
    pmic_read_adc``; ``None`` if there is none."""
    values: dict[tuple[str, str], float] = {}
    for rail, unit, number in _RAIL.findall(reading or ""):
        try:
            values[rail, unit] = float(number)
        except ValueError:
            continue
    rails = [rail for rail, unit in values if unit == "A" and (rail, "V") in values]
    if not rails:
        return None
    return sum(values[rail, "A"] * values[rail, "V"] for rail in rails)


class PowerSampler:
    """Context manager that samples the power in a background thread.

    ``read``, by default ``vcgencmd pmic_read_adc``, is called every ``INTERVAL_SECONDS``, or only
    once if the first call returns no readable power.
    """

    def __init__(self, read: Callable[[], str | None] | None = None) -> None:
        self._read = read or (lambda: vcgencmd("pmic_read_adc"))
        self._samples: list[float] = []
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> PowerSampler:
        if total_watts(self._read()) is not None:
            self._thread = threading.Thread(target=self._sample, daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _sample(self) -> None:
        while not self._stop.wait(INTERVAL_SECONDS):
            value = total_watts(self._read())
            if value is not None:
                self._samples.append(value)

    @property
    def supported(self) -> bool:
        """Whether the board's power can be read."""
        return self._thread is not None

    @property
    def watts(self) -> float | None:
        """Mean power of the samples in watts, ``None`` if there are none."""
        return sum(self._samples) / len(self._samples) if self._samples else None
