"""``edgeattn.convert``"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeattn.api.arguments import (
    StrPath,
    check_positive,
    checked_formats,
    checked_names,
    checked_schemes,
    optional_path,
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
from edgeattn.converters import import_converters
from edgeattn.errors import UsageError
from edgeattn.printable import counted

if TYPE_CHECKING:
    from edgeattn.bundle.bundle import Bundle
    from edgeattn.validation.recommendation import Recommendation
    from edgeattn.validation.report import Report
    from edgeattn_converters import Conversion

LOWERINGS = ("auto", "unrolled", "chunked", "fused")
ATTENTION_PRECISIONS = ("auto", "int8", "int16", "float32")


@dataclass(frozen=True, repr=False)
class ConversionResult(Result):
    """The bundles that were written, with the reports on their artifacts.

    Attributes:
        conversions: One for each sequence length that was requested, otherwise a single one.
        model_file: The Keras file that was converted.
    """

    conversions: tuple[Conversion, ...]
    model_file: Path
    _workspace: Workspace = field(compare=False)

    @property
    def bundles(self) -> tuple[Bundle, ...]:
        return tuple(item.bundle for item in self.conversions)

    @property
    def bundle(self) -> Bundle:
        """The bundle. Raises :class:`UsageError` if there is one for each of several lengths."""
        return self._only.bundle

    @property
    def report(self) -> Report:
        """The report on the artifacts of the only bundle."""
        return self._only.report

    @property
    def path(self) -> Path:
        """The bundle, or the folder with the bundles of several lengths."""
        first = self.conversions[0].bundle.path
        return first if len(self.conversions) == 1 else first.parent

    @property
    def failures(self) -> tuple[dict[str, Any], ...]:
        """The artifacts that could not be converted: format, scheme and reason."""
        return tuple(failure for item in self.conversions for failure in item.failures)

    @property
    def verdict(self) -> str:
        from edgeattn.metrics.verdict import combined

        return combined(item.report.verdict for item in self.conversions)

    @property
    def recommendation(self) -> Recommendation:
        """The smallest artifact of the only bundle that passes."""
        return recommendation_of(self._only)

    @property
    def exit_code(self) -> int:
        return next((int(item.exit_code) for item in self.conversions if item.exit_code), 0)

    @property
    def _only(self) -> Conversion:
        if len(self.conversions) > 1:
            raise UsageError(
                f"{self.path} has {len(self.conversions)} bundles, one for each sequence length.",
                hint="Select one of them: result.bundles[0]",
            )
        return self.conversions[0]

    def _document(self) -> dict[str, Any]:
        documents = [_document_of(item) for item in self.conversions]
        return {"bundles": documents} if len(documents) > 1 else documents[0]

    def _summary(self) -> str:
        labels = [
            item.label for made in self.conversions for item in made.bundle.manifest.artifacts
        ]
        parts = [f"{self.path.name}: {self.verdict}", counted(len(labels), "artifact")]
        if len(self.conversions) == 1:
            parts.append(self.recommendation.short)
        return ", ".join(parts)

    def _table(self) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
        header = ["verdict", "file", "format", "scheme", "size (kB)", "max abs error"]
        reports = [report for made in self.conversions for report in made.report.artifacts]
        return header, [
            [
                item.verdict,
                item.artifact.path,
                item.artifact.format,
                item.artifact.scheme,
                f"{item.artifact.bytes / 1000:,.1f}",
                number(item.max_abs_error),
            ]
            for item in reports
        ]


def convert(
    model: ModelLike,
    output: StrPath | None = None,
    *,
    formats: str | Sequence[str] = (),
    schemes: str | Sequence[str] = (),
    targets: str | Sequence[str] = (),
    samples: SamplesLike = None,
    calibration: SamplesLike = None,
    raw_samples: StrPath | None = None,
    raw_calibration: StrPath | None = None,
    ignore: Sequence[str] = (),
    time_steps: Lengths | Sequence[Lengths] | None = None,
    input_shapes: InputShapes | None = None,
    preprocess: StrPath | None = None,
    labels: StrPath | None = None,
    custom_objects: StrPath | None = None,
    architecture: str | None = None,
    signature: str | None = None,
    trust: str | None = None,
    attention: bool = True,
    attention_layers: Sequence[str] = (),
    attention_precision: str = "auto",
    integer_io: bool = False,
    integer_only: bool = False,
    arena: int | None = None,
    allow_float_fallback: bool = False,
    opset: int | None = None,
    lowering: str = "auto",
    batch: int = 1,
    states: bool = False,
    force: bool = False,
) -> ConversionResult:
    """Convert a trained Keras model to TFLite and ONNX, and compare every file with Keras.

    The arguments are the options of ``edgeattn convert``, under the same names.

    Args:
        model: A ``keras.Model`` of Keras 3 or tf_keras, the path of a .h5 or .keras file or of
            a SavedModel folder, or an earlier result, to convert its model with other options.
        output: The bundle. Default: ``MODEL.edge`` beside the file, and in the current folder
            for a model in memory.
        samples: Real inputs for the reference: a path, an array, or arrays by input name.
        calibration: Real inputs for calibration, in the same forms; int8 and int16x8 need them.
        time_steps: The sequence length, if the model leaves it free, or those of its inputs by
            name; several for a bundle each.
        input_shapes: The shapes of inputs with several free axes by name, without the batch axis.

    Raises :class:`UsageError` for invalid arguments and if TensorFlow is not installed,
    :class:`UnsafeModelError` and :class:`UnsupportedModelError` for files that are refused, and
    :class:`ConversionError` if no artifact can be converted.
    """
    from edgeattn.samples.files import check_ignored

    checked_names("lowering", lowering, LOWERINGS)
    checked_names("attention_precision", attention_precision, ATTENTION_PRECISIONS)
    check_positive(batch=batch, arena=arena)
    converters = import_converters()
    workspace = workspace_for(model)
    file = keras_file(model, workspace)
    if output is None:
        output = default_output(model, file, ".edge")
    sample_path = sample_file(samples, workspace, "samples")
    calibration_path = sample_file(calibration, workspace, "calibration")
    check_ignored(ignore, sample_path, calibration_path)
    steps = (time_steps,) if isinstance(time_steps, int | Mapping) else tuple(time_steps or ())
    conversions = converters.convert_lengths(
        converters.ModelSource(
            file,
            samples=sample_path,
            custom_objects=custom_objects,
            architecture=architecture,
            signature=signature,
            trust=trust,
            ignore=ignore,
            preprocess=preprocess,
            labels=labels,
            raw_samples=raw_samples,
            **sizes_of_inputs(None, input_shapes),
        ),
        steps,
        optional_path(output),
        options=converters.ConversionOptions(
            formats=checked_formats(formats),
            schemes=checked_schemes(schemes),
            targets=(targets,) if isinstance(targets, str) else tuple(targets),
            attention=attention,
            attention_layers=attention_layers,
            lowering=lowering,
            batch=batch,
            states=states,
            arena=arena,
        ),
        quantization=converters.QuantizationOptions(
            calibration=calibration_path,
            raw_calibration=raw_calibration,
            integer_io=integer_io,
            integer_only=integer_only,
            attention_precision=attention_precision,
            opset=opset,
            allow_float_fallback=allow_float_fallback,
        ),
        force=force,
    )
    return ConversionResult(conversions, file, workspace)


def recommendation_of(conversion: Conversion) -> Recommendation:
    """The smallest artifact of a conversion that passes."""
    from edgeattn.validation.recommendation import recommend_reported

    return recommend_reported(conversion.report.artifacts, conversion.bundle.manifest)


def _document_of(conversion: Conversion) -> dict[str, Any]:
    """The document of ``--json``, whose keys scripts may rely on."""
    return {
        "bundle": str(conversion.bundle.path),
        "artifacts": [
            {
                "format": report.artifact.format,
                "scheme": report.artifact.scheme,
                "path": report.artifact.path,
                "bytes": report.artifact.bytes,
                "max_abs_error": report.max_abs_error,
                "verdict": report.verdict,
                "conversion": report.conversion,
                "achieved": dict(report.artifact.achieved),
                "reason": report.verdict_reason,
                "warnings": list(report.warnings),
            }
            for report in conversion.report.artifacts
        ],
        "recommended": recommendation_of(conversion).to_json(),
        "warnings": list(conversion.report.warnings),
        "failures": [dict(failure) for failure in conversion.failures],
        "notes": list(conversion.bundle.manifest.model["notes"]),
    }
