"""The page and the XML: whole, self-contained, and telling what was found."""

import html.parser
import re
import shutil
from dataclasses import replace
from xml.etree import ElementTree

import artifacts
import numpy as np
import pytest

from edgeattn.errors import OutputError, UsageError
from edgeattn.report import latency_section as latency
from edgeattn.report import map_section as attention
from edgeattn.report import page, vocabulary, write_html
from edgeattn.report import svg_figures as plots
from edgeattn.report.junit import write_junit
from edgeattn.tensors import TensorSpec
from edgeattn.validation.validate import ArtifactReport, Report

pytest.importorskip("matplotlib")

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


def test_the_page_is_whole_and_loads_nothing(text):
    read = Reader(text)
    assert len(read.ids) == len(set(read.ids))
    for tag in ("script", "img", "link", "iframe"):
        there = [attributes.get("src", attributes.get("href")) for attributes in read.of(tag)]
        assert set(there) <= {None, "data:,"}
    loaded = re.findall(r'(?:href|src)="(?!#|data:image/png;base64,|data:,)([^"]*)"', text)
    assert loaded == []
    assert "@import" not in text
    assert text.count("</svg>") == len(read.of("svg"))
    assert len(text) < 5_000_000


def test_the_page_tells_the_verdict_first_and_the_failures(report, text):
    assert report.verdict == "fail"
    assert text.index('class="badge fail"') < text.index("<table")
    assert text.index("share of the tolerance used of score is") < text.index("<table")
    assert "at most 1 is allowed (tolerance_ratio)" in text
    assert "inconclusive" in text
    assert "samples like these would settle it" in text
    assert "Confusion after conversion, score: true class by row, answer by column" in text
    assert "Where it went wrong</h3><p>The first operation that is off is MatMul_3.</p>" in text


def test_figures_are_described_and_tables_have_headers(text):
    read = Reader(text)
    assert all(a.get("role") == "img" and a.get("aria-label") for a in read.of("svg"))
    assert len(read.of("figcaption")) == len(read.of("figure"))
    assert all("scope" in attributes for attributes in read.of("th"))
    assert len(read.of("caption")) == len(read.of("table"))
    named = {a.get("aria-labelledby") for a in read.of("section")}
    assert named <= set(read.ids)
    # Two artifacts of two maps of three samples, one of them of two heads: three panels each.
    drawn = [a for a in read.of("figure") if "data-map" in a]
    assert len(drawn) == 2 * 3 * (1 + 2)
    pickers = read.of("select")
    assert {a["data-picks"] for a in pickers} == {a["data-map"] for a in drawn}
    assert sorted(a["data-axis"] for a in pickers) == ["head"] * 2 + ["sample"] * 4


def test_samples_are_worst_median_and_best(text):
    """Of seven, the second head of each is further off than the one before."""
    for kind, row in (("worst", 6), ("median", 3), ("best", 0)):
        assert f"head 2: the {kind} of 7 samples, number {row}, off by" in text
    # The head that differs most is the first to be picked.
    picker = text[text.index('data-picks="onnx-float32-map-1" data-axis="head"') :]
    assert picker.index(">2, off by 0.006<") < picker.index(">1, off by 0<")


def test_the_page_is_the_same_when_made_again(bundle, report, tmp_path):
    (item, _) = report.artifacts
    fewer = replace(item, answers={k: a for k, a in item.answers.items() if k != "attention/heads"})
    write_html(tmp_path / "r.html", bundle, Report((fewer,)))
    assert (tmp_path / "r.html").read_text("utf-8") == page.render(bundle, Report((fewer,)))


def test_names_are_text_and_no_markup(bundle, report, tmp_path):
    def change(data):
        data["model"]["file"] = "<script>alert(1)</script>.h5"

    copied = tmp_path / "copy"
    shutil.copytree(bundle.path, copied)
    artifacts.edit_manifest(copied, change)
    made = type(bundle).open(copied)
    text = page.render(made, Report(()))
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert" in text


def test_what_did_not_run_is_told(bundle):
    items = tuple(
        ArtifactReport(entry, None, (), reason="no runtime") for entry in bundle.manifest.artifacts
    )
    text = page.render(bundle, Report(items))
    Reader(text)
    assert "no runtime" in text
    assert text.index("not run</span>") < text.index("<table")
    assert "Latency: not measured" in text


@pytest.mark.parametrize("shape", [(5,), (1,), (100,), (700,), (3, 5), (400, 300), (1, 1)])
def test_maps_of_every_shape_and_of_nan(shape):
    weights = np.full(shape, 1 / shape[-1])
    broken = weights.copy()
    broken[..., 0] = np.nan
    for actual in (weights, broken):
        panels = plots.maps(weights, actual, "a title & more")
        assert len(panels) == 3
        for panel in panels:
            assert panel.startswith('<svg role="img" aria-label="')
            assert ": a title &amp; more" in panel
            assert plots.INK not in panel
        assert sum(map(len, panels)) < 300_000


@pytest.mark.parametrize("errors", [np.zeros(5), np.array([1e-9, 1.0]), np.array([np.nan, 1.0])])
def test_histograms(errors):
    assert "<svg" in plots.histogram(errors, "errors")


def test_numbers_beside_an_axis_are_not_cut():
    """Coordinates are shortened, and what is written is not: 0.005 must not be told as 0.00."""
    points = [plots.Speed("onnx float32", 1000, 0.005, "pass")]
    written = re.findall(r"<text[^>]*>([^<]*)</text>", plots.speeds(points, "t"))
    assert {"0.000", "0.001", "0.006"} <= set(written)
    drop = plots.Drop("a", 0.00015, 0.0001, 0.0002, 0.0002, "pass")
    written = re.findall(r"<text[^>]*>([^<]*)</text>", plots.drops([drop], "t"))
    assert "0.0125" in written


def test_steps_that_are_shown_keep_their_numbers_and_words_theirs():
    weights = np.full(3, 1 / 3)
    for names, first, expected in (
        (None, 0, {"1", "2", "3"}),
        (None, 7, {"8", "9", "10"}),
        (["a", "$b", "c"], 7, {"a", "$b", "c"}),
    ):
        (panel, *_) = plots.maps(weights, weights, "t", names, first)
        assert expected <= set(re.findall(r"<text[^>]*>([^<]*)</text>", panel))


# Texts


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("w.txt", "the\nfilm\n3\ngood\n"),
        ("w.json", '["the", "film", "3", "good"]'),
        ("w.json", '{"film": 1, "good": 3, "the": 0, "3": 2}'),
        ("w.json", '{"film": 1, "good": 3, "the": 0, "3": "2"}'),
    ],
)
def test_vocabularies(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    assert vocabulary.read_vocabulary(tmp_path / name) == ["the", "film", "3", "good"]


def test_numbers_without_a_word_stay_numbers(tmp_path):
    (tmp_path / "w.json").write_text('{"film": 1, "good": 3}')
    assert vocabulary.read_vocabulary(tmp_path / "w.json") == ["0", "film", "2", "good"]


@pytest.mark.parametrize(
    "content",
    [b"", b"3", b"[]", b"{}", b'{"a": -1}', b'{"a": "b"}', b'{"a": 1e400}', b"\xff", b"[["],
)
def test_what_is_no_vocabulary_is_refused(tmp_path, content):
    (tmp_path / "w.json").write_bytes(content)
    with pytest.raises(UsageError, match="no vocabulary"):
        vocabulary.read_vocabulary(tmp_path / "w.json")
    (tmp_path / "w.txt").write_text("")
    with pytest.raises(UsageError, match="no vocabulary"):
        vocabulary.read_vocabulary(tmp_path / "w.txt")


@pytest.fixture
def read_text(bundle):
    """Maps over a text of nine words, which the padding follows; two heads."""

    def sections(words=None, budget=1_000_000, heads=1):
        tokens = np.zeros((4, 9), np.int32)
        tokens[:, :4] = [[5, 2, 3, 1], [2, 2, 2, 2], [1, 1, 1, 1], [3, 3, 3, 3]]
        want = np.zeros((4, heads, 1, 9), np.float32)
        want[..., :4] = 0.25
        spec = TensorSpec("words", (None, 9), "int32")
        name = "attention/a"
        entry = replace(bundle.manifest.artifacts[0], inputs=(spec,), attention=(name,))
        arrays = {"input/words": tokens, name: want}
        return "".join(attention.sections(entry, arrays, {name: want}, 4, "k", budget, words))

    return sections


def test_words_stand_at_the_steps_and_padding_is_left_out(read_text):
    plain, named = read_text(), read_text(["-", "the", "film", "was", "so", "good"])
    assert "Steps 1 to 4 of 9; the rest is padding." in plain
    assert ">5</text>" in plain
    assert ">good</text>" in named
    assert "Both look most at step 1 (good)." in named


def test_words_are_shaded_by_their_weights():
    told = attention._shaded(["<b>", "film", "was"], np.array([0.5, 0.25, 0.001]), np.zeros(3))
    keras, other = told.split("<dt>artifact")
    assert '<b style="--w:1.00">&lt;b&gt;</b> <b style="--w:0.50">film</b> was' in keras
    assert "<dd>&lt;b&gt; film was</dd>" in other
    assert "nan" not in attention._shaded(["a", "b"], np.array([np.nan, 1.0]), np.ones(2))


def test_heads_that_do_not_fit_are_counted(read_text, monkeypatch):
    monkeypatch.setattr(plots, "maps", lambda *_: ["<svg>" + 500 * "." + "</svg>"] * 3)
    small = read_text(budget=1000, heads=3)
    assert "Of 3 heads the 1 that differ most are drawn" in small
    whole = read_text(heads=3)
    assert "that differ most are drawn" not in whole
    assert len(small) < 0.5 * len(whole)


def test_a_page_of_many_maps_stays_small(bundle, monkeypatch):
    """Ten artifacts of sixty maps of eight heads, each panel as large as one of an image is."""
    monkeypatch.setattr(plots, "maps", lambda *_: [f"<svg>{20_000 * '.'}</svg>"] * 3)
    names = tuple(f"attention/{k}" for k in range(60))
    want = np.full((4, 8, 3, 5), 0.2, np.float32)
    entry = replace(bundle.manifest.artifacts[0], inputs=(), attention=names)
    arrays = dict.fromkeys(names, want)
    answers = {name: want + np.float32(1e-3 * k) for k, name in enumerate(names)}
    budget = attention.BUDGET // 10
    told = "".join(attention.sections(entry, arrays, answers, 4, "k", budget))
    assert "Of 60 maps the 2 that differ most are drawn" in told
    # Those that differ most.
    assert "<h4>59</h4>" in told
    assert "<h4>58</h4>" in told
    assert 10 * len(told) < 4_500_000


# Latency


def test_latency_is_told_where_it_was_measured(text):
    assert "Latency as measured" in text
    row = text[text.index("Latency as measured") :]
    assert row.index("0.0125") < row.index("0.025") < row.index("3.5")


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"artifacts": [{"format": 1}]}', "\xff"])
def test_what_bench_did_not_print_is_refused(tmp_path, content):
    path = tmp_path / "b.json"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(UsageError, match="not what edgeattn bench prints"):
        latency.read_bench(path)
    with pytest.raises(UsageError, match="cannot be read"):
        latency.read_bench(tmp_path / "none.json")


def test_no_plotting_library_is_told(monkeypatch, bundle, report):
    import sys

    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UsageError, match="matplotlib") as told:
        page.render(bundle, report)
    assert "edgeattn[report]" in told.value.hint


def test_no_plotting_library_is_told_before_any_work(edgeattn, dense_bundle, monkeypatch):
    import sys

    from edgeattn.validation import validate as validation

    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr(validation, "validate_isolated", lambda *_, **__: pytest.fail("it ran"))
    ended = edgeattn("validate", dense_bundle.path, "--report", "r.html")
    assert ended.code == 2
    assert "edgeattn[report]" in ended.err


def test_a_page_that_cannot_be_written_leaves_nothing(bundle, tmp_path):
    report = Report(())
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
    assert one.get("failures") == "3"
    told = [failure.get("message").split()[0] for failure in one.iter("failure")]
    assert told == ["tolerance_ratio", "max_abs_error", "jensen_shannon"]
    assert (other.get("failures"), other.get("skipped")) == ("0", "1")
    assert int(other.get("tests")) == len(other.findall("testcase"))
    missing = Report((ArtifactReport(bundle.manifest.artifacts[0], None, (), reason="none here"),))
    write_junit(tmp_path / "r.xml", bundle, missing)
    (skipped,) = ElementTree.parse(tmp_path / "r.xml").getroot().iter("skipped")
    assert skipped.get("message") == "none here"
