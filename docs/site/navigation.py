"""The navigation of the site: the tables of docs/README.md, and of pages README.md below it."""

import posixpath
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PARTS = ("Tutorials", "How-to guides", "Reference", "Explanation")
# Generated from docstrings, so that no other page can link to them.
PYTHON_NAMES = [
    (f"Python: {name}", f"docs/site/python/{name}")
    for name in ("edgeattn", "layers", "plots", "converters")
]

Link = tuple[str, str]


def links_of_tables(page: str) -> dict[str, list[Link]]:
    """``{heading: [(text, page), ...]}`` of the pages that the first cells of tables link to."""
    sections: dict[str, list[Link]] = {}
    heading = ""
    for line in (ROOT / f"{page}.md").read_text("utf-8").splitlines():
        if line.startswith("## "):
            heading = line[3:]
        row = re.match(r"\| \[([^\]]+)\]\(([^)#:]+)\.md\)", line)
        if row:
            target = posixpath.normpath(posixpath.join(posixpath.dirname(page), row[2]))
            sections.setdefault(heading, []).append((row[1], target))
    return sections


def navigation() -> dict[str, list[Link]]:
    """The links of the site by part: tutorials, how-to guides, reference and explanation."""
    sections = links_of_tables("docs/README")
    links = {part: sections[part] for part in PARTS}
    links["Reference"] = [*links["Reference"], *PYTHON_NAMES]
    return links


def links_below(page: str) -> list[Link]:
    """The links of a page README.md that the navigation does not have."""
    listed = {target for links in navigation().values() for _, target in links}
    links = [link for part in links_of_tables(page).values() for link in part]
    return [(text, target) for text, target in links if target not in listed]


def toctree(links: list[Link], caption: str = "") -> str:
    """A hidden directive with ``links``, which the theme shows beside every page."""
    options = f":hidden:\n:caption: {caption}\n" if caption else ":hidden:\n"
    entries = "".join(f"{text} </{page}>\n" for text, page in links)
    return f"\n```{{toctree}}\n{options}\n{entries}```\n"


def appended_directives(page: str) -> str:
    """What is appended to a page before it is built; the files contain no directives."""
    if page == "README":
        parts = "".join(toctree(links, part) for part, links in navigation().items())
        return toctree([("All pages", "docs/README")]) + parts
    below = links_below(page) if page.endswith("/README") and page != "docs/README" else []
    return toctree(below) if below else ""
