"""Attention maps on the page: Keras, the artifact and their difference, sample by sample."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgeattn.metrics import pairwise as metrics
from edgeattn.report import svg_figures as plots
from edgeattn.report.markup import e, figure, number, select
from edgeattn.tensors import Array, Tensors

if TYPE_CHECKING:
    from edgeattn.bundle.manifest import Artifact

PICKED = ("worst", "median", "best")
# Of what all figures of maps may take together, in bytes: a page is to be sent by mail.
BUDGET = 2_400_000
# Of the largest weight: a word that gets less stands on the page's own ground.
FAINT = 0.02


def sections(
    artifact: Artifact,
    arrays: Tensors,
    answers: Tensors,
    samples: int,
    key: str,
    budget: int,
    vocabulary: Sequence[str] | None = None,
) -> Iterator[str]:
    """HTML of the maps of an artifact, at most about ``budget`` bytes of it.

    Maps and heads that differ most are drawn first; where not all fit, it is told how many do.
    """
    errors = {
        name: metrics.max_abs_error(arrays[name][:samples], answers[name][:samples])
        for name in artifact.attention
        if name in answers and arrays[name].shape == answers[name].shape
    }
    # NaN is the largest of errors.
    there = sorted(errors, key=lambda name: -np.nan_to_num(errors[name], nan=np.inf))
    left = budget
    for place, name in enumerate(there):
        if left <= 0:
            yield (
                f"<p>Of {len(there)} maps the {place} that differ most are drawn: the page is to "
                "stay small.</p>"
            )
            return
        shown = list(
            _section(
                name,
                arrays[name][:samples],
                answers[name][:samples],
                _tokens(artifact, arrays, name, samples),
                vocabulary,
                f"{key}-map-{artifact.attention.index(name)}",
                left // (len(there) - place),
            )
        )
        left -= sum(map(len, shown))
        yield from shown


def _section(
    name: str,
    want: Array,
    got: Array,
    tokens: Array | None,
    vocabulary: Sequence[str] | None,
    key: str,
    budget: int,
) -> Iterator[str]:
    # One axis of heads for all: (samples, heads, [queries,] keys).
    several = want.ndim == 4
    want, got = (a if several else a[:, None] for a in (want, got))
    each = np.array(
        [
            [metrics.max_abs_error(w[None], g[None]) for w, g in zip(one, other, strict=True)]
            for one, other in zip(want, got, strict=True)
        ]
    )  # (samples, heads)
    each = np.where(np.isnan(each), np.inf, each)
    by_sample = each.max(1)
    order = np.argsort(by_sample, kind="stable")
    chosen = {"worst": order[-1], "median": order[len(order) // 2], "best": order[0]}
    heads = np.argsort(-each.max(0), kind="stable")
    figures: list[str] = []
    drawn: list[int] = []
    for head in heads:
        parts = [
            _figure(
                f"Attention of {name.removeprefix('attention/')}"
                + (f", head {head + 1}" if several else ""),
                kind,
                row,
                len(want),
                (want[row, head], got[row, head]),
                float(each[row, head]),
                None if tokens is None else tokens[row],
                vocabulary,
                f' data-map="{key}" data-sample="{kind}" data-head="{head}"',
            )
            for kind, row in chosen.items()
        ]
        size = sum(map(len, figures)) + sum(map(len, parts))
        if drawn and size > budget:
            break
        figures += parts
        drawn.append(int(head))
    yield f"<h4>{e(name.removeprefix('attention/'))}</h4>"
    options = [
        (kind, f"{kind}: number {row}, off by {number(float(by_sample[row]))}")
        for kind, row in chosen.items()
    ]
    pickers = [select("Sample", key, "sample", options)]
    if several:
        worst = each.max(0)
        named = [(str(h), f"{h + 1}, off by {number(float(worst[h]))}") for h in drawn]
        pickers.append(select("Head", key, "head", named))
    yield f'<div class="pickers">{"".join(pickers)}</div>'
    if len(drawn) < len(heads):
        yield (
            f"<p>Of {len(heads)} heads the {len(drawn)} that differ most are drawn: the page is to "
            "stay small.</p>"
        )
    yield f'<div aria-live="polite">{"".join(figures)}</div>'


def _figure(
    title: str,
    kind: str,
    row: int,
    samples: int,
    pair: tuple[Array, Array],
    error: float,
    tokens: Array | None,
    vocabulary: Sequence[str] | None,
    extra: str,
) -> str:
    first, last = _real(pair[0], tokens)
    shown = [a[..., first:last] for a in pair]
    if pair[0].ndim == 2 and pair[0].shape[0] == pair[0].shape[1]:
        shown = [a[first:last] for a in shown]
    names = None if tokens is None else _names(tokens[first:last], vocabulary)
    caption = f"{title}: the {kind} of {samples} samples, number {row}, off by {number(error)}."
    if last - first < pair[0].shape[-1]:
        caption += f" Steps {first + 1} to {last} of {pair[0].shape[-1]}; the rest is padding."
    looked = [a.reshape(-1, a.shape[-1]).mean(0) for a in shown]
    if all(np.isfinite(a).all() for a in looked):
        most = [int(np.argmax(a)) for a in looked]
        steps = [f"step {m + first + 1}" + (f" ({names[m]})" if names else "") for m in most]
        same = "both look most at " + steps[0]
        differ = f"Keras looks most at {steps[0]}, the artifact at {steps[1]}"
        caption += f" {(same if most[0] == most[1] else differ).capitalize()}."
    panels = "".join(plots.maps(shown[0], shown[1], caption, names, first))
    text = ""
    if vocabulary is not None and names is not None and shown[0].ndim == 1:
        text = _shaded(names, shown[0], shown[1])
    return figure(f'<div class="panels">{panels}</div>{text}', caption, extra)


def _shaded(names: Sequence[str], want: Array, got: Array) -> str:
    """The text, twice, each word on a ground that is the stronger, the more it is looked at."""
    end = max(float(np.nanmax(a, initial=1e-9)) for a in (want, got))
    rows = []
    for name, weights in (("Keras", want), ("artifact", got)):
        words = []
        for word, weight in zip(names, np.nan_to_num(weights), strict=True):
            share = min(1.0, max(0.0, float(weight) / end))
            faint = share < FAINT
            words.append(e(word) if faint else f'<b style="--w:{share:.2f}">{e(word)}</b>')
        rows.append(f"<div><dt>{name}</dt><dd>{' '.join(words)}</dd></div>")
    return f'<dl class="shaded">{"".join(rows)}</dl>'


def _tokens(artifact: Artifact, arrays: Tensors, name: str, samples: int) -> Array | None:
    """The numbers of the words that stand at a map's keys, where an input is made of such."""
    keys = arrays[name].shape[-1]
    for spec in artifact.inputs:
        values = arrays.get(f"input/{spec.name}")
        if values is not None and values.dtype.kind in "iu" and values.shape[1:] == (keys,):
            return values[:samples]
    return None


def _real(weights: Array, tokens: Array | None) -> tuple[int, int]:
    """The keys from the first to the last that are no padding: number 0, and no weight in Keras."""
    length = weights.shape[-1]
    if tokens is None:
        return 0, length
    real = np.flatnonzero((tokens != 0) | (weights.reshape(-1, length) != 0).any(0))
    return (int(real[0]), int(real[-1]) + 1) if len(real) else (0, length)


def _names(tokens: Array, vocabulary: Sequence[str] | None) -> list[str]:
    if vocabulary is None:
        return [str(token) for token in tokens.tolist()]
    known = len(vocabulary)
    return [vocabulary[t] if 0 <= t < known else str(t) for t in tokens.tolist()]
