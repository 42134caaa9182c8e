"""The figures of results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edgeattn.errors import UsageError

if TYPE_CHECKING:
    from edgeattn.bundle.bundle import Bundle
    from edgeattn.bundle.manifest import Artifact
    from edgeattn.tensors import Array, Tensors
    from edgeattn.validation.report import ArtifactReport


def compare_maps(
    bundle: Bundle,
    reports: Sequence[ArtifactReport],
    label: str | None,
    name: str | None,
    sample: int,
) -> Any:
    """An attention map of one sample of the reference in Keras, in an artifact, and its error.

    By default, the first map of the first artifact that has one. Raises :class:`UsageError` if
    there is no such artifact, map or sample.
    """
    from edgeattn import plots

    with_maps = {item.artifact.label: item for item in reports if _maps(item)}
    if not with_maps:
        raise UsageError(
            "No artifact has an attention map.", hint="Convert a model that has attention."
        )
    report = _select(with_maps, label, "artifact with an attention map")
    actual = _select(_maps(report), name, "attention map")
    key = next(key for key in report.artifact.attention if _maps(report)[key] is actual)
    expected = bundle.reference()[key]
    return plots.comparison(
        _row(expected, sample),
        _row(actual, sample),
        names=("Keras", report.artifact.label),
        title=key.removeprefix("attention/"),
    )


def draw_map(artifact: Artifact, outputs: Tensors, name: str | None, sample: int) -> Any:
    """An attention map of one sample. Raises :class:`UsageError` if there is none."""
    from edgeattn import plots

    maps = {key: outputs[key] for key in artifact.attention if key in outputs}
    if not maps:
        raise UsageError(
            f"{artifact.label} has no attention map.", hint="Convert a model that has attention."
        )
    values = _select(maps, name, "attention map")
    return plots.attention(_row(values, sample))


def _maps(report: ArtifactReport) -> dict[str, Array]:
    outputs = report.outputs
    return {name: outputs[name] for name in report.artifact.attention if name in outputs}


def _select(values: Mapping[str, Any], name: str | None, what: str) -> Any:
    """The value by name, with or without the prefix of maps; the first one without a name."""
    if name is None:
        return next(iter(values.values()))
    for key in (name, f"attention/{name}"):
        if key in values:
            return values[key]
    raise UsageError(f"No {what} {name!r}.", hint=f"Choose one of: {', '.join(values)}.")


def _row(values: Array, sample: int) -> Array:
    if not 0 <= sample < len(values):
        raise UsageError(f"There is no sample {sample}.", hint=f"Pass 0 to {len(values) - 1}.")
    row: Array = values[sample]
    return row
