"""``edgeattn.tune``"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeattn.api.arguments import (
    StrPath,
    check_positive,
    check_writable,
    checked_formats,
    checked_schemes,
    optional_path,
    refuse_access,
)
from edgeattn.api.input_sizes import InputShapes, Lengths, sizes_of_inputs
from edgeattn.api.result import Result, number
from edgeattn.api.sources import (
    ModelLike,
    SamplesLike,
    Workspace,
    default_output,
    keras_file,
    sample_file,
    workspace_for,
)
from edgeattn.cluster.libraries import DASK, require
from edgeattn.converters import import_converters
from edgeattn.errors import UsageError
from edgeattn.printable import counted
from edgeattn.schemes import MAX_DROP

if TYPE_CHECKING:
    from edgeattn.benchmark.board import BoardAddress
    from edgeattn.bundle.bundle import Bundle
    from edgeattn_converters.boards.pools import Pool
    from edgeattn_converters.tuning.result import TuningResult
    from edgeattn_converters.tuning.search import Result as Candidate

MAX_CANDIDATES = 80


@dataclass(frozen=True, repr=False)
class TuneResult(Result):
    """The chosen artifact, in a bundle of its own, and all candidates of the search.

    Attributes:
        search: The chosen candidate, the others and their scores.
        model_file: The Keras file.
    """

    search: TuningResult
    model_file: Path
    _workspace: Workspace = field(compare=False)

    @property
    def bundle(self) -> Bundle:
        """The bundle with the chosen artifact."""
        bundle: Bundle = self.search.bundle
        return bundle

    @property
    def verdict(self) -> str:
        """That of the chosen artifact on the data."""
        return str(self.search.chosen.verdict)

    @property
    def exit_code(self) -> int:
        """0 if the chosen artifact passes, 6 if that is inconclusive, else 1."""
        return int(self.search.exit_code)

    def plot(self) -> Any:
        """A figure of score and latency against size, of all candidates."""
        from edgeattn.report import frontier

        return frontier.figure(*self._points())

    def save_plot(self, path: StrPath) -> None:
        """Write the figure to an .svg or .png file."""
        from edgeattn.report import frontier

        points, floor, place = self._points()
        frontier.draw(points, Path(path), floor=floor, place=place)

    def _points(self) -> tuple[list[Any], float | None, str]:
        """The candidates with a score, the lowest allowed score, and where they were timed."""
        from edgeattn.report import frontier

        result = self.search
        points = [
            frontier.Point(
                item.candidate.label,
                item.bytes or 0,
                item.score,
                item.p50_ms,
                item.passed,
                item.candidate == result.chosen.candidate,
                item.interval_ms,
            )
            for item in result.results
            if item.score is not None
        ]
        scores = list(result.reference_scores.values())
        # Scores of several outputs have different lowest values.
        floor = scores[0] - result.options.max_drop if len(scores) == 1 else None
        return points, floor, self._place or frontier.HERE

    @property
    def _place(self) -> str | None:
        """The board that measured the latencies; None for this machine."""
        options = self.search.options
        if options.pool is not None:
            measured = self.search.measured
            return str(options.pool.name if measured is None else measured["on"])
        return None if options.on is None else options.on.destination

    def _document(self) -> dict[str, Any]:
        return as_document(self.search)

    def _summary(self) -> str:
        chosen = self.search.chosen
        return (
            f"{self.bundle.path.name}: {chosen.verdict}, {chosen.candidate.label}, "
            f"{chosen.bytes or 0:,} bytes, {counted(len(self.search.results), 'candidate')}"
        )

    def _table(self) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
        header = ["verdict", "candidate", "size (kB)", "score", "median latency (ms)"]
        return header, [
            [
                item.verdict,
                item.candidate.label,
                f"{(item.bytes or 0) / 1000:,.1f}",
                number(item.score, ".4f"),
                number(item.p50_ms, ".3f"),
            ]
            for item in self.search.frontier or (self.search.chosen,)
        ]


def tune(
    model: ModelLike,
    data: SamplesLike = None,
    output: StrPath | None = None,
    *,
    raw_data: SamplesLike = None,
    calibration: SamplesLike = None,
    raw_calibration: StrPath | None = None,
    max_drop: float = MAX_DROP,
    aim: str = "size",
    formats: str | Sequence[str] = (),
    schemes: str | Sequence[str] = (),
    samples: SamplesLike = None,
    raw_samples: StrPath | None = None,
    time_steps: Lengths | None = None,
    input_shapes: InputShapes | None = None,
    preprocess: StrPath | None = None,
    labels: StrPath | None = None,
    ignore: Sequence[str] = (),
    custom_objects: StrPath | None = None,
    architecture: str | None = None,
    signature: str | None = None,
    trust: str | None = None,
    max_candidates: int = MAX_CANDIDATES,
    plot: StrPath | None = None,
    force: bool = False,
    on: str | None = None,
    python: str | None = None,
    ssh_config: StrPath | None = None,
    scheduler: str | None = None,
    device: str | None = None,
) -> TuneResult:
    """Search for the smallest or fastest artifact of a model that passes on your data.

    Args:
        model: A ``keras.Model``, the path of a .h5 or .keras file, or the result of
            ``edgeattn.convert``.
        data: Samples with labels: a path, or a pair of inputs and labels.
        raw_data: A raw dataset in place of ``data``, which the front end prepares.
        output: The bundle. Default: ``MODEL.tuned.edge`` beside the file, and in the current
            folder for a model in memory; for a result, beside its bundle.
        aim: What to minimize: ``size`` or ``latency``.
        on: The host on which latencies are measured. Default: this machine.
        scheduler: The address of a Dask scheduler, whose workers convert and evaluate the
            candidates with one scheme. They need the model and the samples at the same paths.
        device: A pool of boards in place of ``on``: ``NAME=USER@HOST,USER@HOST``, or ``NAME`` if
            the boards joined the scheduler. One of them measures; if it fails, another one.

    The other arguments are the options of ``edgeattn tune``; ``max_candidates`` is ``--most``.
    """
    from edgeattn.samples.files import check_ignored

    check_positive(max_candidates=max_candidates)
    formats, schemes = checked_formats(formats), checked_schemes(schemes)
    converters = import_converters()
    tuning = import_converters("edgeattn_converters.tuning.tune")
    workspace = workspace_for(model)
    file = keras_file(model, workspace)
    if output is None:
        output = default_output(model, file, ".tuned.edge")
    data_path, sample_path, calibration_path = (
        sample_file(values, workspace, name)
        for values, name in ((data, "data"), (samples, "samples"), (calibration, "calibration"))
    )
    raw_path = sample_file(raw_data, workspace, "raw_data")
    if data_path is not None and raw_path is not None:
        raise UsageError("--raw-data and --data exclude each other.", hint="Omit one of them.")
    task_path = data_path or raw_path
    if task_path is None:
        raise UsageError(
            "There is no data to tune on.",
            hint="Pass a file of samples with labels: --data FILE or --raw-data FILE.",
        )
    check_ignored(ignore, data_path, sample_path, calibration_path)
    if plot is not None:
        _check_plot(Path(plot))
    if scheduler is not None:
        require(*DASK, purpose="--scheduler")
        if raw_path is not None or raw_calibration is not None or raw_samples is not None:
            raise UsageError(
                "--scheduler has no effect with raw data, which are prepared on this machine.",
                hint="Omit --scheduler, or pass prepared inputs with --data.",
            )
        calibration_path = None if calibration_path is None else calibration_path.absolute()
    board, pool = _boards(on, device, optional_path(ssh_config), python, scheduler)
    search = tuning.tune(
        converters.ModelSource(
            file,
            samples=sample_path,
            **sizes_of_inputs(time_steps, input_shapes),
            custom_objects=custom_objects,
            architecture=architecture,
            signature=signature,
            trust=trust,
            ignore=ignore,
            preprocess=preprocess,
            labels=labels,
            raw_samples=raw_samples,
        ),
        task_path,
        optional_path(output),
        options=tuning.TuningOptions(
            max_drop=max_drop,
            aim=aim,
            formats=formats,
            schemes=schemes,
            calibration=calibration_path,
            raw_calibration=raw_calibration,
            raw_data=raw_path is not None,
            max_candidates=max_candidates,
            on=board,
            pool=pool,
            scheduler=scheduler,
        ),
        force=force,
    )
    result = TuneResult(search, file, workspace)
    if plot is not None:
        result.save_plot(plot)
    return result


def _boards(
    on: str | None,
    device: str | None,
    config: Path | None,
    python: str | None,
    scheduler: str | None,
) -> tuple[BoardAddress | None, Pool | None]:
    """The board of ``--on``, and the pool of ``--device``."""
    if on is not None and device is not None:
        raise UsageError("--on and --device exclude each other.", hint="Omit one of them.")
    if device is not None:
        require(*DASK, purpose="--device")
        pools = import_converters("edgeattn_converters.boards.pools")
        (pool,) = pools.parse_pools((device,), python, config, scheduler=scheduler is not None)
        return None, pool
    if on is not None:
        from edgeattn.benchmark.board import BoardAddress
        from edgeattn.targets.ssh import parse_destination

        return BoardAddress(parse_destination(on), python, config), None
    refuse_access(python, config, without="--on or --device")
    return None, None


def _check_plot(plot: Path) -> None:
    if plot.suffix.lower() not in (".svg", ".png"):
        raise UsageError(f"Unknown format of plots: {plot.name}.", hint="Use .svg or .png.")
    check_writable(plot)
    from edgeattn.plots import style

    style.require("matplotlib", extra="report")


def as_document(result: TuningResult) -> dict[str, Any]:
    """The document of ``--json``, whose keys scripts may rely on."""
    uniform = result.best_uniform
    return {
        "bundle": str(result.bundle.path),
        "aim": result.options.aim,
        "max_drop": result.options.max_drop,
        "reference": dict(result.reference_scores),
        "latency": None if result.measured is None else dict(result.measured),
        "chosen": _entry(result.chosen, result),
        "best_single": None if uniform is None else _entry(uniform, result),
        "frontier": [_entry(item, result) for item in result.frontier],
        "tried": [_entry(item, result) for item in result.results],
        "untried": [{"what": what, "reason": reason} for what, reason in result.untried],
        "lost": dict(result.lost),
    }


def _entry(result: Candidate, search: TuningResult) -> dict[str, Any]:
    candidate = result.candidate
    return {
        "format": candidate.format,
        "scheme": candidate.scheme,
        "lowering": candidate.lowering,
        "precision": dict(candidate.precision),
        "verdict": result.verdict,
        "bytes": result.bytes,
        "output": result.output,
        "score": result.score,
        "scores": dict(result.scores),
        "drop": None if result.drop is None else result.drop[0],
        "interval": None if result.drop is None else list(result.drop[1:]),
        "excess": result.excess,
        "p50_ms": result.p50_ms,
        "interval_ms": None if result.interval_ms is None else list(result.interval_ms),
        "compared_with_fastest": search.compare_with_fastest(result),
        "shortfall": result.shortfall,
    }
