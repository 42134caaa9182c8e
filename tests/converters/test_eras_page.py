"""``docs/eras.md`` is what the bank of specimens says.

``python tests/converters/test_eras_page.py`` renews it.
"""

from __future__ import annotations

import json
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "eras.md"
INDEX = ROOT / "tests" / "specimens" / "index.json"
HEAD = """# Files of every Keras

Made from the bank of specimens; `python tests/converters/test_eras_page.py` renews it.

Each row is a set of small files, made by the Keras that it names (`tests/specimens/` has the
scripts), together with what that Keras predicted. The tests load every one of them
(`test_load_specimens.py`) and compare with that, to 1e-5 of the largest value. "Reloads" counts
the files that the Keras which wrote them reads back itself.

Old configurations are repaired to today's Keras and filled by the names in the file; the notes that
`convert` and `inspect` print say what was repaired. Nothing in a file is executed: a Lambda is
recognised by its bytecode or refused. Seven real files of Keras 1.2 to 3.13 are converted to both
formats and held to what a Keras of their time said (`test_shared_models.py`), where they are at
hand.

| saved by | version | TensorFlow | Python | files | reloads | what they exercise |
|---|---|---|---|---|---|---|
"""


def written() -> str:
    groups: dict[tuple[str, str, str, str], list[dict[str, object]]] = {}
    for entry in json.loads(INDEX.read_text("utf-8")):
        folder = str(entry["file"]).split("/")[0]
        maker = folder.rsplit("-tf", 1)[0] if folder.startswith("attention-") else entry["keras"]
        key = (
            str(maker),
            entry["keras_version"],
            entry["tensorflow_version"] or "-",
            entry["python"],
        )
        groups.setdefault(key, []).append(entry)
    rows = []
    for key, entries in sorted(groups.items()):
        exercised = sorted({str(item) for entry in entries for item in _list(entry["exercises"])})
        again = sum(entry.get("reloads") is True for entry in entries)
        cells = [*key, str(len(entries)), str(again), ", ".join(exercised)]
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n")
    return HEAD + "".join(rows)


def _list(value: object) -> list[object]:
    return list(value) if isinstance(value, list) else [value]


def test_page_is_current() -> None:
    assert PAGE.read_text("utf-8") == written()


if __name__ == "__main__":
    PAGE.write_text(written(), "utf-8")
