"""Attention over one sequence, over many, and beside that of an artifact."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from edgeattn.errors import UsageError
from edgeattn.plots import style
from edgeattn.plots.axes import bars, image, ticks, titled
from edgeattn.plots.style import BLUE, DIFFERENCES, ORANGE, PAPER, RED, WEIGHTS, Look
from edgeattn.tensors import Array

SHAPES = {1: "(keys,)", 2: "(queries, keys)", 3: "(heads, queries, keys)"}


def attention(
    weights: ArrayLike,
    *,
    tokens: Sequence[object] | None = None,
    queries: Sequence[object] | None = None,
    truth: Sequence[int] | None = None,
    title: str | None = None,
    look: Look = PAPER,
) -> Any:
    """Where one sequence is looked at.

    Args:
        weights: ``(keys,)`` as of many-to-one attention: bars over the steps; ``(queries, keys)``
            or ``(heads, queries, keys)`` as of self-attention: an image for each head on one scale.
            Heads with a single query each share one image, a row for each head.
        tokens: what stands at each key, such as words; up to 40 are written under their step.
        queries: what stands at each query; ``tokens`` where there are as many.
        truth: steps, counted from 0, that ought to be looked at; ``(keys,)`` only.
        title: above everything.
        look: the colours of what is not data.

    Returns:
        :class:`matplotlib.figure.Figure`.

    Raises:
        UsageError: a shape, tokens or steps that do not fit, or matplotlib is missing.
    """
    array = style.checked(weights, "weights", SHAPES)
    names = style.labels(tokens, array.shape[-1])
    if array.ndim == 1:
        return _one(array, names, _steps(truth, len(array)), title, look)
    if truth is not None:
        raise UsageError("truth is drawn where weights are (keys,); these have queries.")
    if array.ndim == 3 and array.shape[1] == 1:
        rows = [f"{head + 1}" for head in range(len(array))]
        return _grid(array[:, 0][None], names, rows, title, look, row="head", column="step")
    count = array.shape[-2]
    same = queries is None and names is not None and len(names) == count
    asked = names if same else style.labels(queries, count, "queries")
    return _grid(array if array.ndim == 3 else array[None], names, asked, title, look)


def comparison(
    expected: ArrayLike,
    actual: ArrayLike,
    *,
    tokens: Sequence[object] | None = None,
    names: tuple[str, str] = ("Keras", "artifact"),
    title: str | None = None,
    look: Look = PAPER,
) -> Any:
    """One sequence's attention in Keras, in an artifact, and their difference.

    Args:
        expected: Keras' weights, ``(keys,)``, ``(queries, keys)`` or ``(heads, queries, keys)``.
        actual: the artifact's, of the same shape. The difference is actual - expected.
        tokens: what stands at each key; up to 40 are written under the difference.
        names: what the two are called.
        title: above everything.
        look: the colours of what is not data.

    Returns:
        :class:`matplotlib.figure.Figure`; all heads are on one scale, and so are all differences.

    Raises:
        UsageError: shapes or tokens that do not fit, or matplotlib is missing.
    """
    want = style.checked(expected, "expected", SHAPES)
    got = style.checked(actual, "actual", SHAPES)
    if want.shape != got.shape:
        raise UsageError(
            f"expected and actual should have one shape. Received: {want.shape} and {got.shape}."
        )
    told = style.labels(tokens, want.shape[-1])
    if want.ndim == 1:
        return _bars_compared(want, got, told, names, title, look)
    if want.ndim == 2:
        want, got = want[None], got[None]
    return _images_compared(want, got, told, names, title, look)


def panels(
    maps: Mapping[str, ArrayLike],
    *,
    tokens: Sequence[object] | None = None,
    title: str | None = None,
    look: Look = PAPER,
) -> Any:
    """Many sequences side by side: each of ``maps`` is an image, a row for each sequence.

    Args:
        maps: a name and an array ``(samples, steps)`` for each panel, all of one shape; for example
            the attention, where it is largest, and where it ought to be.
        tokens: what stands at each step.
        title: above everything.
        look: the colours of what is not data.

    Returns:
        :class:`matplotlib.figure.Figure`; each panel has a scale of its own that starts at zero.

    Raises:
        UsageError: no panel, shapes or tokens that do not fit, or matplotlib is missing.
    """
    shape = {2: "(samples, steps)"}
    arrays = {name: style.checked(array, name, shape) for name, array in maps.items()}
    shapes = {array.shape for array in arrays.values()}
    if len(shapes) != 1:
        told = ", ".join(f"{name} {array.shape}" for name, array in arrays.items()) or "no map"
        raise UsageError(f"maps should all have one shape. Received: {told}.")
    (count, length) = shapes.pop()
    names = style.labels(tokens, length)
    height = 0.9 + min(max(0.11 * count, 1.6), 5.5)
    width = 0.6 + len(arrays) * 2.3
    with style.figure(width, height, 1, len(arrays), look=look, sharey=True) as (made, axes):
        for axis, (name, array) in zip(axes[0], arrays.items(), strict=True):
            image(axis, array, WEIGHTS, 0, style.top(array))
            axis.set_title(name, parse_math=False)
            ticks(axis.xaxis, length, names)
            axis.set_xlabel("step")
        ticks(axes[0, 0].yaxis, count, None)
        axes[0, 0].set_ylabel("sequence")
        titled(made, title)
        return made


def _one(
    weights: Array, names: list[str] | None, truth: list[int], title: str | None, look: Look
) -> Any:
    with style.figure(7.0, 2.5, look=look) as (made, axes):
        axis = axes[0, 0]
        end = style.top(weights)
        bars(axis, weights, BLUE, end)
        if truth:
            axis.plot(np.array(truth) + 1, [1.07 * end] * len(truth), "v", color=RED, ms=7)
            axis.text(
                1.0,
                1.02,
                "▼ ought to be looked at",
                transform=axis.transAxes,
                ha="right",
                color=RED,
            )
        axis.set_ylim(0, 1.14 * end if truth else 1.05 * end)
        axis.set_ylabel("attention weight")
        axis.set_xlabel("step")
        ticks(axis.xaxis, len(weights), names)
        titled(made, title)
        return made


def _grid(
    heads: Array,
    names: list[str] | None,
    asked: list[str] | None,
    title: str | None,
    look: Look,
    row: str = "query",
    column: str = "key",
) -> Any:
    """``(heads, queries, keys)`` as images on one scale, labelled at the outside only."""
    _few_heads(len(heads))
    columns = min(len(heads), 4)
    rows = math.ceil(len(heads) / columns)
    size = 4.6 if len(heads) == 1 else 2.3
    queries, keys = heads.shape[1:]
    tall = size * min(max(queries / keys, 0.3), 1.0)
    end = style.top(heads)
    with style.figure(
        size * columns + 1.1, (tall + 0.35) * rows + 0.7, rows, columns, look=look, **_SHARED
    ) as (made, axes):
        for axis in axes.ravel()[len(heads) :]:
            axis.set_visible(False)
        for number, weights in enumerate(heads):
            axis = axes[number // columns, number % columns]
            drawn = image(axis, weights, WEIGHTS, 0, end)
            if len(heads) > 1:
                axis.set_title(f"head {number + 1}")
        for axis in axes[:, 0]:
            axis.set_ylabel(row)
            ticks(axis.yaxis, queries, asked, room=tall)
        for axis in axes[-1]:
            axis.set_xlabel(column)
            ticks(axis.xaxis, keys, names, room=0.85 * size)
        made.colorbar(drawn, ax=axes, label="attention weight", aspect=30, fraction=0.05)
        titled(made, title)
        return made


_SHARED = {"sharex": True, "sharey": True}


def _bars_compared(
    want: Array,
    got: Array,
    told: list[str] | None,
    names: tuple[str, str],
    title: str | None,
    look: Look,
) -> Any:
    with style.figure(7.6, 2.5, 1, 3, look=look) as (made, axes):
        difference = got - want
        end = style.top(want, got)
        most = style.top(np.abs(difference))
        for axis, values, color, name in zip(
            axes[0],
            (want, got, difference),
            (BLUE, ORANGE, RED),
            (*names, "difference"),
            strict=True,
        ):
            bars(axis, values, color, most if values is difference else end)
            axis.set_title(name, parse_math=False)
            axis.set_xlabel("step")
            ticks(axis.xaxis, len(want), told, room=2.2)
        for axis in axes[0, :2]:
            axis.set_ylim(0, 1.05 * end)
        axes[0, 1].tick_params(labelleft=False)
        axes[0, 2].set_ylim(-1.05 * most, 1.05 * most)
        axes[0, 2].axhline(0, color=look.ink, linewidth=0.8)
        axes[0, 2].ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
        axes[0, 0].set_ylabel("attention weight")
        titled(made, title)
        return made


def _images_compared(
    want: Array,
    got: Array,
    told: list[str] | None,
    names: tuple[str, str],
    title: str | None,
    look: Look,
) -> Any:
    """A row for each head: Keras, the artifact, the difference."""
    _few_heads(len(want))
    heads, queries, keys = want.shape
    tall = 2.1 * min(max(queries / keys, 0.3), 1.0)
    difference = got - want
    end, most = style.top(want, got), style.top(np.abs(difference))
    with style.figure(7.6, tall * heads + 1.4, heads, 3, look=look, **_SHARED) as (made, axes):
        for number in range(heads):
            left, middle, right = axes[number]
            image(left, want[number], WEIGHTS, 0, end)
            seen = image(middle, got[number], WEIGHTS, 0, end)
            changed = image(right, difference[number], DIFFERENCES, -most, most)
            left.set_ylabel(f"head {number + 1}\nquery" if heads > 1 else "query")
        for axis, name in zip(axes[0], (*names, "difference"), strict=True):
            axis.set_title(name, parse_math=False)
        for axis in axes[-1]:
            axis.set_xlabel("key")
            ticks(axis.xaxis, keys, told, room=2.0)
        for axis in axes[:, 0]:
            ticks(axis.yaxis, queries, told if queries == keys else None, room=tall)
        thin = {"location": "bottom", "aspect": 40, "fraction": 0.12 / heads}
        made.colorbar(seen, ax=axes[:, :2], label="attention weight", **thin)
        thin["aspect"] = 20
        bar = made.colorbar(changed, ax=axes[:, 2], label="difference", **thin)
        bar.formatter.set_powerlimits((-2, 3))
        titled(made, title)
        return made


def _steps(truth: Sequence[int] | None, length: int) -> list[int]:
    steps = [] if truth is None else [int(step) for step in truth]
    if any(not 0 <= step < length for step in steps):
        raise UsageError(f"truth should be steps of 0 to {length - 1}. Received: {steps}.")
    return steps


def _few_heads(heads: int) -> None:
    if heads > style.MOST_HEADS:
        raise UsageError(
            f"At most {style.MOST_HEADS} heads fit into one picture. Received: {heads}.",
            hint=f"Draw some of them: weights[:{style.MOST_HEADS}]",
        )
