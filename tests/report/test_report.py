"""The page and the XML: whole, self-contained, and telling what was found."""

import html.parser
import re
from dataclasses import replace
from xml.etree import ElementTree

import artifacts
import numpy as np
import pytest

from edgeattn import task
from edgeattn.errors import OutputError, UsageError
from edgeattn.report import page, plots, write_html
from edgeattn.report.junit import write_junit
from edgeattn.runners.function import FunctionRunner
from edgeattn.task import TaskReport
from edgeattn.tensors import TensorSpec
from edgeattn.validation import ArtifactReport, Report, validate

pytest.importorskip("matplotlib")

HEADS, QUERIES, KEYS = 2, 3, 5
ROW = TensorSpec("attention/row", (None, KEYS), "float32")
MAP = TensorSpec("attention/heads", (None, HEADS, QUERIES, KEYS), "float32")
# Elements that have no end tag in HTML.
VOID = {"meta", "br", "img", "input", "hr", "link"}


class Reader(html.parser.HTMLParser):
    """The tags of a page, their nesting checked."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.ids = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.ids += [value for name, value in attributes if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def of(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def softmax(values):
    powers = np.exp(values)
    return (powers / powers.sum(-1, keepdims=True)).astype(np.float32)


@pytest.fixture
def bundle(tmp_path):
    artifacts.write_dense_onnx(tmp_path / "m.onnx")
    x = artifacts.samples()
    generator = np.random.default_rng(3)
    entry = artifacts.artifact(
        tmp_path / "m.onnx", outputs=(artifacts.Y, ROW, MAP), attention=(ROW.name, MAP.name)
    )
    arrays = {
        "input/x": x,
        "output/score": artifacts.dense(x),
        ROW.name: softmax(generator.standard_normal((7, KEYS))),
        MAP.name: softmax(generator.standard_normal((7, HEADS, QUERIES, KEYS))),
    }
    return artifacts.write_bundle(tmp_path, [entry, replace(entry, scheme="int8")], arrays)


@pytest.fixture
def report(bundle):
    """float32 with one wrong number, int8 with a task."""
    reference = bundle.reference()

    def answer(tensors):
        count = len(tensors["x"])
        got = {
            "score": reference["output/score"][:count].copy(),
            ROW.name: reference[ROW.name][:count],
            MAP.name: reference[MAP.name][:count],
        }
        got["score"][0, 0] += 0.01
        return got

    made = validate(
        bundle,
        bundle.manifest.artifacts,
        lambda item: FunctionRunner(answer, item.inputs, item.outputs),
    )
    truth = np.repeat([0, 1], 200)
    scores = np.eye(2)[truth]
    after = scores.copy()
    after[:2] = after[:2, ::-1]
    outcome = task.compare("score", truth, scores, after, retention=0.99)
    first, second = made.artifacts
    return Report((first, replace(second, task=TaskReport("Keras", (outcome,), "t.npz", ("n",)))))


def test_the_page_is_whole_and_loads_nothing(bundle, report, tmp_path):
    write_html(tmp_path / "r.html", bundle, report)
    text = (tmp_path / "r.html").read_text("utf-8")
    read = Reader(text)
    assert len(read.ids) == len(set(read.ids))
    for tag in ("script", "img", "link", "iframe"):
        assert not any("src" in attributes or "href" in attributes for attributes in read.of(tag))
    loaded = re.findall(r'(?:href|src)="(?!#|data:image/png;base64,)([^"]*)"', text)
    assert loaded == []
    assert "@import" not in text
    assert text.count("</svg>") == len(read.of("svg"))
    assert len(text) < 5_000_000


def test_the_page_tells_the_verdict_first_and_the_failures(bundle, report):
    text = page.render(bundle, report)
    assert report.verdict == "fail"
    assert text.index("fail</span></h1>") < text.index("<table")
    assert "tolerance_ratio of score is" in text
    assert "inconclusive" in text
    assert "samples like these would settle it" in text
    assert "Confusion after: true class by row, answer by column" in text


def test_figures_are_described_and_tables_have_headers(bundle, report):
    read = Reader(page.render(bundle, report))
    assert all(a.get("role") == "img" and a.get("aria-label") for a in read.of("svg"))
    assert len(read.of("figcaption")) == len(read.of("figure")) == len(read.of("svg"))
    assert all("scope" in attributes for attributes in read.of("th"))
    assert len(read.of("caption")) == len(read.of("table"))
    # Two artifacts of two maps of three samples, one picker for each map.
    picked = [a for a in read.of("figure") if "data-pick" in a]
    assert len(picked) == 12
    assert {a["data-picks"] for a in read.of("select")} == {a["data-pick"] for a in picked}


def test_the_page_is_the_same_when_made_again(bundle, report):
    assert page.render(bundle, report) == page.render(bundle, report)


def test_names_are_text_and_no_markup(bundle, report):
    def change(data):
        data["model"]["file"] = "<script>alert(1)</script>.h5"

    artifacts.edit_manifest(bundle.path, change)
    text = page.render(type(bundle).open(bundle.path), report)
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert" in text


def test_what_did_not_run_is_told(bundle):
    items = tuple(
        ArtifactReport(entry, None, (), reason="no runtime") for entry in bundle.manifest.artifacts
    )
    text = page.render(bundle, Report(items))
    Reader(text)
    assert "no runtime" in text
    assert "not run</span></h1>" in text


@pytest.mark.parametrize("shape", [(5,), (1,), (700,), (3, 5), (400, 300), (2, 3, 5), (11, 2, 2)])
def test_maps_of_every_shape_and_of_nan(shape):
    weights = np.full(shape, 1 / shape[-1])
    broken = weights.copy()
    broken[..., 0] = np.nan
    for actual in (weights, broken, weights * 0):
        svg = plots.maps(weights, actual, "a title & more")
        assert svg.startswith('<svg role="img" aria-label="a title &amp; more"')
        assert len(svg) < 400_000
        assert plots.INK not in svg


@pytest.mark.parametrize("errors", [np.zeros(5), np.array([1e-9, 1.0]), np.array([np.nan, 1.0])])
def test_histograms(errors):
    assert "<svg" in plots.histogram(errors, 0.5, "errors")
    assert "<svg" in plots.histogram(errors, None, "errors")


def test_no_plotting_library_is_told(monkeypatch, bundle, report):
    import sys

    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UsageError, match="matplotlib") as told:
        page.render(bundle, report)
    assert "edgeattn[report]" in told.value.hint


def test_a_page_that_cannot_be_written_leaves_nothing(bundle, report, tmp_path):
    with pytest.raises(OutputError, match="Cannot write"):
        write_html(tmp_path / "none" / "r.html", bundle, report)
    (tmp_path / "there").mkdir()
    with pytest.raises(OutputError, match="Cannot write"):
        write_html(tmp_path / "there", bundle, report)
    assert not list(tmp_path.glob(".there*"))


def test_junit(bundle, report, tmp_path):
    write_junit(tmp_path / "r.xml", bundle, report)
    root = ElementTree.parse(tmp_path / "r.xml").getroot()
    one, other = root.findall("testsuite")
    assert (one.get("name"), other.get("name")) == ("onnx float32", "onnx int8")
    assert one.get("failures") == "1"
    (failure,) = one.iter("failure")
    assert "tolerance_ratio" in failure.get("message")
    assert (other.get("failures"), other.get("skipped")) == ("0", "1")
    assert int(other.get("tests")) == len(other.findall("testcase"))
    missing = Report((ArtifactReport(bundle.manifest.artifacts[0], None, (), reason="none here"),))
    write_junit(tmp_path / "r.xml", bundle, missing)
    (skipped,) = ElementTree.parse(tmp_path / "r.xml").getroot().iter("skipped")
    assert skipped.get("message") == "none here"
