"""The pages whose tables between markers are generated: the log, and what readers can expect."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from benchmarks import instruction_tables, tables, targets
from benchmarks.model_names import RECURRENT
from edgeattn.files import atomic_write

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "benchmarks.md"
READERS_PAGE = ROOT / "docs" / "speed-and-size.md"
SCRATCH = ROOT / ".out" / "bench"


def with_section(page: str, name: str, text: str) -> str:
    """Replace what is between the markers of a section. Raises ValueError without markers."""
    begin, end = f"<!-- {name}: generated -->", f"<!-- {name}: end -->"
    if page.count(begin) != 1 or page.count(end) != 1:
        raise ValueError(f"the page must have one {begin} and one {end}")
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    return pattern.sub(lambda _: f"{begin}\n\n{text.strip()}\n\n{end}", page)


def read(path: Path) -> Any:
    """Read a JSON file; ``None`` if it does not exist."""
    return json.loads(path.read_text()) if path.exists() else None


def write(path: Path, document: Any) -> None:
    """Write a JSON file atomically."""
    with atomic_write(path, parents=True) as file:
        file.write((json.dumps(document, indent=1) + "\n").encode())


def with_results(page: str, latest: Any, counts: Any, bounds: Any) -> str:
    """Return ``page`` with all sections generated from the results."""
    sections = {
        "targets": targets.table(targets.evaluate(latest, counts)),
        "instructions": instruction_tables.table(counts) if counts else "Not counted yet.",
        "choice": instruction_tables.lowering_table(counts) if counts else "Not counted yet.",
        "integers": instruction_tables.integer_table(counts, bounds or {}, RECURRENT)
        if counts
        else "Not counted yet.",
        **tables.sections(latest),
    }
    for name, text in sections.items():
        page = with_section(page, name, text)
    return page


def with_expectations(page: str, latest: Any) -> str:
    """Return the readers' page with the table of the results."""
    return with_section(page, "expectations", tables.expectations(latest))


def update() -> None:
    """Generate all sections of the pages from the recorded results."""
    names = ("latest", "instructions", "kernel_bounds")
    latest, counts, bounds = (read(RESULTS / f"{name}.json") for name in names)
    PAGE.write_text(with_results(PAGE.read_text(), latest, counts, bounds))
    READERS_PAGE.write_text(with_expectations(READERS_PAGE.read_text(), latest))
