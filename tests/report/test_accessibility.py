"""What keyboards, screen readers and settings of the system need from the report."""

import itertools
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from edgeattn.report import page
from edgeattn.report.sweep_page import render_sweep

TEMPLATES = Path(page.__file__).parent / "templates"
VOID = {"meta", "br", "img", "input", "hr", "link"}
HEADINGS = ("h1", "h2", "h3", "h4", "h5", "h6")


class Element:
    def __init__(self, tag, attributes, parent):
        self.tag, self.attributes, self.parent = tag, dict(attributes), parent
        self.text = ""

    def has_parent(self, *tags):
        element = self.parent
        while element is not None and element.tag not in tags:
            element = element.parent
        return element is not None


class Tree(HTMLParser):
    """All elements of a page in order, each with its text."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.current = [], None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        element = Element(tag, attributes, self.current)
        self.elements.append(element)
        if tag not in VOID:
            self.current = element

    def handle_startendtag(self, tag, attributes):
        self.elements.append(Element(tag, attributes, self.current))

    def handle_endtag(self, tag):
        self.current = self.current.parent

    def handle_data(self, data):
        element = self.current
        while element is not None:
            element.text += data
            element = element.parent

    def of(self, *tags):
        return [element for element in self.elements if element.tag in tags]


@pytest.fixture(scope="session")
def sweep():
    """The summary page of a sweep of two models, one of which fails."""
    row = {"format": "onnx", "scheme": "int8", "lowering": "auto", "data": None, "target": None}
    row |= {"bytes": 1200, "metric": "accuracy", "score": 0.9, "status": "done", "reason": None}
    row |= {"recommended": True}
    rows = [
        row | {"model": "one", "verdict": "pass"},
        row | {"model": "two", "verdict": "fail", "recommended": False, "reason": "it is wrong"},
    ]
    changes = [{"label": "two onnx int8", "column": "verdict", "old": "pass", "new": "fail"}]
    return render_sweep(rows, results="a folder", changes=changes)


@pytest.fixture(scope="module", params=["text", "several_inputs"])
def tree(request):
    return Tree(request.getfixturevalue(request.param))


@pytest.fixture(scope="module", params=["text", "several_inputs", "sweep"])
def any_tree(request):
    return Tree(request.getfixturevalue(request.param))


def test_headings_have_no_gaps(any_tree):
    levels = [HEADINGS.index(element.tag) + 1 for element in any_tree.of(*HEADINGS)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    for before, after in itertools.pairwise(levels):
        assert after <= before + 1
    assert all(element.text.strip() for element in any_tree.of(*HEADINGS))


def test_the_page_has_landmarks_a_language_and_a_title(tree):
    (html,), (title,) = tree.of("html"), tree.of("title")
    assert html.attributes["lang"] == "en"
    assert title.text.strip()
    assert [len(tree.of(tag)) for tag in ("header", "main", "footer", "nav")] == [1, 1, 1, 1]
    (nav,) = tree.of("nav")
    assert nav.attributes["aria-label"]


def test_the_first_link_skips_to_the_verdict(tree):
    first = tree.of("a", "button", "select", "summary")[0]
    assert first.text == "Skip to the verdict"
    ids = {element.attributes.get("id") for element in tree.elements}
    assert first.attributes["href"].removeprefix("#") in ids


def test_every_part_has_a_name(any_tree):
    by_id = {x.attributes["id"]: x for x in any_tree.elements if "id" in x.attributes}
    for element in any_tree.elements:
        label = element.attributes.get("aria-labelledby")
        if label is not None:
            assert by_id[label].text.strip()
        assert element.attributes.get("aria-label", "a name").strip()
    for section in any_tree.of("section"):
        assert "aria-labelledby" in section.attributes
    for element in any_tree.of("summary", "a", "caption", "figcaption", "dt"):
        assert element.text.strip(), element.tag


def test_pictures_have_alternatives(tree):
    assert tree.of("svg")
    for svg in tree.of("svg"):
        assert svg.attributes["role"] == "img"
        assert len(svg.attributes["aria-label"]) > 10
    for image in tree.of("image"):
        assert image.has_parent("svg")
    assert all("alt" in image.attributes for image in tree.of("img"))


def test_signs_are_not_read_aloud(any_tree):
    """A verdict is a word; its sign is decoration."""
    for element in any_tree.of("span"):
        if element.text.strip() in page.VERDICT_SIGNS.values():
            assert element.attributes.get("aria-hidden") == "true"


def test_tables_have_captions_and_headers(any_tree):
    tables = any_tree.of("table")
    assert tables
    assert len(any_tree.of("caption")) == len(tables)
    for header in any_tree.of("th"):
        assert header.attributes["scope"] in ("col", "row")
        assert header.text.strip()
    # Styles of narrow screens remove the roles that the elements imply.
    roles = {"table": "table", "tr": "row", "td": "cell"}
    for tag, role in roles.items():
        assert all(element.attributes["role"] == role for element in any_tree.of(tag))
    rows = [element for element in any_tree.of("tr") if element.parent.tag == "tbody"]
    for row in rows:
        cells = [x for x in any_tree.of("th", "td") if x.parent is row]
        assert cells[0].attributes["scope"] == "row"
        assert all(cell.attributes["data-label"] for cell in cells[1:])
        assert all(cell.text.strip() for cell in cells), [cell.text for cell in cells]


def test_controls_have_labels(any_tree):
    for element in any_tree.of("select", "input", "button"):
        assert element.has_parent("label")
    assert all("tabindex" not in x.attributes or x.attributes["tabindex"] == "0"
               for x in any_tree.elements)  # fmt: skip
    for element in any_tree.elements:
        if "scroll" in element.attributes.get("class", "").split():
            # What scrolls can be reached and scrolled by keyboard.
            assert element.attributes["tabindex"] == "0"
            assert element.attributes["role"] == "region"


def test_nothing_moves():
    """``prefers-reduced-motion`` needs no rule, because no style animates anything."""
    for path in TEMPLATES.iterdir():
        found = re.findall(r"transition|animation|@keyframes|scroll-behavior", path.read_text())
        assert not found, path.name
    assert "setInterval" not in (TEMPLATES / "page.js").read_text()


def test_focus_is_never_hidden():
    style = (TEMPLATES / "page.css").read_text()
    assert re.search(r":focus-visible \{ outline: [2-9]px solid", style)
    assert not re.search(r"outline:\s*(none|0)", style)
