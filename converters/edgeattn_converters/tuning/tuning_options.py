"""What a search optimizes, and over which candidates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeattn.errors import UsageError
from edgeattn.schemes import MAX_DROP
from edgeattn_converters.options import QuantizationOptions, StrPath

if TYPE_CHECKING:
    from edgeattn.benchmark.board import BoardAddress
    from edgeattn_converters.boards.pools import Pool

AIMS = ("size", "latency")


@dataclass(frozen=True)
class TuningOptions:
    """What a search optimizes, and over which candidates.

    Attributes:
        max_drop: The largest loss of the task's score at 95% confidence, from 0 to 1.
        aim: ``size`` or ``latency``.
        formats: ``tflite`` and ``onnx``; default: both.
        schemes: Schemes to combine; ``all`` stands for all but the experimental ones.
        calibration: A file of calibration samples for ``int8`` and ``int16x8``.
        raw_calibration: A file of raw inputs in its place, which the front end prepares.
        raw_data: Whether the file of samples is a raw dataset, which the front end prepares.
        max_candidates: The largest number of files to convert.
        on: The board that measures latencies; default: this machine.
        pool: Boards of which one measures latencies, in place of ``on``. Without a list of boards,
            they have joined the scheduler.
        scheduler: The address of a Dask scheduler, whose workers evaluate the candidates with one
            scheme.
    """

    max_drop: float = MAX_DROP
    aim: str = "size"
    formats: Sequence[str] = ()
    schemes: Sequence[str] = ()
    calibration: StrPath | None = None
    max_candidates: int = 80
    raw_calibration: StrPath | None = None
    raw_data: bool = False
    on: BoardAddress | None = None
    pool: Pool | None = None
    scheduler: str | None = None

    def __post_init__(self) -> None:
        if self.aim not in AIMS:
            raise UsageError(f"Unknown aim {self.aim!r}.", hint=f"Choose one of {', '.join(AIMS)}.")
        if not 0 < self.max_drop < 1:
            raise UsageError(f"max_drop is {self.max_drop:g}, but must be between 0 and 1.")

    @property
    def quantization(self) -> QuantizationOptions:
        """The calibration samples of all candidates."""
        return QuantizationOptions(
            calibration=self.calibration, raw_calibration=self.raw_calibration
        )
