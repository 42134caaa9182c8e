"""Attention maps: of one sequence, in comparison with an artifact, and of many sequences."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from edgeattn.errors import UsageError
from edgeattn.plots import style
from edgeattn.plots.axes import bars, image, set_title, ticks
from edgeattn.plots.style import BLUE, DIFFERENCES, ORANGE, PAPER, RED, WEIGHTS, Labels, Look
from edgeattn.tensors import Array

SHAPES = {1: "(keys,)", 2: "(queries, keys)", 3: "(heads, queries, keys)"}
SHARED_AXES = {"sharex": True, "sharey": True}


def attention(
    weights: ArrayLike,
    *,
    tokens: Sequence[object] | None = None,
    queries: Sequence[object] | None = None,
    truth: Sequence[int] | None = None,
    title: str | None = None,
    look: Look = PAPER,
) -> Any:
    """Draw the attention of one sequence.

    ``weights`` are ``(keys,)`` for bars over the steps, or ``(queries, keys)`` or
    ``(heads, queries, keys)`` for an image of each head, on one scale. Heads with a single query
    share one image with a row for each head. ``tokens`` label the keys, up to 40 of them, and
    ``queries`` the queries, by default with ``tokens`` if there are as many. ``truth`` are steps
    from 0 that should be attended to, for ``(keys,)`` only. Raises :class:`UsageError` if a shape,
    the number of tokens or a step is wrong.
    """
    array = style.as_array(weights, "weights", SHAPES)
    names = style.labels(tokens, array.shape[-1])
    if array.ndim == 1:
        return _draw_bars(array, names, _check_steps(truth, len(array)), title, look)
    if truth is not None:
        raise UsageError(f"truth requires weights of the shape (keys,). Received: {array.shape}.")
    if array.ndim == 3 and array.shape[1] == 1:
        heads = [str(head + 1) for head in range(len(array))]
        return _draw_heads(array[:, 0][None], names, heads, title, look, labels=("head", "step"))
    count = array.shape[-2]
    square = queries is None and names is not None and len(names) == count
    query_names = names if square else style.labels(queries, count, "queries")
    return _draw_heads(array if array.ndim == 3 else array[None], names, query_names, title, look)


def comparison(
    expected: ArrayLike,
    actual: ArrayLike,
    *,
    tokens: Sequence[object] | None = None,
    names: tuple[str, str] = ("Keras", "artifact"),
    title: str | None = None,
    look: Look = PAPER,
) -> Any:
    """Draw one sequence's attention in Keras, in an artifact, and the difference.

    All heads share one scale, and so do all differences, which are actual - expected. Both arrays
    have the shape ``(keys,)``, ``(queries, keys)`` or ``(heads, queries, keys)``, and ``names`` are
    their titles. ``tokens`` label the keys, up to 40 of them. Raises :class:`UsageError` if a shape
    or the number of tokens is wrong.
    """
    want = style.as_array(expected, "expected", SHAPES)
    got = style.as_array(actual, "actual", SHAPES)
    if want.shape != got.shape:
        raise UsageError(
            "expected and actual should have the same shape. "
            f"Received: {want.shape} and {got.shape}."
        )
    keys = style.labels(tokens, want.shape[-1])
    if want.ndim == 1:
        return _compare_bars(want, got, keys, names, title, look)
    if want.ndim == 2:
        want, got = want[None], got[None]
    return _compare_heads(want, got, keys, names, title, look)


def panels(
    maps: Mapping[str, ArrayLike],
    *,
    tokens: Sequence[object] | None = None,
    title: str | None = None,
    shared_scale: bool = False,
    look: Look = PAPER,
) -> Any:
    """Draw maps of many sequences side by side, each with a scale of its own and its color bar.

    With ``shared_scale``, all have one scale and one color bar, so that their colors can be
    compared. A scale begins at zero, or at the smallest value if that is negative.

    ``maps`` holds a name and an array ``(samples, steps)`` for each panel, all of one shape: for
    example the attention, its largest weight, and the expected step. ``tokens`` label the steps.
    Raises :class:`UsageError` if there is no map, or a shape or the number of tokens is wrong.
    """
    shape = {2: "(samples, steps)"}
    arrays = {name: style.as_array(array, name, shape) for name, array in maps.items()}
    shapes = {array.shape for array in arrays.values()}
    if len(shapes) != 1:
        received = ", ".join(f"{name} {array.shape}" for name, array in arrays.items()) or "no map"
        raise UsageError(f"All maps should have the same shape. Received: {received}.")
    (count, length) = shapes.pop()
    names = style.labels(tokens, length)
    height = 0.9 + min(max(0.11 * count, 1.6), 5.5)
    width = 0.6 + len(arrays) * (2.3 if shared_scale else 2.8)
    ends = [(_lowest(array), style.top(array)) for array in arrays.values()]
    if shared_scale:
        lows, highs = zip(*ends, strict=True)
        ends = [(min(lows), max(highs))] * len(ends)
    with style.figure(width, height, 1, len(arrays), look=look, sharey=True) as (figure, axes):
        for axis, (name, array), scale in zip(axes[0], arrays.items(), ends, strict=True):
            drawn = image(axis, array, WEIGHTS, *scale)
            if not shared_scale:
                figure.colorbar(drawn, ax=axis, fraction=0.08)
            axis.set_title(name, parse_math=False)
            ticks(axis.xaxis, length, names)
            axis.set_xlabel("step")
        ticks(axes[0, 0].yaxis, count, None)
        axes[0, 0].set_ylabel("sequence")
        if shared_scale:
            figure.colorbar(drawn, ax=axes, aspect=30, fraction=0.05)
        set_title(figure, title)
        return figure


def _lowest(array: Array) -> float:
    """The smallest finite value, if it is negative, else zero."""
    return float(np.min(array, initial=0.0, where=np.isfinite(array)))


def _draw_bars(
    weights: Array, names: Labels, truth: list[int], title: str | None, look: Look
) -> Any:
    with style.figure(7.0, 2.5, look=look) as (figure, axes):
        axis = axes[0, 0]
        end = style.top(weights)
        bars(axis, weights, BLUE, end)
        if truth:
            axis.plot(np.array(truth) + 1, [1.07 * end] * len(truth), "v", color=RED, ms=7)
            axis.text(1.0, 1.02, "▼ expected", transform=axis.transAxes, ha="right", color=RED)
        axis.set_ylim(0, 1.14 * end if truth else 1.05 * end)
        axis.set_ylabel("attention weight")
        axis.set_xlabel("step" if names is None else "token")
        ticks(axis.xaxis, len(weights), names)
        set_title(figure, title)
        return figure


def _draw_heads(
    heads: Array,
    names: Labels,
    queries: Labels,
    title: str | None,
    look: Look,
    labels: tuple[str, str] = ("query", "key"),
) -> Any:
    """``(heads, queries, keys)`` as images on one scale; ``labels`` are of the rows and columns."""
    _check_heads(len(heads))
    columns = min(len(heads), 4)
    rows = math.ceil(len(heads) / columns)
    width = 4.6 if len(heads) == 1 else 2.3
    height = width * min(max(heads.shape[1] / heads.shape[2], 0.3), 1.0)
    end = style.top(heads)
    size = (width * columns + 1.1, (height + 0.35) * rows + 0.7)
    with style.figure(*size, rows, columns, look=look, **SHARED_AXES) as (figure, axes):
        for axis in axes.ravel()[len(heads) :]:
            axis.set_visible(False)
        for number, weights in enumerate(heads):
            axis = axes[number // columns, number % columns]
            drawn = image(axis, weights, WEIGHTS, 0, end)
            if len(heads) > 1:
                axis.set_title(f"head {number + 1}")
        for axis in axes[:, 0]:
            axis.set_ylabel(labels[0])
            ticks(axis.yaxis, heads.shape[1], queries, room=height)
        for axis in axes[-1]:
            axis.set_xlabel(labels[1])
            ticks(axis.xaxis, heads.shape[2], names, room=0.85 * width)
        figure.colorbar(drawn, ax=axes, label="attention weight", aspect=30, fraction=0.05)
        set_title(figure, title)
        return figure


def _compare_bars(
    want: Array, got: Array, keys: Labels, names: tuple[str, str], title: str | None, look: Look
) -> Any:
    with style.figure(7.6, 2.5, 1, 3, look=look) as (figure, axes):
        difference = got - want
        end, largest = style.top(want, got), style.top(np.abs(difference))
        for axis, values, color, name in zip(
            axes[0],
            (want, got, difference),
            (BLUE, ORANGE, RED),
            (*names, "difference"),
            strict=True,
        ):
            bars(axis, values, color, largest if values is difference else end)
            axis.set_title(name, parse_math=False)
            axis.set_xlabel("step")
            ticks(axis.xaxis, len(want), keys, room=2.2)
        for axis in axes[0, :2]:
            axis.set_ylim(0, 1.05 * end)
        axes[0, 1].tick_params(labelleft=False)
        axes[0, 2].set_ylim(-1.05 * largest, 1.05 * largest)
        axes[0, 2].axhline(0, color=look.ink, linewidth=0.8)
        axes[0, 2].ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
        axes[0, 0].set_ylabel("attention weight")
        set_title(figure, title)
        return figure


def _compare_heads(
    want: Array, got: Array, keys: Labels, names: tuple[str, str], title: str | None, look: Look
) -> Any:
    """A row for each head: Keras, the artifact, the difference."""
    _check_heads(len(want))
    heads, rows, columns = want.shape
    height = 2.1 * min(max(rows / columns, 0.3), 1.0)
    difference = got - want
    end, largest = style.top(want, got), style.top(np.abs(difference))
    size = (7.6, height * heads + 1.4)
    with style.figure(*size, heads, 3, look=look, **SHARED_AXES) as (figure, axes):
        for number in range(heads):
            left, middle, right = axes[number]
            image(left, want[number], WEIGHTS, 0, end)
            weights = image(middle, got[number], WEIGHTS, 0, end)
            changes = image(right, difference[number], DIFFERENCES, -largest, largest)
            left.set_ylabel(f"head {number + 1}\nquery" if heads > 1 else "query")
        for axis, name in zip(axes[0], (*names, "difference"), strict=True):
            axis.set_title(name, parse_math=False)
        for axis in axes[-1]:
            axis.set_xlabel("key")
            ticks(axis.xaxis, columns, keys, room=2.0)
        for axis in axes[:, 0]:
            ticks(axis.yaxis, rows, keys if rows == columns else None, room=height)
        layout: dict[str, Any] = {"location": "bottom", "fraction": 0.12 / heads}
        figure.colorbar(weights, ax=axes[:, :2], label="attention weight", aspect=40, **layout)
        bar = figure.colorbar(changes, ax=axes[:, 2], label="difference", aspect=20, **layout)
        bar.formatter.set_powerlimits((-2, 3))
        set_title(figure, title)
        return figure


def _check_steps(truth: Sequence[int] | None, length: int) -> list[int]:
    steps = [] if truth is None else [int(step) for step in truth]
    if any(not 0 <= step < length for step in steps):
        raise UsageError(f"truth should be steps from 0 to {length - 1}. Received: {steps}.")
    return steps


def _check_heads(heads: int) -> None:
    if heads > style.MAX_HEADS:
        raise UsageError(
            f"A figure has room for {style.MAX_HEADS} heads. Received: {heads}.",
            hint=f"Draw some of them: weights[:{style.MAX_HEADS}]",
        )
