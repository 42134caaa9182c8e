"""Searches schemes, lowerings and mixtures of schemes for the best artifact of a model."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeattn import progress
from edgeattn.bundle.bundle import Bundle
from edgeattn.bundle.manifest import Artifact
from edgeattn.bundle.writer import check_new_bundle, new_bundle
from edgeattn.errors import UsageError
from edgeattn.schemes import FORMATS
from edgeattn_converters import nothing_converted
from edgeattn_converters.option_conflicts import Request, check_combination
from edgeattn_converters.options import ConversionOptions, ModelSource, StrPath
from edgeattn_converters.recipes import RECIPES, expand_schemes
from edgeattn_converters.tuning.evaluation import CandidateEvaluator, ResultStore
from edgeattn_converters.tuning.latency import (
    Candidates,
    Choice,
    MeasuringDevice,
    choose,
    choose_on_board,
)
from edgeattn_converters.tuning.preparation import (
    load_task,
    prepare_search,
    prepared_data,
    search_folder,
    search_inputs,
)
from edgeattn_converters.tuning.result import (
    TuningResult,
    untried_candidates,
    write_bundle,
)
from edgeattn_converters.tuning.search import (
    LEVELS,
    LOWERINGS,
    Candidate,
    Layer,
    Result,
    Space,
    best,
    frontier,
    search,
)
from edgeattn_converters.tuning.spread import evaluate_on_dask
from edgeattn_converters.tuning.tuning_options import TuningOptions
from edgeattn_converters.worker.client import ConversionWorker
from edgeattn_converters.worker.raw_files import RenamedFile, renamed_file

if TYPE_CHECKING:
    from edgeattn_converters.tuning.device_pool import CheckedPool

__all__ = ["TuningOptions", "TuningResult", "tune"]


def tune(
    source: StrPath | ModelSource,
    data: StrPath,
    output: StrPath | None = None,
    *,
    options: TuningOptions = TuningOptions(),  # noqa: B008 - frozen
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
    if source.samples is None and not options.raw_data:
        source = replace(source, sized_by=data)
    _check_options(source, data, options)
    target = Path(output) if output is not None else source.beside(".tuned.edge")
    check_new_bundle(target, force=force)
    device = _checked_device(options)
    with (
        search_folder(target) as folder,
        tempfile.TemporaryDirectory() as temporary,
        ConversionWorker() as worker,
    ):
        workspace = Path(temporary)
        prepared = None if options.raw_data else str(data)
        worker.check(
            source, ConversionOptions(), calibration=quantization.calibration, data=prepared
        )
        renamed = RenamedFile(Path(data), is_raw=options.raw_data)
        if not options.raw_data:
            renamed = renamed_file(
                worker, source, ConversionOptions(), Path(data), workspace / "data", labels=True
            )
        evaluator = prepare_search(
            worker,
            source,
            quantization,
            folder,
            data=None if renamed.is_raw else str(data),
            workspace=workspace,
            notes=renamed.notes,
        )
        store = ResultStore(folder, search_inputs(source, data, options, evaluator.manifest))
        layers = worker.call("describe_layers", evaluator.request, activity="listing the layers")
        space = _space(layers, options)
        first = _first_file(evaluator, space, store)
        samples = renamed.path
        if renamed.is_raw:
            samples = prepared_data(evaluator, first[1], samples, workspace)
        scores = load_task(evaluator, first[1], samples, options.max_drop)

        if options.scheduler is not None:
            # In the order of the search, of which a small number leaves out the last ones.
            single = sorted(space.uniform, key=lambda item: item.lowering != "auto")
            single = single[: options.max_candidates]
            evaluate_on_dask(options.scheduler, evaluator, store, single)

        def evaluate(candidate: Candidate, task: bool) -> Result:
            return _stored_result(evaluator, store, candidate, task, first)

        searched = search(space, evaluate, max_candidates=options.max_candidates)
        choice = _measured_choice(Candidates.of(searched.results, options.aim, evaluator), device)
        results, chosen = choice.results, choice.chosen
        if chosen is None:
            reasons = {r.candidate.label: r.shortfall for r in results}
            raise nothing_converted(source, reasons)
        with new_bundle(target, force=force) as bundle_folder:
            manifest = write_bundle(bundle_folder, evaluator, chosen, options, choice.measured)
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
        untried=untried_candidates(searched, results, options),
        measured=choice.measured,
        lost=choice.lost,
    )


def _checked_device(options: TuningOptions) -> MeasuringDevice | CheckedPool | None:
    """The board or the pool, once it is known to run every format.

    Raises :class:`DeviceError` if it does not respond, and :class:`RuntimeUnavailableError`.
    """
    formats = tuple(options.formats) or FORMATS
    if options.pool is not None:
        from edgeattn_converters.tuning.device_pool import check_pool

        return check_pool(options.pool, options.scheduler, formats)
    if options.on is None:
        return None
    from edgeattn.benchmark.board import check_board

    return MeasuringDevice(options.on, check_board(options.on, formats))


def _measured_choice(
    candidates: Candidates, device: MeasuringDevice | CheckedPool | None
) -> Choice:
    if device is None:
        return choose(candidates)
    if isinstance(device, MeasuringDevice):
        return choose_on_board(candidates, device)
    return device.choose(candidates)


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
    raise nothing_converted(evaluator.source, reasons)


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
