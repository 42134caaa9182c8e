"""``docs/eras.md`` is up to date with the index of the specimens.

``python tests/converters/test_eras_page.py`` regenerates the page.
"""

from __future__ import annotations

import json
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "eras.md"
INDEX = ROOT / "tests" / "specimens" / "index.json"
HEAD = """# Tested Keras versions

Look up whether files of your Keras version, and the layers that they contain, are tested. Each row
is a group of small model files, saved by the Keras version in the row together with the outputs
that it computed. The tests load every file in the current Keras and require the same outputs to
within 1e-5 of the largest value. They convert one in twelve to both formats, and `make specimens`
converts all. [Loading](loading.md) describes what is changed when a file of an older version is
loaded.

| column | content |
|---|---|
| saved by | the package; `attention-VERSION` if a layer is from the PyPI package `attention` |
| version | the version of Keras |
| files | number of files |
| reloaded | number of files that the Keras version that saved them can load again |
| exercises | what the files contain |

The table is generated from `tests/specimens/index.json` by
`python tests/converters/test_eras_page.py`; the scripts that saved the files are in
[tests/specimens](../tests/specimens/README.md).

| saved by | version | TensorFlow | Python | files | reloaded | exercises |
|---|---|---|---|---|---|---|
"""


def generate() -> str:
    groups: dict[tuple[str, str, str, str], list[dict[str, object]]] = {}
    for entry in json.loads(INDEX.read_text("utf-8")):
        folder = str(entry["file"]).split("/")[0]
        saved_by = folder.rsplit("-tf", 1)[0] if folder.startswith("attention-") else entry["keras"]
        key = (
            str(saved_by),
            entry["keras_version"],
            entry["tensorflow_version"] or "-",
            entry["python"],
        )
        groups.setdefault(key, []).append(entry)
    rows = []
    for key, entries in sorted(groups.items()):
        exercises = sorted({str(item) for entry in entries for item in _list(entry["exercises"])})
        reloaded = sum(entry.get("reloads") is True for entry in entries)
        cells = [*key, str(len(entries)), str(reloaded), ", ".join(exercises)]
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n")
    return HEAD + "".join(rows)


def _list(value: object) -> list[object]:
    return list(value) if isinstance(value, list) else [value]


def test_page_is_up_to_date() -> None:
    assert PAGE.read_text("utf-8") == generate()


if __name__ == "__main__":
    PAGE.write_text(generate(), "utf-8")
