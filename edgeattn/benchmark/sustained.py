"""SustainedResult load: latency, temperature, throttling and power of one artifact over time.

One artifact at a time runs without a pause, unlike in :mod:`edgeattn.benchmark.latency`, where
artifacts take turns so that they can be compared. The result is a series of time windows. A window
in which the firmware reported throttling is void, because its latency measures the heat of the
board.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import TYPE_CHECKING, Any

from edgeattn import progress
from edgeattn.benchmark.latency import INPUTS, PATIENCE
from edgeattn.bundle.bundle import Bundle
from edgeattn.bundle.manifest import Artifact
from edgeattn.device.power import PowerSampler
from edgeattn.errors import ArtifactError, RuntimeUnavailableError, UsageError
from edgeattn.process.worker import WorkerDied

if TYPE_CHECKING:
    from edgeattn.targets.target import Target
    from edgeattn.tensors import Tensors

WINDOWS = 12
SHORTEST = 0.2
IDLE_SECONDS = 2.0
# The parts of a sustained run that are compared: a board is cold in the first, hot in the last.
PART = 3


@dataclass(frozen=True)
class Window:
    """A stretch of a sustained run: ``start`` in seconds, the median latency in milliseconds.

    ``throttled`` and ``temperature_c`` are None where the machine does not tell, ``watts`` where
    the board has no power controller that does.
    """

    start: float
    seconds: float
    runs: int
    p50_ms: float
    temperature_c: float | None = None
    throttled: bool | None = None
    watts: float | None = None

    @property
    def void(self) -> bool:
        return bool(self.throttled)


@dataclass(frozen=True)
class SustainedResult:
    """One artifact's windows, in order; ``reason`` says why there are none."""

    artifact: Artifact
    threads: int
    windows: tuple[Window, ...] = ()
    idle_watts: float | None = None
    runtime: str | None = None
    reason: str | None = None
    unavailable: bool = False

    @property
    def first_ms(self) -> float | None:
        """The median over the first third of the windows that count."""
        return self._middle(slice(None, max(1, self._counting // PART)))

    @property
    def last_ms(self) -> float | None:
        """The median over the last third of the windows that count."""
        return self._middle(slice(-max(1, self._counting // PART), None))

    @property
    def _valid(self) -> list[Window]:
        return [window for window in self.windows if not window.void]

    @property
    def _counting(self) -> int:
        return len(self._valid)

    def _middle(self, part: slice) -> float | None:
        chosen = [window.p50_ms for window in self._valid[part]]
        return median(chosen) if chosen else None

    @property
    def runs(self) -> int:
        return sum(window.runs for window in self._valid)

    @property
    def void(self) -> int:
        """Runs in windows that do not count."""
        return sum(window.runs for window in self.windows if window.void)

    @property
    def temperature_c(self) -> tuple[float, float] | None:
        """At the end of the first window, and the highest."""
        seen = [w.temperature_c for w in self.windows if w.temperature_c is not None]
        return (seen[0], max(seen)) if seen else None

    @property
    def millijoules(self) -> tuple[float, float] | None:
        """The energy of one run: the whole board's, and what it takes beyond an idle board's."""
        told = [w for w in self._valid if w.watts is not None and w.runs]
        if not told or self.idle_watts is None:
            return None
        seconds = sum(w.seconds for w in told)
        runs = sum(w.runs for w in told)
        whole = sum((w.watts or 0.0) * w.seconds for w in told)
        return 1e3 * whole / runs, 1e3 * (whole - self.idle_watts * seconds) / runs

    def to_json(self) -> dict[str, Any]:
        energy = self.millijoules
        return {
            "format": self.artifact.format,
            "scheme": self.artifact.scheme,
            "runtime": self.runtime,
            "threads": self.threads,
            "runs": self.runs,
            "void": self.void,
            "first_p50_ms": self.first_ms,
            "last_p50_ms": self.last_ms,
            "idle_watts": self.idle_watts,
            "energy_mj": None if energy is None else energy[0],
            "energy_above_idle_mj": None if energy is None else energy[1],
            "windows": [asdict(window) for window in self.windows],
            "reason": self.reason,
        }


def measure_sustained(
    bundle: Bundle,
    artifacts: tuple[Artifact, ...],
    place: Target,
    *,
    seconds: float,
    threads: Sequence[int] = (1,),
) -> tuple[SustainedResult, ...]:
    """Run each artifact for ``seconds`` without a pause, for each number of threads in turn.

    Raises :class:`BundleError` where the files are not those the bundle was made with.
    """
    from edgeattn.targets.target import identify

    bundle.verify()
    with place.start() as child:
        identify(place, bundle, child)
    reference = bundle.reference()
    found = []
    for count in threads:
        for artifact in artifacts:
            told = SustainedResult(artifact, count)
            found.append(_sustained(told, place, reference, seconds))
    return tuple(found)


def _sustained(
    told: SustainedResult,
    place: Target,
    reference: Tensors,
    seconds: float,
) -> SustainedResult:
    artifact = told.artifact
    inputs = {spec.name: reference[f"input/{spec.name}"][:INPUTS] for spec in artifact.inputs}
    asked = {"folder": place.folder, "artifact": artifact.to_json(), "threads": told.threads}
    length = max(SHORTEST, seconds / WINDOWS)
    windows: list[Window] = []
    with place.start() as child:
        try:
            ready, _ = child.call(
                "edgeattn.benchmark.latency:prepare", asked, inputs, timeout=PATIENCE
            )
            told = replace(told, runtime=ready["runtime"])
            idle, _ = child.call("edgeattn.benchmark.sustained:rest", {"seconds": IDLE_SECONDS})
            told = replace(told, idle_watts=idle["watts"])
            begun = time.monotonic()
            while (start := time.monotonic() - begun) < seconds or not windows:
                progress.report(f"{artifact.label}: {start:.0f} of {seconds:.0f} s under load")
                window, _ = child.call(
                    "edgeattn.benchmark.sustained:hold",
                    {"seconds": length},
                    timeout=PATIENCE + length,
                )
                windows.append(Window(start=round(start, 3), **window))
        except RuntimeUnavailableError as error:
            told = replace(told, reason=error.message, unavailable=True)
        except (ArtifactError, UsageError) as error:
            told = replace(told, reason=error.message)
        except WorkerDied as error:
            told = replace(told, reason=f"The runtime {error.message}.")
    return replace(told, windows=tuple(windows))


# In the worker process, in which edgeattn.benchmark.latency.prepare has loaded the artifact.


def rest(seconds: float) -> dict[str, Any]:
    """In the child: what the board draws while nothing runs."""
    with PowerSampler() as sampler:
        # A board that does not tell is not waited for.
        if sampler.supported:
            time.sleep(seconds)
    return {"watts": sampler.watts}


def hold(seconds: float) -> dict[str, Any]:
    """In the child: runs without a pause for ``seconds``, and what the board said meanwhile."""
    from edgeattn.benchmark.latency import measure

    start = time.perf_counter()
    with PowerSampler() as sampler:
        told, arrays = measure(MOST, seconds)
    nanoseconds = arrays["nanoseconds"]
    return {
        "seconds": time.perf_counter() - start,
        "runs": len(nanoseconds),
        "p50_ms": float(median(nanoseconds.tolist())) / 1e6,
        "temperature_c": told["temperature_c"],
        "throttled": told["throttled"],
        "watts": sampler.watts,
    }


# Runs of a window, at most: eight bytes are kept of each.
MOST = 1_000_000
