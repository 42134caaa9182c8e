"""The host's half of edgeattn: from a trained Keras model to a bundle."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeattn import progress
from edgeattn.bundle.bundle import Bundle
from edgeattn.bundle.manifest import MANIFEST, Artifact, Manifest, write_manifest
from edgeattn.bundle.writer import check_new_bundle, new_bundle
from edgeattn.errors import ConversionError, EdgeattnError, UnsupportedModelError, UsageError
from edgeattn.schemes import FORMATS

if TYPE_CHECKING:
    from edgeattn_converters.worker.client import ConversionWorker

# Loading takes seconds; a file that keeps its loader turning is given up.
LOAD_SECONDS = 900.0

__all__ = ["Conversion", "convert"]


@dataclass(frozen=True)
class Conversion:
    """A bundle that was made, what was found when its artifacts were run, and what failed."""

    bundle: Bundle
    report: Any  # edgeattn.validation.validate.Report
    failures: tuple[dict[str, str], ...]

    @property
    def exit_code(self) -> int:
        """1 where an artifact does not match Keras, 3 where one could not be made, else 0."""
        return int(self.report.exit_code) or (
            UnsupportedModelError.exit_code if self.failures else 0
        )


def convert(
    model: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    *,
    formats: Sequence[str] = (),
    schemes: Sequence[str] = (),
    targets: Sequence[str] = (),
    samples: str | os.PathLike[str] | None = None,
    time_steps: int | None = None,
    custom_objects: str | os.PathLike[str] | None = None,
    architecture: str | None = None,
    trust: str | None = None,
    attention: bool = True,
    attention_layers: Sequence[str] = (),
    lowering: str = "auto",
    batch: int = 1,
    states: bool = False,
    calibration: str | os.PathLike[str] | None = None,
    integer_io: bool = False,
    attention_precision: str = "auto",
    opset: int | None = None,
    allow_float_fallback: bool = False,
    force: bool = False,
) -> Conversion:
    """Convert a trained Keras file to a bundle, run what was made, and say what was found.

    Where no ``schemes`` are named, all are made that can be: ``int8`` and ``int16x8`` need
    ``calibration``, a file of real inputs that the result is not judged on. ``targets`` are the
    runtimes the files are for, and choose the ``formats`` where none is named. With ``states``
    those of recurrent layers are inputs and outputs.

    ``attention_layers`` are layers whose softmax is told as a map beside those that are found.

    The bundle is written aside and renamed to ``output`` (``MODEL.edge`` beside the model) when all
    is done. A format or scheme that cannot be made is among the ``failures``; where none can,
    :class:`ConversionError` is raised and nothing is written.
    """
    from edgeattn_converters.options import QuantizationOptions
    from edgeattn_converters.recipes import default_schemes, formats_for, recipe_for
    from edgeattn_converters.worker.client import ConversionWorker
    from edgeattn_converters.worker.tasks import Job

    source = Path(model)
    if attention_layers and not attention:
        raise UsageError("--attention and --no-attention contradict each other.")
    if not source.exists():
        raise UsageError(f"No such file: {source}", hint="Give a Keras .h5 or .keras file.")
    if samples is not None and not Path(samples).is_file():
        raise UsageError(f"No such file of samples: {samples}")
    if (source / MANIFEST).is_file():
        raise UsageError(
            f"{source} is a bundle already.", hint=f"See what it holds: edgeattn inspect {source}"
        )
    target = (
        Path(output)
        if output is not None
        else (source if source.name else source.absolute()).with_suffix(".edge")
    )
    check_new_bundle(target, force=force)
    formats = tuple(formats) or formats_for(targets) or FORMATS
    schemes = tuple(schemes) or default_schemes(calibrated=calibration is not None)
    recipes = [recipe_for(scheme) for scheme in schemes]
    options = QuantizationOptions(
        calibration=None if calibration is None else str(calibration),
        integer_io=integer_io,
        attention_precision=attention_precision,
        runtime="tflite-runtime" if "tflite-runtime" in targets else "litert",
        opset=opset,
        allow_float_fallback=allow_float_fallback,
    ).to_json()
    job = Job(
        path=str(source),
        samples=None if samples is None else str(samples),
        time_steps=time_steps,
        custom_objects=None if custom_objects is None else str(custom_objects),
        architecture=architecture,
        trust=trust,
        attention=attention,
        lowering=lowering,
        batch=batch,
        states=states,
        attention_layers=tuple(attention_layers),
    ).to_json()

    with new_bundle(target, force=force) as folder:
        asked = {"job": job, "folder": str(folder)}
        with ConversionWorker() as host:
            host.audit(source, trust)
            described = host.call(
                "describe", {"job": job}, what=f"loading {source.name}", timeout=LOAD_SECONDS
            )
            reference = host.call("write_reference", asked, what="the reference")
            refused = None
            needing = [recipe for recipe in recipes if recipe.needs_calibration]
            if needing or calibration is not None:
                refused = _calibrate(host, job, folder, options, described)
            if refused is not None and len(needing) in (0, len(recipes)):
                raise refused
            artifacts: list[Artifact] = []
            failures: list[dict[str, str]] = []
            for recipe, format in itertools.product(recipes, formats):
                unusable = refused if recipe.needs_calibration else None
                made = unusable or _make(host, {**asked, "options": options}, format, recipe.scheme)
                if isinstance(made, Artifact):
                    artifacts.append(made)
                    continue
                (folder / f"{source.stem}.{recipe.scheme}.{format}").unlink(missing_ok=True)
                failures.append({"format": format, "scheme": recipe.scheme, "reason": made.message})
            made_with = host.call("made_with", {}, what="the manifest")
        if not artifacts:
            raise _nothing_made(source, failures)
        manifest = Manifest(described, tuple(artifacts), reference, made_with, tuple(failures))
        write_manifest(folder, manifest)
        report = judge(Bundle(folder, manifest))
    return Conversion(Bundle(target, manifest), report, tuple(failures))


def _calibrate(
    host: Any, job: dict[str, Any], folder: Path, options: dict[str, Any], model: dict[str, Any]
) -> UsageError | None:
    """What is wrong with the calibration samples, if anything; their notes join the model's."""
    arguments = {"job": job, "folder": str(folder), "options": options}
    try:
        found = host.call("check_calibration", arguments, what="the calibration samples")
    except UsageError as error:
        return error
    model["notes"] = [*model["notes"], *found["notes"]]
    return None


def judge(bundle: Bundle) -> Any:
    """Run every artifact of ``bundle`` in its own runtime against what Keras said."""
    from edgeattn.validation.validate import validate_isolated

    progress.report("running what was made")
    return validate_isolated(bundle, bundle.manifest.artifacts)


def _make(
    host: ConversionWorker, asked: dict[str, Any], format: str, scheme: str
) -> Artifact | UnsupportedModelError:
    """One artifact, or why it cannot be made."""
    arguments = {**asked, "format": format, "scheme": scheme}
    try:
        return Artifact.from_json(host.call("write_artifact", arguments, what=f"{format} {scheme}"))
    except UnsupportedModelError as error:
        return error


def _nothing_made(source: Path, failures: list[dict[str, str]]) -> EdgeattnError:
    reasons = "\n".join(f"  {f['format']} {f['scheme']}: {f['reason']}" for f in failures)
    return ConversionError(
        f"{source.name} could not be converted to anything:\n{reasons}",
        hint=f"See what is in it with: edgeattn inspect {source}",
    )
