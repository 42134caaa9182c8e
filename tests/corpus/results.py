"""The file of results: a line of JSON for each model, the statuses by label.

Labels that are right are a list; the others have a status and a reason. A run appends lines, and
the last one of a model counts; :func:`write_results` keeps one line for each.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .outputs import RIGHT

PATH = Path(__file__).with_name("results.jsonl")
Result = Mapping[str, Any]
_PARTS = {"keras": "files", "tf_keras": "files", "stock": "stock"}
_STOCK = "stock "


def to_line(result: Result) -> str:
    """The line of a result: ``{"name", "files", "artifacts", "stock"}`` with statuses by label."""
    stock = {_STOCK + route: status for route, status in result["stock"].items()}
    statuses = {**result["files"], **result["artifacts"], **stock}
    right = [label for label, (status, *_) in statuses.items() if status == RIGHT]
    others = {label: status for label, status in statuses.items() if status[0] != RIGHT}
    line = {"name": result["name"], "right": right, **({"others": others} if others else {})}
    return json.dumps(line, separators=(",", ":"), ensure_ascii=False) + "\n"


def from_line(line: str) -> dict[str, Any]:
    """The result of a line."""
    document = json.loads(line)
    statuses = {label: [RIGHT] for label in document["right"]} | document.get("others", {})
    result: dict[str, Any] = {"name": document["name"], "files": {}, "artifacts": {}, "stock": {}}
    for label, status in statuses.items():
        part = _PARTS.get(label.split()[0], "artifacts")
        result[part][label.removeprefix(_STOCK)] = status
    return result


def read_results(path: Path) -> dict[str, dict[str, Any]]:
    """The results by name; the last line of a model counts."""
    if not path.is_file():
        return {}
    lines = path.read_text("utf-8").splitlines()
    return {result["name"]: result for result in map(from_line, filter(None, lines))}


def append_result(path: Path, result: Result) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(to_line(result))


def write_results(path: Path, results: Mapping[str, Result], names: Iterable[str]) -> None:
    """Write the results of ``names``, in this order."""
    lines = [to_line(results[name]) for name in names if name in results]
    path.write_text("".join(lines), "utf-8")
