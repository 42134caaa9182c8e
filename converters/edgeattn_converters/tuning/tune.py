"""The smallest or fastest file of a model that passes: schemes, lowerings and mixtures, tried."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeattn import __version__, progress
from edgeattn.bundle.bundle import Bundle
from edgeattn.bundle.manifest import REFERENCE, Artifact, Manifest, sha256, write_manifest
from edgeattn.bundle.writer import check_new_bundle, new_bundle
from edgeattn.errors import ConversionError, UsageError
from edgeattn.metrics.statistics import INCONCLUSIVE
from edgeattn.schemes import FORMATS
from edgeattn_converters.tuning.attempts import Attempts, Memory, timed, was_tried
from edgeattn_converters.tuning.search import (
    LEVELS,
    Candidate,
    Layer,
    Result,
    Space,
    best,
    frontier,
    search,
)

if TYPE_CHECKING:
    from edgeattn.evaluation.dataset import Trial
    from edgeattn.tensors import Tensors

__all__ = ["AIMS", "Tuned", "tune"]

AIMS = ("size", "latency")
ALL = "all"
MOST = 80
# What is timed at the end: the best by bytes, and no more than can be timed well.
TIMED, RUNS, SECONDS = 16, 256, 60.0
LOWERINGS = ("unrolled", "chunked", "fused")


@dataclass(frozen=True)
class Tuned:
    """The bundle with what was ``chosen``, and everything that was tried on the way.

    ``single`` is the best of the whole schemes, where one passed: what a mixture has to beat.
    """

    bundle: Bundle
    chosen: Result
    single: Result | None
    results: tuple[Result, ...]
    frontier: tuple[Result, ...]
    reference_scores: Mapping[str, float]
    aim: str
    max_drop: float
    resumed: int = 0

    @property
    def exit_code(self) -> int:
        """0 where it passed, 6 where that is open, 1 where it is only the nearest."""
        if self.chosen.passed:
            return 0
        return 6 if self.chosen.verdict == INCONCLUSIVE else 1


def tune(
    model: str | os.PathLike[str],
    data: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    *,
    calibration: str | os.PathLike[str] | None = None,
    max_drop: float = 0.01,
    aim: str = "size",
    formats: Sequence[str] = (),
    schemes: Sequence[str] = (),
    samples: str | os.PathLike[str] | None = None,
    time_steps: int | None = None,
    custom_objects: str | os.PathLike[str] | None = None,
    architecture: str | None = None,
    trust: str | None = None,
    most: int = MOST,
    force: bool = False,
) -> Tuned:
    """Search for the smallest or fastest artifact of ``model`` that passes the verdict.

    ``data`` are samples with labels, on which the task may lose ``max_drop`` of its score (0.01 is
    one point in a hundred) and no more, at 95%. ``most`` bounds how many files are tried. What was
    tried is kept beside ``output`` until the search is done: the same call goes on where an earlier
    one was ended.

    Returns the best found, with its shortfall where none passes. Raises :class:`ConversionError`
    where nothing could be made at all.
    """
    from edgeattn_converters.options import QuantizationOptions
    from edgeattn_converters.worker.client import ConversionWorker
    from edgeattn_converters.worker.tasks import Job

    source = Path(model)
    _check(source, data=Path(data), samples=samples, calibration=calibration)
    if aim not in AIMS:
        raise UsageError(f"No aim {aim!r}: there is {', '.join(AIMS)}.")
    if not 0 < max_drop < 1:
        raise UsageError(f"max_drop is a share of the score between 0 and 1, not {max_drop:g}.")
    target = Path(output) if output is not None else source.with_suffix(".tuned.edge")
    check_new_bundle(target, force=force)
    options = QuantizationOptions(
        calibration=None if calibration is None else str(calibration)
    ).to_json()
    job = Job(
        path=str(source),
        samples=None if samples is None else str(samples),
        time_steps=time_steps,
        custom_objects=None if custom_objects is None else str(custom_objects),
        architecture=architecture,
        trust=trust,
    ).to_json()
    files = {"model": source, "data": data, "samples": samples, "calibration": calibration}
    question = {
        "edgeattn": __version__,
        "files": {k: sha256(Path(v)) for k, v in files.items() if v is not None},
        "job": {k: v for k, v in job.items() if k not in ("path", "samples", "lowering")},
        "max_drop": max_drop,
    }
    with _folder(target) as folder, ConversionWorker() as host:
        host.audit(source, trust)
        described = host.call("describe", {"job": job}, what=f"loading {source.name}")
        reference = host.call(
            "write_reference", {"job": job, "folder": str(folder)}, what="the reference"
        )
        parts = host.call("parts", {"job": job}, what="the layers")
        digests: Sequence[str] = ()
        if calibration is not None:
            asked = {"job": job, "folder": str(folder), "options": options}
            digests = host.call("calibration_fingerprints", asked, what="the calibration samples")
        made_with = host.call("made_with", {}, what="the manifest")
        manifest = Manifest(described, (), reference, made_with)
        memory = Memory(folder, {**question, "reference": reference["sha256"]})
        resumed = len(memory)
        space = _space(parts, formats, schemes, calibrated=calibration is not None)
        attempts = Attempts(host, folder, job, options, manifest)
        first, made_first = _first(attempts, space, memory)
        attempts.trial = _trial(
            attempts,
            made_first,
            Path(data),
            digests,
            lambda chunk: host.ask("predict", {"job": job}, chunk, what="Keras' answers"),
        )
        scores = _scores(attempts.trial)
        attempts.limits = tuple(_limit(name, score, max_drop) for name, score in scores.items())

        def evaluate(candidate: Candidate, task: bool) -> Result:
            known = memory.get(candidate, task)
            if known is None:
                progress.report(f"trying {candidate.label} ({len(memory)} tried)")
                earlier = memory.get(candidate, False)
                made = made_first if candidate == first else None
                if earlier is not None and earlier.artifact:
                    made = Artifact.from_json(earlier.artifact)
                known = attempts.evaluate(candidate, task, made)
                memory.add(known, task)
            return known

        results = search(space, evaluate, most=most)
        results = _timed(results, folder, manifest)
        chosen = best(results, aim)
        if chosen is None:
            raise ConversionError(
                f"{source.name} could not be converted to anything:\n"
                + "\n".join(f"  {r.candidate.label}: {r.shortfall}" for r in results),
                hint=f"See what is in it with: edgeattn inspect {source}",
            )
        single = best([r for r in results if r.passed and not r.candidate.precision], aim)
        bundle = _written(target, folder, manifest, chosen, source, aim, max_drop, force=force)
    shutil.rmtree(_beside(target), ignore_errors=True)
    line = frontier([r for r in results if r.score is not None], aim)
    return Tuned(bundle, chosen, single, results, line, scores, aim, max_drop, resumed)


def _check(source: Path, *, data: Path, samples: Any, calibration: Any) -> None:
    if not source.is_file():
        raise UsageError(f"No such file: {source}", hint="Give a Keras .h5 or .keras file.")
    named = {"data": data, "samples": samples, "calibration": calibration}
    for what, path in named.items():
        if path is not None and not Path(path).is_file():
            raise UsageError(f"No such file of {what}: {path}")


def _beside(target: Path) -> Path:
    return target.with_name(f".{target.name}.search")


@contextlib.contextmanager
def _folder(target: Path) -> Iterator[Path]:
    """Where the search keeps what it tried; it goes when nothing was tried in it."""
    folder = _beside(target)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield folder
    except BaseException:
        if not was_tried(folder):
            shutil.rmtree(folder, ignore_errors=True)
        raise


def _space(
    parts: dict[str, Any], formats: Sequence[str], schemes: Sequence[str], *, calibrated: bool
) -> Space:
    """What there is to try for this model."""
    from edgeattn_converters.recipes import RECIPES, default_schemes

    chosen = tuple(scheme for scheme in schemes if scheme != ALL)
    if not schemes or ALL in schemes:
        # What is experimental is tried where it was named as well.
        chosen = (*default_schemes(calibrated=calibrated), *chosen)
    # float32 first: it is the model as it is, and what others are measured against.
    ordered = sorted(dict.fromkeys(("float32", *chosen)), key=list(RECIPES).index)
    singles = []
    for format in tuple(formats) or FORMATS:
        for scheme in ordered:
            singles.append(Candidate(format, scheme))
            if format == "tflite" and parts["recurrent"]:
                singles += [Candidate(format, scheme, lowering) for lowering in LOWERINGS]
    layers = tuple(Layer(str(name), int(size)) for name, size in parts["layers"])
    levels = tuple(level for level in LEVELS if level in ordered)
    return Space(tuple(singles), layers, levels)


def _first(attempts: Attempts, space: Space, memory: Memory) -> tuple[Candidate, Artifact]:
    """Any file that can be made: it says what the task's samples must look like."""
    reasons = []
    for candidate in space.singles:
        known = memory.get(candidate, False)
        if known is not None and known.artifact:
            return candidate, Artifact.from_json(known.artifact)
        made = attempts.make(candidate) if known is None else None
        if isinstance(made, Artifact):
            return candidate, made
        reasons.append(f"  {candidate.label}: {known.shortfall if known else made}")
    raise ConversionError("The model could not be converted to anything:\n" + "\n".join(reasons))


def _trial(
    attempts: Attempts,
    artifact: Artifact,
    data: Path,
    digests: Sequence[str],
    ask: Callable[[Tensors], Tensors],
) -> Trial:
    """The task's samples with Keras' answers, without those that are calibrated on."""
    from edgeattn.evaluation import dataset as trials

    seen = {**artifact.achieved, "calibration": {"digests": list(digests)}}
    manifest = replace(attempts.manifest, artifacts=(replace(artifact, achieved=seen),))
    trial = trials.read(data, Bundle(attempts.folder, manifest))
    return trial.answered_by_keras(ask)


def _scores(trial: Trial) -> dict[str, float]:
    """What Keras itself scores with each output: what it answers, paired with itself."""
    from edgeattn.evaluation import task

    found = {}
    for name, labels in trial.labels.items():
        answers = trial.answers[name]
        found[name] = task.compare(name, labels, answers, answers, retention=1.0).before
    return found


def _limit(output: str, score: float, max_drop: float) -> Any:
    from edgeattn.validation.validate import Limit

    if not score > 0 or not math.isfinite(score):
        raise UsageError(
            f"Keras itself scores {score:.3g} with output {output!r} on these samples: there is "
            "nothing to keep.",
            hint="Are these the labels of this model?",
        )
    return Limit("retention", max(0.0, 1.0 - max_drop / score), output)


def _timed(
    results: tuple[Result, ...],
    folder: Path,
    manifest: Manifest,
) -> tuple[Result, ...]:
    """The results with the latency of those that may be chosen."""
    passing = [r for r in results if r.passed]
    nearest = best(results, "size")
    chosen = sorted(passing, key=lambda r: r.bytes or 0)[:TIMED] or ([nearest] if nearest else [])
    by_candidate = {
        r.candidate: r for r in timed(chosen, folder, manifest, runs=RUNS, seconds=SECONDS)
    }
    return tuple(by_candidate.get(r.candidate, r) for r in results)


def _written(
    target: Path,
    folder: Path,
    manifest: Manifest,
    chosen: Result,
    source: Path,
    aim: str,
    max_drop: float,
    *,
    force: bool,
) -> Bundle:
    """The bundle of the one that was chosen."""
    artifact = Artifact.from_json(chosen.artifact)
    candidate = chosen.candidate
    name = f"{source.stem}.{candidate.scheme}.{candidate.format}"
    told = {
        "aim": aim,
        "max_drop": max_drop,
        "lowering": candidate.lowering,
        "precision": dict(candidate.precision),
        "verdict": chosen.verdict,
        "shortfall": chosen.shortfall,
    }
    kept = replace(artifact, path=name, achieved={**artifact.achieved, "tuned": told})
    with new_bundle(target, force=force) as aside:
        shutil.copyfile(folder / artifact.path, aside / name)
        shutil.copyfile(folder / REFERENCE, aside / REFERENCE)
        written = replace(manifest, artifacts=(kept,))
        write_manifest(aside, written)
    return Bundle(target, written)
