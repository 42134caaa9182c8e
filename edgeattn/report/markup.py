"""Pieces of HTML: every text in them is escaped, every table and figure has a name."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

SIGNS = {"pass": "✓", "fail": "✗", "inconclusive": "?", "not run": "–"}


def e(text: object) -> str:
    return html.escape(str(text), quote=True)


def number(value: float) -> str:
    if not math.isfinite(value):
        return {math.inf: "∞", -math.inf: "-∞"}.get(value, "NaN")
    return f"{value:.3g}"


def share(value: float) -> str:
    return f"{100 * value:.2f}%"


def size(count: int) -> str:
    return f"{count / 1e3:,.1f} kB" if count < 1e6 else f"{count / 1e6:,.2f} MB"


def badge(verdict: str) -> str:
    """A verdict as a sign and a word: colour is never all that tells it."""
    kind = verdict.replace(" ", "-")
    sign = f'<span aria-hidden="true">{SIGNS[verdict]}</span>'
    return f'<span class="badge {kind}">{sign} {verdict}</span>'


def table(
    caption: str, header: Sequence[str], rows: Sequence[Sequence[str]], *, kind: str = ""
) -> str:
    """A table of cells that are HTML already; it scrolls by itself where the screen is narrow.

    Of the ``kind`` "cards" each row is a card there instead, of "checks" a few lines. Roles are
    told, since such a style takes them from a table's parts.
    """
    head = "".join(f'<th scope="col" role="columnheader">{e(cell)}</th>' for cell in header)
    body = "".join(
        f'<tr role="row"><th scope="row" role="rowheader">{row[0]}</th>'
        + "".join(
            f'<td role="cell" data-label="{e(name)}">{cell}</td>'
            for name, cell in zip(header[1:], row[1:], strict=True)
        )
        + "</tr>"
        for row in rows
    )
    inner = (
        f'<table role="table" class="{kind or "plain"}"><caption>{e(caption)}</caption>'
        f'<thead role="rowgroup"><tr role="row">{head}</tr></thead>'
        f'<tbody role="rowgroup">{body}</tbody></table>'
    )
    if kind:
        return f'<div class="holder">{inner}</div>'
    return f'<div class="scroll" tabindex="0" role="region" aria-label="{e(caption)}">{inner}</div>'


def figure(svg: str, caption: str, extra: str = "") -> str:
    """``svg`` may be several panels, which stand below each other where the screen is narrow."""
    return f"<figure{extra}>{svg}<figcaption>{e(caption)}</figcaption></figure>"


def facts(pairs: Sequence[tuple[str, str]]) -> str:
    """A list of names and what stands for them, which is HTML already."""
    parts = "".join(f"<div><dt>{e(name)}</dt><dd>{value}</dd></div>" for name, value in pairs)
    return f'<dl class="facts">{parts}</dl>'


def select(label: str, picks: str, axis: str, options: Sequence[tuple[str, str]]) -> str:
    """A picker: of the figures of ``picks``, those are shown whose ``axis`` is the one chosen."""
    parts = "".join(f'<option value="{e(value)}">{e(text)}</option>' for value, text in options)
    return (
        f'<label>{e(label)} <select data-picks="{e(picks)}" data-axis="{e(axis)}">{parts}'
        "</select></label>"
    )
