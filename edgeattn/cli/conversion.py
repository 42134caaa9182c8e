"""What ``convert`` prints: the table of artifacts, and lines on the model and on artifacts."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING

from edgeattn.cli import output
from edgeattn.cli.artifact_lines import (
    conversion_summary,
    cost_lines,
    failure_lines,
    not_converted_line,
    settling_command,
)
from edgeattn.cli.terminal import styled_line
from edgeattn.metrics.verdict import FAIL, RIGHT
from edgeattn.printable import Text, counted, enumerated, keras_name
from edgeattn.schemes import EXPERIMENTAL

if TYPE_CHECKING:
    from edgeattn.bundle.manifest import Artifact
    from edgeattn.validation.report import ArtifactReport
    from edgeattn_converters import Conversion


def _saved_by(version: str | None) -> str:
    """A graph without layers may be of TensorFlow alone."""
    return "without a Keras version" if version is None else f"saved by {keras_name(version)}"


def conversion_lines(conversion: Conversion, *, verbose: bool) -> Iterator[str]:
    from edgeattn.api.convert import recommendation_of
    from edgeattn.bundle.dequantized import NOT_COVERED, dequantized_note

    manifest = conversion.bundle.manifest
    model, reference, reports = manifest.model, manifest.reference, conversion.report.artifacts
    yield (
        f"{model['file']}: {counted(model['parameters'], 'parameter')}, "
        f"{output.size(model['bytes'])}, {_saved_by(model['keras_version'])}"
    )
    yield from (styled_line(f"note: {note}") for note in model["notes"])
    yield from ("", _table(conversion), "")
    yield (
        f"Compared with Keras on {manifest.reference_samples} and "
        f"{counted(reference['edge_cases'], 'edge case')}, run consecutively."
    )
    if dequantized_note(model):
        yield NOT_COVERED
    if reference.get("lengths") and any(item.free_axes for item in manifest.artifacts):
        yield _compared_lengths(manifest.artifacts, reference["lengths"])
    if reference["not_finite"]:
        yield f"Rows left out because Keras itself has no finite outputs: {reference['not_finite']}"
    if reference["left_out"] and verbose:
        yield (
            "Rows left out because Keras' own outputs change when an input changes in its last "
            f"digit: {reference['left_out']}"
        )
    yield from (styled_line(f"warning: {text}") for text in conversion.report.warnings)
    yield from conversion_summary(reports)
    if model["attention"] and any(report.artifact.attention for report in reports):
        yield f"Attention maps: {', '.join(spec['name'] for spec in model['attention'])}"
    for report in reports:
        if reason := report.artifact.achieved.get("fixed_length"):
            yield f"{report.artifact.label}: one sequence length only. {reason}"
        yield from _advice(report)
        summary = report.artifact.achieved.get("summary")
        if summary and verbose:
            yield f"{report.artifact.label}: {summary}"
    yield from map(not_converted_line, conversion.failures)
    yield styled_line(recommendation_of(conversion).line)
    yield f"Wrote {conversion.bundle.path}"
    yield from settling_command(str(conversion.bundle.path), reports)


def _table(conversion: Conversion) -> Text:
    arenas = [item.artifact.achieved.get("arena_bytes") for item in conversion.report.artifacts]
    micro = any(arenas)
    # Only models that accept several lengths have a column for them.
    free = any(_accepts_lengths(report.artifact) for report in conversion.report.artifacts)
    sequences = {
        name for report in conversion.report.artifacts for name in report.artifact.free_axes
    }
    folder = conversion.bundle.path.name
    header = [
        *("verdict", "format", "scheme", *(["steps"] if free else [])),
        "flash (kB)" if micro else "size (kB)",
        *(["arena (kB)"] if micro else []),
        *("quantized weights (%)", "integer ops"),
        "max abs error",
    ]
    rows = []
    for report in conversion.report.artifacts:
        artifact = report.artifact
        rows.append(
            [
                report.verdict,
                artifact.format,
                _achieved_scheme(artifact),
                *([_steps(artifact, sequences, folder)] if free else []),
                f"{artifact.bytes / 1000:,.1f}",
                *([_arena(artifact)] if micro else []),
                _quantized_weights(artifact),
                _integer_operators(artifact),
                output.number(report.max_abs_error),
            ]
        )
    rows += [
        [
            "not converted" if failure["required"] else "not achieved",
            *(failure["format"], _scheme(failure["scheme"]), *["-"] * (len(header) - 3)),
        ]
        for failure in conversion.failures
    ]
    return output.table(header, rows, right=range(3, len(header)))


def _arena(artifact: Artifact) -> str:
    """The RAM that a file for microcontrollers needs."""
    arena = artifact.achieved.get("arena_bytes")
    return "-" if arena is None else f"{arena / 1000:,.1f}"


def _accepts_lengths(artifact: Artifact) -> bool:
    """Whether the model accepts sequences of any length, even if the artifact does not."""
    return bool(artifact.free_axes) or "fixed_length" in artifact.achieved


def _compared_lengths(artifacts: Iterable[Artifact], lengths: Iterable[int]) -> str:
    """The line on other sequence lengths, which are those of the first input with a free axis."""
    compared = (
        f"Files for sequences of any length were compared at {', '.join(map(str, lengths))} steps"
    )
    free = next(item for item in artifacts if item.free_axes)
    sizes = {
        spec.name: [spec.shape[axis] for axis in free.free_axes[spec.name]]
        for spec in free.inputs
        if spec.name in free.free_axes
    }
    if all(size == next(iter(sizes.values())) for size in sizes.values()):
        return f"{compared} too."
    first, *others = sizes
    return (
        f"{compared} of {first} too, with {enumerated(others)} shortened or lengthened in the same "
        "way."
    )


def _steps(artifact: Artifact, sequences: Collection[str], folder: str = "") -> str:
    """The length that an artifact accepts: ``20``, or ``64x48``, the height and width of images.

    ``sequences`` are the inputs whose axes are free in another artifact; others, such as states,
    have no length. Without them, the inputs of several axes and those of tokens have one, or all
    have. Several lengths are in the order of the inputs or, if the bundle is in a ``folder`` for
    these lengths, in that of its name, ``steps-20-8``.
    """
    if artifact.free_axes:
        return "any"
    inputs = (
        [spec for spec in artifact.inputs if spec.name in sequences]
        or [spec for spec in artifact.inputs if len(spec.shape) > 2 or "int" in spec.dtype]
        or artifact.inputs
    )
    lengths = dict.fromkeys(
        # All axes of images but the channels; of sequences, there may be no such axis.
        "x".join(map(str, spec.shape[1 : max(2, len(spec.shape) - 1)]))
        for spec in inputs
        if len(spec.shape) > 1
    )
    named = folder.split("-")
    return ", ".join(sorted(lengths, key=lambda text: (*named, text).index(text)))


def _scheme(name: str) -> str:
    return f"{name} (experimental)" if name in EXPERIMENTAL else name


def _achieved_scheme(artifact: Artifact) -> str:
    """The scheme, and the one that the file achieved if it is another."""
    achieved = artifact.achieved.get("scheme", artifact.scheme)
    if achieved == artifact.scheme:
        return _scheme(artifact.scheme)
    return f"{artifact.scheme} -> {achieved}"


def _quantized_weights(artifact: Artifact) -> str:
    """The percentage of weights that have the data type of the scheme."""
    weights: Mapping[str, int] = artifact.achieved.get("weights", {})
    total = sum(weights.values())
    if artifact.scheme == "float32" or not total:
        return "-"
    dtype = artifact.scheme if artifact.scheme in weights else "int8"
    return f"{100 * weights.get(dtype, 0) / total:.0f}"


def _integer_operators(artifact: Artifact) -> str:
    """How many of the operators compute in integers, if the scheme quantizes activations."""
    if artifact.scheme not in ("int8", "int16x8"):
        return "-"
    counts = {
        dtype: sum(kinds.values())
        for dtype, kinds in artifact.achieved.get("computes_in", {}).items()
    }
    return f"{counts.get('int8', 0) + counts.get('int16', 0)} / {sum(counts.values())}"


def _advice(report: ArtifactReport) -> Iterator[str]:
    """Why an artifact does not pass, or how to change what was converted, in a line.

    One that fails although it is converted right has a second line, on what rounding alone gives.
    """
    artifact = report.artifact
    if lines := failure_lines(report):
        yield lines[0]
        if (report.conversion, report.verdict) == (RIGHT, FAIL):
            yield from islice(cost_lines(report), 1)
    elif report.explained:
        yield from cost_lines(report)
    elif artifact.achieved.get("fallback"):
        yield f"{artifact.label}: did not achieve its scheme (kept by --allow-float-fallback)."
    elif artifact.scheme == "int16x8":
        # The note that begins with "slow on this target".
        notes = artifact.achieved.get("notes", ())
        yield from (f"{artifact.label}: {note}." for note in notes if note.startswith("slow"))
    elif "cost" in artifact.achieved and artifact.scheme == "int8":
        precision = artifact.achieved.get("attention_precision")
        also = "" if precision is None else f" also with --attention-precision {precision}"
        advice = "; --attention-precision int8 quantizes them" if precision is None else ""
        yield (
            f"{artifact.label}: operators that would exceed the limits in int8 stay "
            f"float32{also}{advice}."
        )
