"""``docs/benchmarks.md``: prose by hand, figures between markers by program."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "benchmarks.md"
SCRATCH = ROOT / ".out" / "bench"


def with_section(page: str, name: str, text: str) -> str:
    """``page`` with ``text`` between the markers of that name."""
    begin, end = (f"<!-- {name}: {word} -->" for word in ("made by program", "end"))
    if page.count(begin) != 1 or page.count(end) != 1:
        raise ValueError(f"the page must hold one {begin} and one {end}")
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    return pattern.sub(lambda _: f"{begin}\n\n{text.strip()}\n\n{end}", page)


def read(path: Path) -> Any:
    """What a file of results holds; None where there is none."""
    return json.loads(path.read_text()) if path.exists() else None


def write(path: Path, document: Any) -> None:
    """Aside, and renamed: an interrupted run leaves what was there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.new")
    aside.write_text(json.dumps(document, indent=1) + "\n")
    aside.rename(path)


def renewed(page: str, latest: Any, instructions: Any) -> str:
    """``page`` with every section made anew of the results that are kept."""
    from benchmarks import instructions as counts
    from benchmarks import tables, targets

    sections = {
        "targets": targets.table(targets.judged(latest, instructions)),
        "instructions": counts.table(instructions) if instructions else "Not counted yet.",
        "choice": counts.choices(instructions) if instructions else "Not counted yet.",
        **tables.sections(latest),
    }
    for name, text in sections.items():
        page = with_section(page, name, text)
    return page


def renew() -> None:
    """Make every section of the page anew."""
    latest, counted = (read(RESULTS / f"{name}.json") for name in ("latest", "instructions"))
    PAGE.write_text(renewed(PAGE.read_text(), latest, counted))
