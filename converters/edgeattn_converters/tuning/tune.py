"""Searches schemes, lowerings and mixtures of schemes for the best artifact of a model."""

from __future__ import annotations

import contextlib
import math
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeattn import progress
from edgeattn.bundle.bundle import Bundle
from edgeattn.bundle.manifest import REFERENCE, Artifact, Manifest, sha256, write_manifest
from edgeattn.bundle.writer import check_new_bundle, new_bundle
from edgeattn.errors import OutputError, UsageError
from edgeattn.files import reserved
from edgeattn.frontend.description import FRONTEND
from edgeattn.metrics.verdict import INCONCLUSIVE
from edgeattn.schemes import FORMATS, MAX_DROP
from edgeattn.version import __version__
from edgeattn_converters import nothing_converted
from edgeattn_converters.option_conflicts import Request, check_combination
from edgeattn_converters.options import (
    ConversionOptions,
    ModelSource,
    QuantizationOptions,
    StrPath,
)
from edgeattn_converters.recipes import ALL, RECIPES, default_schemes, expand_schemes
from edgeattn_converters.tuning.evaluation import (
    CandidateEvaluator,
    ResultStore,
    has_results,
    timed,
)
from edgeattn_converters.tuning.preparation import prepare_search, prepared_data
from edgeattn_converters.tuning.search import (
    LEVELS,
    LOWERINGS,
    Candidate,
    Layer,
    Result,
    SearchResult,
    Space,
    best,
    frontier,
    search,
)
from edgeattn_converters.worker.client import ConversionWorker

if TYPE_CHECKING:
    from edgeattn.metrics.limits import Limit

__all__ = ["AIMS", "TuningOptions", "TuningResult", "tune"]

AIMS = ("size", "latency")
# Latency is measured at the end, for the smallest that pass: how many, runs of each, seconds.
TIMED, RUNS, SECONDS = 16, 256, 60.0


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
    """

    max_drop: float = MAX_DROP
    aim: str = "size"
    formats: Sequence[str] = ()
    schemes: Sequence[str] = ()
    calibration: StrPath | None = None
    max_candidates: int = 80
    raw_calibration: StrPath | None = None
    raw_data: bool = False

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


@dataclass(frozen=True)
class TuningResult:
    """The bundle with the ``chosen`` artifact, and all results of the search.

    Attributes:
        best_uniform: The best result without a mixture, if one passes.
        untried: What the search left out, with the reason; empty if it was complete.
    """

    bundle: Bundle
    chosen: Result
    best_uniform: Result | None
    results: tuple[Result, ...]
    frontier: tuple[Result, ...]
    reference_scores: Mapping[str, float]
    options: TuningOptions
    untried: tuple[tuple[str, str], ...] = ()

    @property
    def exit_code(self) -> int:
        """0 if the chosen artifact passes, 6 if that is inconclusive, else 1."""
        if self.chosen.passed:
            return 0
        return 6 if self.chosen.verdict == INCONCLUSIVE else 1


def tune(
    source: StrPath | ModelSource,
    data: StrPath,
    output: StrPath | None = None,
    *,
    options: TuningOptions = TuningOptions(),
    force: bool = False,
) -> TuningResult:
    """Search for the smallest or fastest artifact of a model that passes.

    ``source`` is a path or a :class:`ModelSource`, ``data`` a file of samples with labels. The
    bundle is written to ``output``, by default ``MODEL.tuned.edge`` beside the model. Results are
    stored beside it until the search is complete; the same call resumes an interrupted search.

    If no candidate passes, the closest one is chosen. Raises :class:`ConversionError` if none can
    be converted, and :class:`UsageError` if an argument, or the data, is invalid.
    """
    source = ModelSource.of(source)
    quantization = options.quantization
    _check_options(source, data, options)
    target = Path(output) if output is not None else source.beside(".tuned.edge")
    check_new_bundle(target, force=force)
    with (
        _search_folder(target) as folder,
        tempfile.TemporaryDirectory() as temporary,
        ConversionWorker() as worker,
    ):
        workspace = Path(temporary)
        prepared = None if options.raw_data else str(data)
        worker.check(
            source, ConversionOptions(), calibration=quantization.calibration, data=prepared
        )
        evaluator = prepare_search(
            worker, source, quantization, folder, data=prepared, workspace=workspace
        )
        store = ResultStore(folder, _inputs(source, data, options, evaluator.manifest))
        layers = worker.call("describe_layers", evaluator.request, activity="listing the layers")
        space = _space(layers, options)
        first = _first_file(evaluator, space, store)
        samples = Path(data)
        if options.raw_data:
            samples = prepared_data(evaluator, first[1], samples, workspace)
        scores = _load_task(evaluator, first[1], samples, options.max_drop)

        def evaluate(candidate: Candidate, task: bool) -> Result:
            return _stored_result(evaluator, store, candidate, task, first)

        searched = search(space, evaluate, max_candidates=options.max_candidates)
        results = _with_latencies(searched.results, folder, evaluator.manifest)
        chosen = best(results, options.aim)
        if chosen is None:
            reasons = {r.candidate.label: r.shortfall for r in results}
            raise nothing_converted(Path(source.path), reasons)
        with new_bundle(target, force=force) as bundle_folder:
            manifest = _write_bundle(bundle_folder, evaluator, chosen, options)
        shutil.rmtree(folder, ignore_errors=True)
    uniform = [r for r in results if r.passed and not r.candidate.precision]
    return TuningResult(
        bundle=Bundle(target, manifest),
        chosen=chosen,
        best_uniform=best(uniform, options.aim),
        results=results,
        frontier=frontier([r for r in results if r.score is not None], options.aim),
        reference_scores=scores,
        options=options,
        untried=_untried(searched, results, options),
    )


def _check_options(source: ModelSource, data: StrPath, options: TuningOptions) -> None:
    """Raise :class:`UsageError` if a file is missing, or an option has no effect."""
    source.check_files()
    if not Path(source.path).is_file():
        raise UsageError(f"{source.path} is a folder.", hint="Pass a Keras .h5 or .keras file.")
    if not Path(data).is_file():
        if options.raw_data:
            hint = "Pass a .jsonl or .npz with labels 'y'."
            raise UsageError(f"--raw-data: no such file: {data}", hint=hint)
        raise UsageError(f"--data: no such file: {data}", hint="Pass an .npz with labels 'y'.")
    quantization = options.quantization
    conversion = ConversionOptions(formats=options.formats, schemes=options.schemes)
    conversion = conversion.with_defaults(calibrated=quantization.calibrated)
    request = Request(source, conversion, quantization)
    check_combination(request, named_schemes=tuple(options.schemes))
    quantization.check_files()


@contextlib.contextmanager
def _search_folder(target: Path) -> Iterator[Path]:
    """The folder with the files of the search; it is removed if it contains no results."""
    folder = target.with_name(f".{target.name}.search")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".writable").touch()
        (folder / ".writable").unlink()
    except OSError as error:
        raise OutputError(
            f"Cannot write to {folder.parent}: {error.strerror or error}",
            hint="Choose another folder with -o DIR.",
        ) from error
    # Two searches with one output would mix their files.
    with reserved(folder):
        try:
            yield folder
        except BaseException:
            if not has_results(folder):
                shutil.rmtree(folder, ignore_errors=True)
            raise


def _inputs(
    source: ModelSource, data: StrPath, options: TuningOptions, manifest: Manifest
) -> dict[str, Any]:
    """Everything that results depend on besides the candidate."""
    files = {
        "model": source.path,
        "data": data,
        "samples": source.samples,
        "raw_samples": source.raw_samples,
        "calibration": options.calibration,
        "raw_calibration": options.raw_calibration,
    }
    loading = source.to_json()
    # The contents of these files decide, not their paths.
    for name in ("path", "samples", "raw_samples", "preprocess", "labels"):
        del loading[name]
    return {
        "edgeattn": __version__,
        "files": {kind: sha256(Path(path)) for kind, path in files.items() if path is not None},
        "loading": loading,
        "max_drop": options.max_drop,
        "reference": manifest.reference["sha256"],
        "raw_data": options.raw_data,
        "frontend": None if manifest.frontend is None else manifest.frontend["sha256"],
    }


def _space(layers: Mapping[str, Any], options: TuningOptions) -> Space:
    schemes = expand_schemes(options.schemes, calibrated=options.quantization.calibrated)
    # float32 is always included, as the baseline.
    ordered = sorted({"float32", *schemes}, key=list(RECIPES).index)
    uniform = []
    for format in tuple(options.formats) or FORMATS:
        lowerings = LOWERINGS if format == "tflite" and layers["recurrent"] else ("auto",)
        uniform += [
            Candidate(format, scheme, lowering) for scheme in ordered for lowering in lowerings
        ]
    levels = tuple(level for level in LEVELS if level in ordered)
    return Space(
        tuple(uniform),
        tuple(Layer(str(name), int(size)) for name, size in layers["layers"]),
        levels,
    )


def _first_file(
    evaluator: CandidateEvaluator, space: Space, store: ResultStore
) -> tuple[Candidate, Artifact]:
    """Any candidate that can be converted; its specs are needed to read the task's samples."""
    reasons = {}
    for candidate in space.uniform:
        result = store.get(candidate, False)
        if result is not None and result.artifact:
            return candidate, Artifact.from_json(result.artifact)
        converted = evaluator.convert(candidate) if result is None else None
        if isinstance(converted, Artifact):
            return candidate, converted
        reasons[candidate.label] = result.shortfall if result else str(converted)
    raise nothing_converted(Path(evaluator.source.path), reasons)


def _stored_result(
    evaluator: CandidateEvaluator,
    store: ResultStore,
    candidate: Candidate,
    task: bool,
    first: tuple[Candidate, Artifact],
) -> Result:
    """The stored result, or a new one that reuses a file that was converted before."""
    result = store.get(candidate, task)
    if result is None:
        progress.report(f"evaluating {candidate.label} ({len(store)} done)")
        artifact = first[1] if candidate == first[0] else None
        without_task = store.get(candidate, False)
        if without_task is not None and without_task.artifact:
            artifact = Artifact.from_json(without_task.artifact)
        result = evaluator.evaluate(candidate, task, artifact)
        store.add(result, task)
    return result


def _load_task(
    evaluator: CandidateEvaluator, artifact: Artifact, data: Path, max_drop: float
) -> dict[str, float]:
    """Read the task's samples without those in the calibration; the scores of Keras by output."""
    from edgeattn.evaluation.file_dataset import read_dataset
    from edgeattn.evaluation.score_comparison import compare_scores

    achieved = {
        **artifact.achieved,
        "calibration": {"digests": evaluator.calibration_fingerprints()},
    }
    manifest = replace(evaluator.manifest, artifacts=(replace(artifact, achieved=achieved),))
    dataset = read_dataset(data, Bundle(evaluator.folder, manifest), evaluator.source.ignore)
    dataset = dataset.with_keras_outputs(evaluator.keras_outputs)
    scores = {}
    for name, labels in dataset.labels.items():
        outputs = dataset.reference_outputs[name]
        result = compare_scores(name, labels, outputs, outputs)
        scores[name] = result.reference_score
    evaluator.dataset = dataset
    evaluator.limits = tuple(_limit(name, score, max_drop) for name, score in scores.items())
    return scores


def _limit(output: str, score: float, max_drop: float) -> Limit:
    """The limit that makes the score decide, for every scheme: the share of it to retain."""
    from edgeattn.metrics.limits import Limit

    if not score > 0 or not math.isfinite(score):
        raise UsageError(
            f"Keras scores {score:.3g} with output {output!r} on these samples.",
            hint="Check that the labels belong to this model.",
        )
    return Limit("retention", max(0.0, 1.0 - max_drop / score), output)


def _with_latencies(
    results: tuple[Result, ...], folder: Path, manifest: Manifest
) -> tuple[Result, ...]:
    """The results, with the latencies of the smallest that pass, or of the closest."""
    passing = [r for r in results if r.passed]
    closest = best(results, "size")
    chosen = sorted(passing, key=lambda r: r.bytes or 0)[:TIMED] or ([closest] if closest else [])
    by_candidate = {
        r.candidate: r for r in timed(chosen, folder, manifest, runs=RUNS, seconds=SECONDS)
    }
    return tuple(by_candidate.get(r.candidate, r) for r in results)


def _untried(
    searched: SearchResult, results: Sequence[Result], options: TuningOptions
) -> tuple[tuple[str, str], ...]:
    """What could be better than the chosen artifact and was not evaluated, with the reason."""
    budget = f"--most {options.max_candidates}"
    untried = [(candidate.label, budget) for candidate in searched.untried]
    if not searched.mixtures:
        untried.append(("mixtures of schemes", budget))
    if not options.quantization.calibrated and (not options.schemes or ALL in options.schemes):
        untried += [
            (scheme, "no --calibration")
            for scheme in default_schemes(calibrated=True)
            if RECIPES[scheme].needs_calibration
        ]
    passing = [result for result in results if result.passed]
    not_timed = sum(result.p50_ms is None for result in passing)
    if options.aim == "latency" and not_timed:
        untried.append((f"latency of {not_timed} others", f"only {TIMED} are timed"))
    return tuple(untried)


def _write_bundle(
    folder: Path, evaluator: CandidateEvaluator, chosen: Result, options: TuningOptions
) -> Manifest:
    """Write the bundle of the chosen artifact to ``folder``."""
    artifact = Artifact.from_json(chosen.artifact)
    candidate = chosen.candidate
    path = f"{Path(evaluator.source.path).stem}.{candidate.scheme}.{candidate.format}"
    tuned = {
        "aim": options.aim,
        "max_drop": options.max_drop,
        "lowering": candidate.lowering,
        "precision": dict(candidate.precision),
        "verdict": chosen.verdict,
        "shortfall": chosen.shortfall,
    }
    achieved = {**artifact.achieved, "tuned": tuned}
    shutil.copyfile(evaluator.folder / artifact.path, folder / path)
    for name in (REFERENCE, *([FRONTEND] if evaluator.manifest.frontend else [])):
        shutil.copyfile(evaluator.folder / name, folder / name)
    renamed = replace(artifact, path=path, achieved=achieved)
    manifest = replace(evaluator.manifest, artifacts=(renamed,))
    write_manifest(folder, manifest)
    return manifest
