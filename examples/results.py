"""Writes the tables of docs/results.md from the documents in examples/results."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

FOLDER = Path(__file__).parent
BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"
TITLES = {
    "imdb": "IMDB: reviews, with attention and without",
    "activity": "Activity: a phone's sensors",
    "gestures": "Gestures: 16 positions of a finger",
    "vowels": "Vowels: nine speakers, unequal lengths",
    "add_two_numbers": "Adding two numbers",
    "find_max": "Finding the maximum",
}
COLUMNS = (
    "format", "scheme", "size (kB)", "size ratio", "weights in scheme", "float32 operators",
    "score (95% interval)", "drop (95% interval)", "map max abs error", "map JSD (nats)",
    "same top step", "time ratio", "verdict",
)  # fmt: skip


@click.command()
@click.option(
    "--results",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    default=FOLDER / "results",
    help="Folder with the documents, NAME.json. Default: examples/results",
)
@click.option(
    "--page",
    type=click.Path(path_type=Path, dir_okay=False),
    default=FOLDER.parent / "docs" / "results.md",
    help="Page to update between its markers. Default: docs/results.md",
)
@click.option("--check", is_flag=True, help="Write nothing; exit with 1 if the page is outdated.")
def main(results: Path, page: Path, check: bool) -> None:
    """Write the tables of docs/results.md from the recorded results of the examples."""
    documents = [
        json.loads(path.read_text(encoding="utf-8")) for path in sorted(results.glob("*.json"))
    ]
    if not documents:
        raise click.ClickException(f"{results} has no documents. Run an example with --record.")
    current = page.read_text(encoding="utf-8")
    updated = replace_tables(current, as_page(documents))
    if check and updated != current:
        raise click.ClickException(f"{page.name} is outdated. Run: make results")
    if not check:
        page.write_text(updated, encoding="utf-8")


def replace_tables(page: str, tables: str) -> str:
    """The page with ``tables`` between its markers."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise click.ClickException(f"The page has no markers {BEGIN} and {END}.")
    return f"{before}{BEGIN}\n\n{tables}\n{END}{after}"


def as_page(documents: Sequence[Mapping[str, Any]]) -> str:
    order = list(TITLES)
    ordered = sorted(documents, key=lambda document: order.index(document["example"]))
    return "\n".join(as_section(document) for document in ordered)


def as_section(result: Mapping[str, Any]) -> str:
    """The circumstances of an experiment, its figures, and a table row for each artifact."""
    keras = result["keras"]
    lines = [f"## {TITLES[result['example']]}", "", *_circumstances(result), ""]
    if result["example"] == "imdb":
        lines += _comparison_with_published(result["figures"])
    elif result["figures"]:
        lines += [f"- {name}: {_figure(value)}" for name, value in result["figures"].items()]
        lines += [""]
    if keras is not None:
        lines += [
            f"Keras: {_score(keras)} on all {keras['samples']:,} test samples. "
            f"Verdict on the bundle: {result['verdict']}.",
            "",
        ]
    notes = sorted({note for item in result["artifacts"] for note in item["notes"]})
    lines += [*(f"Note: {note}." for note in notes), *([""] if notes else [])]
    base_sizes = {
        item["format"]: item["bytes"] for item in result["artifacts"] if item["scheme"] == "float32"
    }
    rows = [as_row(item, base_sizes.get(item["format"])) for item in result["artifacts"]]
    lines += [*table(COLUMNS, rows), ""]
    for item in result["artifacts"]:
        if item["failed"]:
            lines.append(f"- {item['format']} {item['scheme']} failed: {'; '.join(item['failed'])}")
    for failure in result["failures"]:
        lines.append(f"- {failure['format']} {failure['scheme']}: {failure['reason']}")
    return "\n".join([*lines, ""] if lines[-1] else lines)


def as_row(item: Mapping[str, Any], base_size: int | None) -> list[str]:
    attention, weights = item["attention"] or {}, item["weights"]
    operators = item["operators"]
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
        f"{item['bytes'] / base_size:.2f}" if base_size else "-",
        f"{weights['percent']}% {weights['type']}" if weights else "-",
        f"{operators['float32']} of {operators['total']}" if operators else "-",
        "-" if item["score"] is None else _score(item),
        drop,
        f"{attention['max_abs_error']:.1e}" if attention else "-",
        f"{attention['jensen_shannon']:.1e}" if attention else "-",
        f"{100 * attention['argmax_stability']:.1f}%" if attention else "-",
        f"{item['latency_ratio']:.2f}" if item["latency_ratio"] else "-",
        item["verdict"],
    ]


def _circumstances(result: Mapping[str, Any]) -> list[str]:
    training = result["training"]
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    lines = [
        f"`{result['command']}` on {result['date']}, seed {result['seed']}: {training['epochs']} "
        f"epochs in {_duration(training['seconds'])} on {result['machine']} "
        f"(backend {result['backend']}, {versions}), {result['parameters']:,} parameters.",
    ]
    if "data" in training:
        lines.append(f"Data: {training['data']}; {training['rows']:,} training samples.")
    if "chosen" in training:
        lines.append(f"Chosen epoch: {training['kept_epoch']}, {training['chosen']}.")
    return lines


def _comparison_with_published(figures: Mapping[str, Any]) -> list[str]:
    columns = {
        "no attention": figures["plain"],
        "with attention": figures["attention"],
        "published, no attention": figures["published"]["plain"],
        "published, with attention": figures["published"]["attention"],
    }
    rows = [
        [name, *(str(column[name]) for column in columns.values())] for name in ("runs", "epochs")
    ]
    rows += [
        [f"{title} of the best test accuracy (%)", *(_percent(c[key]) for c in columns.values())]
        for key, title in (("max", "max"), ("mean", "mean"), ("sd", "standard deviation"))
    ]
    return [
        *table(("statistic", *columns), rows),
        "",
        "The score of a run is its best epoch on the test set, as in the published table. It is "
        "slightly too high for both models.",
        "",
    ]


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a Markdown table."""
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
