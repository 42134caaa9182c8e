"""Attention maps in the report: Keras, the artifact and their difference, sample by sample."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from edgeattn.bundle.manifest import Artifact
from edgeattn.metrics.pairwise import max_abs_error
from edgeattn.printable import counted
from edgeattn.report.attended_inputs import Attended, AttendedInputs, attended_inputs
from edgeattn.report.input_panels import input_panel
from edgeattn.report.number_formats import format_number
from edgeattn.report.svg_panels import KeyLabels, map_panels
from edgeattn.tensors import Array, Tensors

# For all maps of all artifacts together, so that the report can be sent by mail.
MAX_MAP_BYTES = 2_400_000
# Tokens below this share of the largest weight are not shaded.
MIN_SHADE = 0.02

# A label, and each token with its shade from 0 to 1; None if it is not shaded.
ShadedText = tuple[str, list[tuple[str, float | None]]]


@dataclass(frozen=True)
class MapFigure:
    """One head on one sample; ``rank`` is ``worst``, ``median`` or ``best``, ``head`` from 0."""

    rank: str
    head: int
    panels: list[str]
    caption: str
    texts: list[ShadedText]

    @property
    def bytes(self) -> int:
        """Roughly what the figure adds to the report."""
        return sum(map(len, self.panels)) + len(self.caption) + 250


@dataclass(frozen=True)
class MapFigures:
    """The figures of one map, and the options of its pickers as values and labels.

    ``number`` is the map's index in the artifact. ``head_options`` is empty for a map without
    heads, and holds fewer than ``heads`` options if not all of them fit. ``note`` says which inputs
    are not shown, if there are any.
    """

    name: str
    number: int
    heads: int
    sample_options: list[tuple[str, str]]
    head_options: list[tuple[str, str]]
    figures: list[MapFigure]
    note: str


@dataclass(frozen=True)
class MapSection:
    """The maps that are drawn, and the number of maps that the artifact has."""

    maps: list[MapFigures]
    count: int


@dataclass(frozen=True)
class _HeadMaps:
    """One map in Keras and the artifact, ``(samples, heads, [queries,] keys)``.

    ``attended`` are the inputs at the keys, and ``names_inputs`` is whether their names are shown.
    """

    name: str
    has_heads: bool
    expected: Array
    actual: Array
    vocabulary: Sequence[str] | None
    attended: AttendedInputs
    names_inputs: bool

    def errors(self) -> Array:
        """Max abs errors, ``(samples, heads)``; infinity replaces NaN."""
        errors = np.array(
            [
                [max_abs_error(w[None], g[None]) for w, g in zip(want, got, strict=True)]
                for want, got in zip(self.expected, self.actual, strict=True)
            ]
        )
        return np.where(np.isnan(errors), np.inf, errors)


def map_section(
    artifact: Artifact,
    expected: Tensors,
    outputs: Tensors,
    max_bytes: int,
    vocabulary: Sequence[str] | None = None,
    attended: Attended | None = None,
) -> MapSection:
    """Draw the attention maps of ``artifact`` in at most about ``max_bytes`` bytes.

    ``expected`` are arrays of the reference, ``outputs`` the artifact's on the same samples, and
    ``attended`` is that of the manifest. Maps and heads with the largest errors are drawn first.
    """
    errors = {
        name: max_abs_error(expected[name], outputs[name])
        for name in artifact.attention
        if name in outputs and expected[name].shape == outputs[name].shape
    }
    # NaN counts as the largest error.
    names = sorted(errors, key=lambda name: -np.nan_to_num(errors[name], nan=np.inf))
    maps: list[MapFigures] = []
    remaining = max_bytes
    for position, name in enumerate(names):
        if remaining <= 0:
            break
        has_heads = expected[name].ndim == 4
        want, got = (a[name] if has_heads else a[name][:, None] for a in (expected, outputs))
        short_name = name.removeprefix("attention/")
        inputs = attended_inputs(artifact, expected, name, attended)
        several = len(artifact.inputs) > 1
        heads = _HeadMaps(short_name, has_heads, want, got, vocabulary, inputs, several)
        budget = remaining // (len(names) - position)
        drawn = _draw_map(heads, artifact.attention.index(name), budget)
        remaining -= sum(figure.bytes for figure in drawn.figures)
        maps.append(drawn)
    return MapSection(maps, len(names))


def _draw_map(maps: _HeadMaps, number: int, max_bytes: int) -> MapFigures:
    errors = maps.errors()
    by_sample, by_head = errors.max(1), errors.max(0)
    order = np.argsort(by_sample, kind="stable")
    ranks = {"worst": order[-1], "median": order[len(order) // 2], "best": order[0]}
    figures: list[MapFigure] = []
    drawn: list[int] = []
    for head in np.argsort(-by_head, kind="stable").tolist():
        added = [
            _draw_head(maps, rank, int(row), head, float(errors[row, head]))
            for rank, row in ranks.items()
        ]
        if drawn and sum(figure.bytes for figure in figures + added) > max_bytes:
            break
        figures += added
        drawn.append(head)
    return MapFigures(
        name=maps.name,
        number=number,
        heads=errors.shape[1],
        sample_options=[
            (rank, f"{rank}: number {row}, max abs error {format_number(float(by_sample[row]))}")
            for rank, row in ranks.items()
        ],
        head_options=[
            (str(head), f"{head + 1}, max abs error {format_number(float(by_head[head]))}")
            for head in drawn
            if maps.has_heads
        ],
        figures=figures,
        note=maps.attended.note,
    )


def _draw_head(maps: _HeadMaps, rank: str, row: int, head: int, error: float) -> MapFigure:
    want, got = maps.expected[row, head], maps.actual[row, head]
    inputs = maps.attended
    tokens = None if inputs.tokens is None else inputs.tokens[row]
    steps = want.shape[-1]
    first, last = _without_padding(want, tokens)
    shown = [array[..., first:last] for array in (want, got)]
    # Queries that are the same tokens as the keys have the same padding and labels.
    is_square = inputs.same_queries and want.ndim == 2 and want.shape[0] == want.shape[1]
    if is_square:
        shown = [array[first:last] for array in shown]
    names = None if tokens is None else _token_names(tokens[first:last], maps.vocabulary)
    caption = f"Map {maps.name}" + (f", head {head + 1}" if maps.has_heads else "")
    caption += (
        f": the {rank} of {counted(len(maps.expected), 'sample')}, number {row}, "
        f"max abs error {format_number(error)}."
    )
    if last - first < steps:
        caption += f" Steps {first + 1} to {last} of {steps}; the others are padding."
    caption += _most_attended(shown, names, first)
    panels = [
        input_panel(
            item.values[row],
            caption,
            item.is_image,
            f"input {item.name}" if maps.names_inputs else "input",
        )
        for item in inputs.drawn
    ]
    grid = inputs.grid
    if grid is not None and want.ndim == 1 and grid[0] * grid[1] == steps:
        shown = [array.reshape(grid) for array in shown]
    else:
        grid = None
    labels = KeyLabels(names, first, grid is not None, is_square)
    panels += map_panels(shown[0], shown[1], caption, labels)
    return MapFigure(
        rank=rank,
        head=head,
        panels=panels,
        caption=caption,
        texts=[]
        if maps.vocabulary is None or names is None or shown[0].ndim > 1
        else _shaded_texts(names, shown[0], shown[1]),
    )


def _most_attended(shown: Sequence[Array], names: Sequence[str] | None, first: int) -> str:
    """A sentence on the step with the largest mean weight, or nothing if weights are not finite."""
    means = [array.reshape(-1, array.shape[-1]).mean(0) for array in shown]
    if not all(np.isfinite(mean).all() for mean in means):
        return ""
    top = [int(np.argmax(mean)) for mean in means]
    keras, artifact = (f"step {t + first + 1}" + (f" ({names[t]})" if names else "") for t in top)
    if top[0] == top[1]:
        return f" Largest weight in both: {keras}."
    return f" Largest weight in Keras: {keras}; in the artifact: {artifact}."


def _shaded_texts(names: Sequence[str], want: Array, got: Array) -> list[ShadedText]:
    """The tokens, once by Keras' and once by the artifact's weights, on one scale."""
    scale = max(float(np.nanmax(array, initial=1e-9)) for array in (want, got))

    def shades(weights: Array) -> Iterator[tuple[str, float | None]]:
        for name, weight in zip(names, np.nan_to_num(weights), strict=True):
            share = min(1.0, max(0.0, float(weight) / scale))
            yield name, None if share < MIN_SHADE else share

    return [("Keras", list(shades(want))), ("artifact", list(shades(got)))]


def _without_padding(weights: Array, tokens: Array | None) -> tuple[int, int]:
    """The range of keys without padding at the ends: token 0 with no weight in Keras."""
    length = weights.shape[-1]
    if tokens is None:
        return 0, length
    real = np.flatnonzero((tokens != 0) | (weights.reshape(-1, length) != 0).any(0))
    return (int(real[0]), int(real[-1]) + 1) if len(real) else (0, length)


def _token_names(tokens: Array, vocabulary: Sequence[str] | None) -> list[str]:
    names = vocabulary or ()
    return [names[t] if 0 <= t < len(names) else str(t) for t in tokens.tolist()]
