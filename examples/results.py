"""Writes docs/results.md: the figures of the examples, from the documents in examples/results."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

HERE = Path(__file__).parent
BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"
TITLES = {
    "imdb": "IMDB: reviews, with attention and without",
    "activity": "Activity: a phone's sensors",
    "gestures": "Gestures: 16 positions of a finger",
    "vowels": "Vowels: nine speakers, unequal lengths",
    "add_two_numbers": "Adding two numbers",
    "find_max": "Finding the maximum",
}
HEADER = (
    "format", "scheme", "kB", "size", "score (95%)", "drop, points (95%)", "map, max error",
    "map, JSD", "largest weight stays", "time", "verdict",
)  # fmt: skip


@click.command()
@click.option(
    "--results",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    default=HERE / "results",
    help="The folder of documents, NAME.json. Default: examples/results",
)
@click.option(
    "--page",
    type=click.Path(path_type=Path, dir_okay=False),
    default=HERE.parent / "docs" / "results.md",
    help="Renewed between its two markers. Default: docs/results.md",
)
@click.option("--check", is_flag=True, help="Write nothing; end with 1 where the page is not so.")
def main(results: Path, page: Path, check: bool) -> None:
    """Write the tables of docs/results.md from what the examples recorded."""
    documents = [
        json.loads(path.read_text(encoding="utf-8")) for path in sorted(results.glob("*.json"))
    ]
    if not documents:
        raise click.ClickException(f"No documents in {results}: run an example with --record.")
    told = page.read_text(encoding="utf-8")
    renewed = renew(told, as_page(documents))
    if check and renewed != told:
        raise click.ClickException(f"{page.name} is not what the documents say: make results")
    if not check:
        page.write_text(renewed, encoding="utf-8")


def renew(page: str, made: str) -> str:
    """The page with ``made`` between its markers."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise click.ClickException(f"The page has no markers {BEGIN} and {END}.")
    return f"{before}{BEGIN}\n\n{made}\n{END}{after}"


def as_page(documents: Sequence[Mapping[str, Any]]) -> str:
    order = list(TITLES)
    sections = sorted(documents, key=lambda document: order.index(document["example"]))
    return "\n".join(as_section(document) for document in sections)


def as_section(result: Mapping[str, Any]) -> str:
    """How it was obtained, what else was measured, and a row an artifact."""
    original, training = result["keras"], result["training"]
    lines = [f"## {TITLES[result['example']]}", "", *_obtained(result, training), ""]
    if result["example"] == "imdb":
        lines += _beside_published(result["figures"])
    elif result["figures"]:
        lines += [f"- {name}: {_figure(value)}" for name, value in result["figures"].items()]
        lines += [""]
    if original is not None:
        lines += [
            f"Keras: {_score(original)} on all {original['samples']:,} test samples. "
            f"Verdict on the bundle: {result['verdict']}.",
            "",
        ]
    notes = sorted({note for item in result["artifacts"] for note in item["notes"]})
    lines += [*(f"Note: {note}." for note in notes), *([""] if notes else [])]
    unit = {
        item["format"]: item["bytes"] for item in result["artifacts"] if item["scheme"] == "float32"
    }
    rows = [as_row(item, unit.get(item["format"])) for item in result["artifacts"]]
    lines += table(HEADER, rows)
    lines += [""]
    for item in result["artifacts"]:
        told = [item["achieved"]] if item["achieved"] else []
        told += [f"failed: {'; '.join(item['failed'])}"] if item["failed"] else []
        if told:
            lines.append(f"- {item['format']} {item['scheme']}: {'. '.join(told)}")
    for failure in result["failures"]:
        lines.append(f"- {failure['format']} {failure['scheme']}: {failure['reason']}")
    return "\n".join([*lines, ""] if lines[-1] else lines)


def as_row(item: Mapping[str, Any], unit: int | None) -> list[str]:
    map_ = item["attention"] or {}
    drop = "-"
    if item["drop"] is not None:
        scale, digits = (100, 2) if item["kind"] == "accuracy" else (1, 5)
        low, high = item["drop_interval"]
        drop = (
            f"{scale * item['drop']:+.{digits}f} ({scale * low:+.{digits}f} to "
            f"{scale * high:+.{digits}f})"
        )
    return [
        item["format"],
        item["scheme"],
        f"{item['bytes'] / 1000:,.1f}",
        f"{item['bytes'] / unit:.2f}" if unit else "-",
        "-" if item["score"] is None else _score(item),
        drop,
        f"{map_['max_abs_error']:.1e}" if map_ else "-",
        f"{map_['jensen_shannon']:.1e}" if map_ else "-",
        f"{100 * map_['argmax_stability']:.1f}%" if map_ else "-",
        f"{item['latency_ratio']:.2f}" if item["latency_ratio"] else "-",
        item["verdict"],
    ]


def _obtained(result: Mapping[str, Any], training: Mapping[str, Any]) -> list[str]:
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    lines = [
        f"`{result['command']}` on {result['date']}, seed {result['seed']}: {training['epochs']} "
        f"epochs in {_duration(training['seconds'])} on {result['machine']} "
        f"(backend {result['backend']}, {versions}), {result['parameters']:,} parameters.",
    ]
    if "data" in training:
        lines.append(f"Data: {training['data']}; {training['rows']:,} rows to train on.")
    if "chosen" in training:
        lines.append(f"The model is that of epoch {training['kept_epoch']}: {training['chosen']}.")
    return lines


def _beside_published(figures: Mapping[str, Any]) -> list[str]:
    columns = {
        "no attention": figures["plain"],
        "with attention": figures["attention"],
        "published, no attention": figures["published"]["plain"],
        "published, with attention": figures["published"]["attention"],
    }
    rows = [
        [told, *(str(column[told]) for column in columns.values())] for told in ("runs", "epochs")
    ]
    rows += [
        [f"{told} of the best test accuracy, %", *(_percent(c[name]) for c in columns.values())]
        for name, told in (("max", "max"), ("mean", "mean"), ("sd", "standard deviation"))
    ]
    return [
        *table(("over the runs", *columns), rows),
        "",
        "Of each run its best epoch on the test set counts, as in the published table: a little "
        "too good for both.",
        "",
    ]


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table."""
    return [f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows)]


def _score(item: Mapping[str, Any]) -> str:
    if item["interval"] is None:
        return f"{item['kind']} {item['score']:.4f}"
    low, high = item["interval"]
    return f"{100 * item['score']:.2f}% ({100 * low:.2f} to {100 * high:.2f})"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} minutes"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"


def _figure(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
