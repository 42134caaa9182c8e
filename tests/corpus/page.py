"""The tables of ``docs/corpus.md``, from the results of :mod:`corpus.run`."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from edgeattn.schemes import FORMATS, SCHEMES

from .outputs import CRASHED, INEXACT, REFUSED, RIGHT, WRONG
from .reasons import INEXACT_MODELS, REFUSALS
from .results import PATH, read_results
from .run import all_cases

PAGE = Path(__file__).parents[2] / "docs" / "corpus.md"
START, END = "<!-- corpus -->", "<!-- end of corpus -->"
SYMBOLS = {RIGHT: "✓", INEXACT: "~", REFUSED: "R", WRONG: "✗", CRASHED: "!", "-": ""}
FILES = {"keras .keras": ".keras", "keras .h5": ".h5", "tf_keras .h5": "tf_keras .h5"}
TITLES = {
    "reported": "Models that people report problems with",
    "published": "Architectures from papers and tutorials",
    "layers": "Layers and their options",
    "tensorflow": "TensorFlow operations in functional models of Keras 2",
    "operations": "Operations of keras.ops",
}
FORMAT_TITLES = {"tflite": "TFLite", "onnx": "ONNX"}
ARTIFACTS = tuple(f"{format} {scheme}" for format in FORMATS for scheme in SCHEMES)
# Characters with a meaning in tables, links and HTML.
PLAIN = str.maketrans({"|": "/", "<": "‹", ">": "›", "[": "(", "]": ")", "`": "'", "*": "×"})

Result = Mapping[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=PATH, help="file of JSON lines")
    arguments = parser.parse_args()
    PAGE.write_text(with_tables(PAGE.read_text("utf-8"), arguments.results), "utf-8")


def with_tables(text: str, path: Path) -> str:
    """The text of the page with the tables of the results in ``path``."""
    results = read_results(path)
    known = [case.name for case in all_cases()]
    tables = "\n".join(_tables([results[name] for name in known if name in results], len(known)))
    before, after = text[: text.index(START)], text[text.index(END) + len(END) :]
    return before + START + "\n" + tables + END + after


def status(result: Result, label: str) -> str:
    """The status of a file, an artifact, or ``stock FORMAT``; ``-`` if there is none."""
    kind, _, route = label.partition(" ")
    if kind == "stock":
        return str(result["stock"].get(route, ["-"])[0])
    known = {**result["files"], **result["artifacts"]}
    return str(known.get(label, ["-"])[0])


def _tables(results: Sequence[Result], count: int) -> Iterator[str]:
    yield f"Measured: {len(results)} of {count} models.\n"
    yield from _summary(results)
    yield from _behind(results)
    for group, title in TITLES.items():
        members = [item for item in results if item["name"].startswith(group + "/")]
        if members:
            yield f"\n## {title}\n"
            yield from _rows(members)
    yield "\n## Refusals\n"
    yield from _refusals(results)
    yield "\n## Inexact files\n"
    yield from _inexact(results)
    yield "\n## Reasons\n"
    yield from _reasons(results)


def _summary(results: Sequence[Result]) -> Iterator[str]:
    labels = [*ARTIFACTS, *(f"stock {format}" for format in FORMATS)]
    statuses = (RIGHT, INEXACT, REFUSED, WRONG, CRASHED)
    yield f"| route | {' | '.join(statuses)} |"
    yield "|---|" + "---:|" * len(statuses)
    for label in labels:
        values = [status(item, label) for item in results]
        counts = " | ".join(str(values.count(name)) for name in statuses)
        format = next(name for name in FORMATS if name in label)
        title = label.replace(format, FORMAT_TITLES[format])
        yield f"| {title} | {counts} |"


def _behind(results: Sequence[Result]) -> Iterator[str]:
    """The models of which a stock route makes a right float32 file and edgeattn does not."""
    models = []
    for item in results:
        formats = [
            FORMAT_TITLES[format]
            for format in FORMATS
            if status(item, f"stock {format}") == RIGHT != status(item, f"{format} float32")
        ]
        if formats:
            title = item["name"].split("/", 1)[1].translate(PLAIN)
            models.append(f"{title} ({', '.join(formats)})")
    if models:
        yield (
            "\nIn float32, a stock route is right and edgeattn is not for: "
            f"{'; '.join(models)}. [Reasons](#reasons) has the message of each.\n"
        )


def _rows(results: Sequence[Result]) -> Iterator[str]:
    labels = [*FILES, *ARTIFACTS, *(f"stock {format}" for format in FORMATS)]
    labels = [label for label in labels if any(status(item, label) != "-" for item in results)]
    titles = []
    for label in labels:
        title = FILES.get(label, label)
        for format, name in FORMAT_TITLES.items():
            title = title.replace(format, name)
        titles.append(title)
    yield f"| model | {' | '.join(titles)} |"
    yield "|---|" + ":-:|" * len(labels)
    for item in results:
        cells = " | ".join(SYMBOLS[status(item, label)] for label in labels)
        yield f"| {item['name'].split('/', 1)[1]} | {cells} |"


def _refusals(results: Sequence[Result]) -> Iterator[str]:
    """The number of refused models by reason and route, with why the reason holds.

    Raises :class:`ValueError` if a refusal has no reason, or several.
    """
    labels = [label for label in ARTIFACTS if any(status(r, label) == REFUSED for r in results)]
    counts = {reason: dict.fromkeys(labels, 0) for reason in REFUSALS}
    for item in results:
        for label in labels:
            if status(item, label) == REFUSED:
                counts[_reason(item["name"], item["artifacts"][label][1])][label] += 1
    yield f"| reason | {' | '.join(map(_title, labels))} | why |"
    yield "|---|" + "---:|" * len(labels) + "---|"
    for reason, count in counts.items():
        if any(count.values()):
            numbers = " | ".join(str(number or "") for number in count.values())
            yield f"| {reason} | {numbers} | {REFUSALS[reason][1]} |"


def _reason(name: str, text: str) -> str:
    reasons = [reason for reason, (pattern, _) in REFUSALS.items() if re.search(pattern, text)]
    if len(reasons) != 1:
        raise ValueError(f"{name}: the refusal {text!r} has {len(reasons)} reasons in REFUSALS.")
    return reasons[0]


def _inexact(results: Sequence[Result]) -> Iterator[str]:
    """The inexact files, with why they are. Raises :class:`ValueError` for an unexplained one."""
    yield "| model | files | why |"
    yield "|---|---|---|"
    for item in results:
        labels = [label for label in ARTIFACTS if status(item, label) == INEXACT]
        if not labels:
            continue
        name = item["name"]
        if name not in INEXACT_MODELS:
            raise ValueError(f"{name}: INEXACT_MODELS has no reason why it is inexact.")
        title = name.split("/", 1)[1].translate(PLAIN)
        yield f"| {title} | {', '.join(map(_title, labels))} | {INEXACT_MODELS[name]} |"


def _title(label: str) -> str:
    format, scheme = label.split()
    return f"{FORMAT_TITLES[format]} {scheme}"


def _reasons(results: Sequence[Result]) -> Iterator[str]:
    """Everything of edgeattn that is not right, with its reason; equal ones are one line."""
    for item in results:
        by_reason: dict[tuple[str, str], list[str]] = {}
        for label, (name, *reason) in {**item["files"], **item["artifacts"]}.items():
            if name not in (RIGHT, "-"):
                by_reason.setdefault((name, " ".join(reason)), []).append(label)
        for (name, reason), labels in by_reason.items():
            text = " ".join(reason.translate(PLAIN).split())[:160]
            yield f"- {item['name']}, {', '.join(labels)}: {name}: {text}"
    yield ""


if __name__ == "__main__":
    main()
