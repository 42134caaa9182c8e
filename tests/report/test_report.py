"""The HTML report and the JUnit XML: complete, self-contained and accessible."""

import base64
import hashlib
import html.parser
import io
import re
import shutil
import sys
from dataclasses import replace
from xml.etree import ElementTree

import artifacts
import numpy as np
import pytest
from front_ends import COUNTS, add_front_end

from edgeattn.api import deploy
from edgeattn.benchmark.document import read_bench
from edgeattn.deployment.results import SWITCHED, DeploymentResult
from edgeattn.device.info import describe_device
from edgeattn.errors import OutputError, UsageError
from edgeattn.evaluation.results import TaskReport
from edgeattn.frontend.answers import Answer
from edgeattn.report import map_section, page, svg_figures, svg_panels, write_html
from edgeattn.report.junit import write_junit
from edgeattn.report.page import render_template
from edgeattn.report.task_section import outcome_details
from edgeattn.report.vocabulary import read_vocabulary
from edgeattn.tensors import TensorSpec
from edgeattn.validation.recommendation import SIZE
from edgeattn.validation.report import ArtifactReport, Report

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")

HOSTILE = "a\x1b[2J\u202e\nVerdict: pass"

# Elements without an end tag in HTML.
VOID = {"meta", "br", "img", "input", "hr", "link"}


class Reader(html.parser.HTMLParser):
    """The tags of a page; fails if their nesting is wrong."""

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


def squeezed(text):
    """``text`` with single spaces, as a browser shows it."""
    return re.sub(r"\s+", " ", text)


def test_the_page_is_complete_and_loads_nothing(text):
    reader = Reader(text)
    assert len(reader.ids) == len(set(reader.ids))
    for tag in ("script", "img", "link", "iframe"):
        sources = [attributes.get("src", attributes.get("href")) for attributes in reader.of(tag)]
        assert set(sources) <= {None, "data:,"}
    loaded = re.findall(r'(?:href|src)="(?!#|data:image/png;base64,|data:,)([^"]*)"', text)
    assert loaded == []
    assert "@import" not in text
    assert text.count("</svg>") == len(reader.of("svg"))
    assert len(text) < 5_000_000


def test_internal_links_have_targets(text):
    reader = Reader(text)
    targets = {a["href"][1:] for a in reader.of("a")}
    assert {"verdict", "onnx-float32", "onnx-int8"} <= targets <= set(reader.ids)


def key_values(text):
    """The values of the first screen by title."""
    (key,) = re.findall(r'<dl class="key">(.*?)</dl>', text, flags=re.DOTALL)
    return dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", key))


def test_the_first_screen_answers_which_file_and_how_sure(bundle, text):
    """396 of 400 right: a Wilson interval, here from its formula."""
    p, n, z = 0.99, 400, 1.959964
    center, half = p + z * z / (2 * n), z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low, high = ((center + sign * half) / (1 + z * z / n) for sign in (-1, 1))
    values = key_values(text)
    assert values["Median latency"] == "0.25 ms with 2 threads on pi@raspberrypi"
    interval = f"95% interval {100 * low:.1f} to {100 * high:.1f}"
    assert values["Score"] == f"accuracy 99.00% ({interval}), 100.00% with Keras"
    # The weight of the last sample's second head is off by 0.006.
    assert values["Attention"].startswith("max abs error of a weight 0.006, limit ")
    assert values["Size"] == f"{bundle.manifest.artifacts[1].bytes / 1e3:.1f} kB"
    start = text[: text.index("<main>")]
    for word in ("Recommended: ", "the fastest that passes", "Raspberry Pi 4 &lt;B&gt;"):
        assert word in start
    assert str(bundle.manifest.reference["sha256"]) in start
    assert "2026-01-02 03:04 UTC" in start


def test_what_was_not_measured_is_said_on_the_first_screen(bundle, report, recommendation):
    first, second = report.artifacts
    untimed = replace(recommendation.candidate, artifact=first.artifact, p50_ms=None, threads=None)
    chosen = replace(recommendation, candidate=untimed, criterion=SIZE)
    latency = {"format": "onnx", "scheme": "float32", "threads": 4, "runs": 9, "p50_ms": 0.5}
    for bench, expected in (
        (None, "not measured"),
        ({"artifacts": [latency], "place": "pi@b"}, "0.5 ms with 4 threads on pi@b"),
        ({"artifacts": [latency | {"p50_ms": None}]}, "not measured"),
        ({"artifacts": [latency | {"scheme": "int8"}]}, "not measured"),
    ):
        items = (replace(first, outputs={}), replace(second, outputs={}))
        text = page.render(bundle, Report(items), bench=bench, recommendation=chosen)
        values = key_values(text)
        assert values["Median latency"] == expected
        assert values["Score"] == "not measured: no dataset with labels"
    none = replace(recommendation, candidate=None, reason="no artifact passes")
    text = page.render(bundle, Report(()), recommendation=none)
    assert "Recommended: none, because no artifact passes." in text
    assert '<dl class="key">' not in text


def test_the_overview_shows_size_latency_and_score(text):
    overview = text[text.index('id="overview-title"') :]
    overview = overview[: overview.index("</table>")]
    assert "Verdict, size, latency, score and largest error of all artifacts" in overview
    cells = dict.fromkeys(("median latency", "score"))
    for name in cells:
        matches = re.findall(rf'data-label="{name}">(.*?)</td>', overview, flags=re.DOTALL)
        cells[name] = [re.sub("<.*?>", "", cell).strip() for cell in matches]
    assert cells == {
        "median latency": ["0.0125 ms", "–"],
        "score": ["–", "99.00% (97.5 to 99.6)"],
    }
    # A stage is named if its verdict is another than that of the artifact, or is why it is no pass.
    verdicts = [squeezed(re.sub("<.*?>", "", cell)).strip() for cell in re.findall(
        r'data-label="verdict">(.*?)</td>', overview, flags=re.DOTALL)]  # fmt: skip
    assert verdicts == ["✗ fail numbers, attention, task not run", "? inconclusive task"]
    assert "Stages that ran: structure, numbers, attention, task. Not run: device." in text


def test_the_verdict_and_the_failures_come_first(report, text):
    assert report.verdict == "fail"
    assert text.index('class="badge fail"') < text.index("<table")
    assert text.index("tolerance ratio of score: ") < text.index("<table")
    assert "limit ≤ 1 (tolerance_ratio)" in text
    assert "inconclusive" in text
    assert "samples would settle it" in text
    caption = "Confusion of score after conversion: true class by row, predicted class by column"
    assert f"{caption}, with the change" in text
    # Of 200 of each class, 4 of class 0 are predicted as class 1.
    cells = re.findall(r'class="cell([a-z ]*)" style="--v:([\d.]+)">(.*?)</span>', text)
    assert [(kind.split(), share, re.sub("<.*?>", "", cell)) for kind, share, cell in cells] == [
        (["worse"], "1.000", "196 -4"),
        (["worse"], "1.000", "4 +4"),
        (["none"], "0.000", "0"),
        ([], "0.000", "200"),
    ]
    assert "<h3>Diagnosis</h3> <p>The first operation with an error is MatMul_3.</p>" in squeezed(
        text
    )


def test_figures_are_described_and_tables_have_headers(text):
    reader = Reader(text)
    assert all(a.get("role") == "img" and a.get("aria-label") for a in reader.of("svg"))
    assert len(reader.of("figcaption")) == len(reader.of("figure"))
    assert all("scope" in attributes for attributes in reader.of("th"))
    assert len(reader.of("caption")) == len(reader.of("table"))
    labels = {a.get("aria-labelledby") for a in reader.of("section")}
    assert labels <= set(reader.ids)
    # Two artifacts with two maps of three samples, one of the maps with two heads.
    figures = [a for a in reader.of("figure") if "data-map" in a]
    assert len(figures) == 2 * 3 * (1 + 2)
    pickers = reader.of("select")
    assert {a["data-picks"] for a in pickers} == {a["data-map"] for a in figures}
    assert sorted(a["data-axis"] for a in pickers) == ["head"] * 2 + ["sample"] * 4


def test_samples_are_worst_median_and_best(text):
    """The error of the second head grows from sample to sample."""
    for rank, row in (("worst", 6), ("median", 3), ("best", 0)):
        assert f"head 2: the {rank} of 7 samples, number {row}, max abs error" in text
    # The head with the largest error is the first option.
    picker = text[text.index('data-picks="onnx-float32-map-1" data-axis="head"') :]
    assert picker.index(">2, max abs error 0.006<") < picker.index(">1, max abs error 0<")


def test_the_page_is_deterministic(bundle, report, tmp_path):
    (item, _) = report.artifacts
    answers = {name: a for name, a in item.outputs.items() if name != "attention/heads"}
    smaller = Report((replace(item, outputs=answers),))
    write_html(tmp_path / "r.html", bundle, smaller)
    assert (tmp_path / "r.html").read_text("utf-8") == page.render(bundle, smaller)


def test_names_are_escaped(bundle, tmp_path):
    def change(data):
        data["model"]["file"] = "<script>alert(1)</script>.h5"

    copied = tmp_path / "copy"
    shutil.copytree(bundle.path, copied)
    artifacts.edit_manifest(copied, change)
    reason = "<img src=x onerror=alert(1)>"
    items = [ArtifactReport(bundle.manifest.artifacts[0], None, (), reason=reason)]
    text = page.render(type(bundle).open(copied), Report(tuple(items)))
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert" in text
    assert "<img" not in text
    assert "&lt;img src=x onerror" in text


def test_only_the_script_of_the_page_may_run(bundle, report, text):
    policy = next(
        tag["content"]
        for tag in Reader(text).of("meta")
        if tag.get("http-equiv") == "Content-Security-Policy"
    )
    assert "default-src 'none'" in policy
    (script,) = re.findall(r"<script>(.*?)</script>", text, flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    # No attribute runs a script: the policy would block it.
    assert not any(name.startswith("on") for _, tag in Reader(text).tags for name in tag)


def test_control_characters_are_shown_as_escapes(bundle, report, tmp_path):
    def change(data):
        data["model"]["file"] = f"{HOSTILE}.h5"

    copied = tmp_path / "copy"
    shutil.copytree(bundle.path, copied)
    artifacts.edit_manifest(copied, change)
    opened = type(bundle).open(copied)
    items = [replace(item, reason=HOSTILE, warnings=(HOSTILE,)) for item in report.artifacts]
    hostile = Report(tuple(items))
    text = page.render(opened, hostile)
    assert not [c for c in text if not c.isprintable() and c not in "\n\u00a0"]
    assert "a\\x1b[2J\\u202e\\nVerdict: pass" in text
    # XML has no control characters, so that a CI system could not read the file.
    write_junit(tmp_path / "r.xml", opened, hostile)
    xml = (tmp_path / "r.xml").read_text("utf-8")
    assert "a\\x1b[2J\\u202e\\nVerdict: pass" in xml
    ElementTree.fromstring(xml)


def test_artifacts_that_did_not_run_have_a_reason(bundle):
    items = tuple(
        ArtifactReport(artifact, None, (), reason="no runtime")
        for artifact in bundle.manifest.artifacts
    )
    text = page.render(bundle, Report(items))
    Reader(text)
    assert "no runtime" in text
    assert text.index("not run</span>") < text.index("<table")
    assert "Latency: not measured" in text


def test_an_empty_report_is_rendered(bundle):
    text = page.render(bundle, Report(()))
    Reader(text)
    assert "No artifact ran." in text


def test_many_classes_are_listed_instead_of_drawn(bundle, report):
    matrix = np.diag(np.full(21, 9))
    after = matrix.copy()
    after[3, 5], after[7, 1] = 2, 4
    (_, item) = report.artifacts
    (outcome,) = item.task.results
    task = replace(item.task, results=(replace(outcome, confusions=(matrix, after)),))
    text = page.render(bundle, Report((replace(item, task=task, outputs={}),)))
    Reader(text)
    assert "Confusion of score after conversion" not in text
    rows = re.findall(r'rowheader">(\d+)</th>', text)
    assert rows == ["7", "3"]


@pytest.mark.parametrize("shape", [(5,), (1,), (100,), (700,), (3, 5), (400, 300), (1, 1)])
def test_maps_of_every_shape_and_with_nan(shape):
    weights = np.full(shape, 1 / shape[-1])
    broken = weights.copy()
    broken[..., 0] = np.nan
    for actual in (weights, broken):
        panels = svg_panels.map_panels(weights, actual, "a title & more")
        assert len(panels) == 3
        for panel in panels:
            assert panel.startswith('<svg role="img" aria-label="')
            assert ": a title &amp; more" in panel
            ElementTree.fromstring(panel)
        assert sum(map(len, panels)) < 300_000


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_cells_that_are_not_finite_have_a_color_of_their_own(value):
    from PIL import Image

    weights = np.full((3, 5), 0.2)
    broken = weights.copy()
    broken[1, 4] = value
    for panel, is_broken in zip(
        svg_panels.map_panels(weights, broken, "t"), (False, True, True), strict=True
    ):
        encoded = re.search('base64,([^"]*)"', panel)[1]
        pixels = Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB")
        magenta = [
            (row, step)
            for row in range(3)
            for step in range(5)
            if pixels.getpixel((step, row)) == (255, 0, 255)
        ]
        assert magenta == ([(1, 4)] if is_broken else [])
        assert ("magenta: not finite" in panel) == is_broken


@pytest.mark.parametrize("errors", [np.zeros(5), np.array([1e-9, 1.0]), np.array([np.nan, 1.0])])
def test_histograms(errors):
    assert "<svg" in svg_panels.histogram(errors, "errors")


def test_tick_labels_are_not_rounded():
    """Coordinates are rounded to save space; the label 0.005 must not become 0.00."""
    points = [svg_figures.LatencyPoint("onnx float32", 1000, 0.005, "pass")]
    labels = re.findall(r"<text[^>]*>([^<]*)</text>", svg_figures.latency_plot(points, "t"))
    assert {"0.000", "0.001", "0.006"} <= set(labels)
    drop = svg_figures.Drop("a", 0.00015, 0.0001, 0.0002, 0.0002, "pass")
    labels = re.findall(r"<text[^>]*>([^<]*)</text>", svg_figures.drop_plot([drop], "t"))
    assert "0.0125" in labels


def test_tick_labels_are_step_numbers_or_tokens():
    weights = np.full(3, 1 / 3)
    for names, first, expected in (
        (None, 0, {"1", "2", "3"}),
        (None, 7, {"8", "9", "10"}),
        (["a", "$b", "c"], 7, {"a", "$b", "c"}),
    ):
        (panel, *_) = svg_panels.map_panels(
            weights, weights, "t", svg_panels.KeyLabels(names, first)
        )
        assert expected <= set(re.findall(r"<text[^>]*>([^<]*)</text>", panel))


# Text models


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("w.txt", "the\nfilm\n3\ngood\n"),
        ("w.json", '["the", "film", "3", "good"]'),
        ("w.json", '{"film": 1, "good": 3, "the": 0, "3": 2}'),
        ("w.json", '{"film": 1, "good": 3, "the": 0, "3": "2"}'),
    ],
)
def test_vocabulary_files(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    assert read_vocabulary(tmp_path / name) == ["the", "film", "3", "good"]


def test_ids_without_a_token_stay_numbers(tmp_path):
    (tmp_path / "w.json").write_text('{"film": 1, "good": 3}')
    assert read_vocabulary(tmp_path / "w.json") == ["0", "film", "2", "good"]


@pytest.mark.parametrize(
    "content",
    [b"", b"3", b"[]", b"{}", b'{"a": -1}', b'{"a": "b"}', b'{"a": 1e400}', b"\xff", b"[["],
)
def test_other_files_are_not_a_vocabulary(tmp_path, content):
    (tmp_path / "w.json").write_bytes(content)
    with pytest.raises(UsageError, match="is not a vocabulary"):
        read_vocabulary(tmp_path / "w.json")
    (tmp_path / "w.txt").write_text("")
    with pytest.raises(UsageError, match="is not a vocabulary"):
        read_vocabulary(tmp_path / "w.txt")


@pytest.fixture
def draw_map(bundle):
    """The figures of a map over nine tokens, the last five of them padding."""

    def draw(vocabulary=None, max_bytes=1_000_000, heads=1):
        tokens = np.zeros((4, 9), np.int32)
        tokens[:, :4] = [[5, 2, 3, 1], [2, 2, 2, 2], [1, 1, 1, 1], [3, 3, 3, 3]]
        weights = np.zeros((4, heads, 1, 9), np.float32)
        weights[..., :4] = 0.25
        spec = TensorSpec("words", (None, 9), "int32")
        name = "attention/a"
        artifact = replace(bundle.manifest.artifacts[0], inputs=(spec,), attention=(name,))
        expected = {"input/words": tokens, name: weights}
        section = map_section.map_section(
            artifact, expected, {name: weights}, max_bytes, vocabulary
        )
        return section.maps[0]

    return draw


def test_tokens_label_the_steps_and_padding_is_cut_off(draw_map):
    for vocabulary, label, step in (
        (None, ">5</text>", "step 1 (5)"),
        (["-", "the", "film", "was", "so", "good"], ">good</text>", "step 1 (good)"),
    ):
        (worst, median, best) = draw_map(vocabulary).figures
        assert "Steps 1 to 4 of 9; the others are padding." in best.caption
        assert f"Largest weight in both: {step}." in best.caption
        assert label in "".join(best.panels)
        assert [figure.rank for figure in (worst, median, best)] == ["worst", "median", "best"]


def test_tokens_are_shaded_by_their_weights():
    keras, artifact = map_section._shaded_texts(
        ["<b>", "film", "was"], np.array([0.5, 0.25, 0.001]), np.zeros(3)
    )
    assert keras == ("Keras", [("<b>", 1.0), ("film", 0.5), ("was", None)])
    assert artifact == ("artifact", [("<b>", None), ("film", None), ("was", None)])
    (_, shades), _ = map_section._shaded_texts(["a", "b"], np.array([np.nan, 1.0]), np.ones(2))
    assert shades == [("a", None), ("b", 1.0)]


def test_shaded_tokens_are_escaped(bundle):
    tokens = np.array([[1, 2, 3, 0, 0]] * 7, np.int32)
    (name, _) = bundle.manifest.artifacts[0].attention
    spec = TensorSpec("words", (None, 5), "int32")
    artifact = replace(bundle.manifest.artifacts[0], inputs=(spec,), attention=(name,))
    weights = np.array([[0.5, 0.25, 0.25, 0, 0]] * 7, np.float32)
    section = map_section.map_section(
        artifact,
        {"input/words": tokens, name: weights},
        {name: weights},
        1_000_000,
        ["", "<b>", "film", "was"],
    )
    html = render_template("maps.html", id="k", section={"maps": section}, picker=lambda *_: "")
    shaded = '<b style="--w:1.00">&lt;b&gt;</b> <b style="--w:0.50">film</b>'
    assert shaded in squeezed(html)


def test_heads_beyond_the_size_limit_are_counted(draw_map, monkeypatch):
    monkeypatch.setattr(map_section, "map_panels", lambda *_: ["<svg>" + 500 * "." + "</svg>"] * 3)
    small = draw_map(max_bytes=1000, heads=3)
    assert len(small.head_options) == 1
    assert small.heads == 3
    complete = draw_map(heads=3)
    assert len(complete.head_options) == complete.heads == 3
    assert len(small.figures) == len(complete.figures) / 3


def test_a_page_with_many_maps_stays_small(bundle, monkeypatch):
    """Two artifacts with sixty maps of eight heads, with panels as large as those of images."""
    monkeypatch.setattr(map_section, "map_panels", lambda *_: [f"<svg>{20_000 * '.'}</svg>"] * 3)
    monkeypatch.setattr(page, "MAX_MAP_BYTES", map_section.MAX_MAP_BYTES // 5)
    names = tuple(f"attention/{number}" for number in range(60))
    want = np.full((4, 8, 3, 5), 0.2, np.float32)
    answers = {name: want + np.float32(1e-3 * k) for k, name in enumerate(names)}
    monkeypatch.setattr(type(bundle), "reference", lambda _: dict.fromkeys(names, want))
    items = [
        ArtifactReport(replace(artifact, inputs=(), attention=names), "r", (), outputs=answers)
        for artifact in bundle.manifest.artifacts
    ]
    text = page.render(bundle, Report(tuple(items)))
    assert text.count("the maps with the largest errors are drawn: 2 of 60.") == 2
    assert text.count("the heads with the largest errors are drawn: 1 of 8.") == 4
    # Those with the largest errors.
    assert "<h4>59</h4>" in text
    assert "<h4>58</h4>" in text
    assert 5 * len(text) < 5_000_000


def test_no_cell_of_the_checks_is_empty(text):
    for cell in re.findall(r'<td role="cell" data-label="(?:value|limit)">(.*?)</td>', text, re.S):
        assert cell.strip()
    assert "value / limit" not in text


def test_the_identity_has_the_hash_of_the_data_and_the_commit(edgeattn, dense_bundle, tmp_path):
    commit = 40 * "a"
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "HEAD").write_text(f"{commit}\n")
    np.savez(tmp_path / "d.npz", x=artifacts.samples(9))
    edgeattn("validate", dense_bundle.path, "--data", "d.npz", "--report", "r.html")
    text = (tmp_path / "r.html").read_text("utf-8")
    digest = hashlib.sha256((tmp_path / "d.npz").read_bytes()).hexdigest()
    assert f"<dt>SHA-256 of the data</dt><dd>{digest} (d.npz)</dd>" in text
    assert f"<dt>Commit</dt><dd>{commit}, checked out in {tmp_path.name}</dd>" in text


# The input beside the attention


def sections_of(bundle, x, weights):
    """The figures of a map ``weights`` over the input ``x``."""
    spec = TensorSpec("x", (None, *x.shape[1:]), str(x.dtype))
    artifact = replace(bundle.manifest.artifacts[0], inputs=(spec,), attention=("attention/a",))
    expected = {"input/x": x, "attention/a": weights}
    outputs = {"attention/a": weights}
    return map_section.map_section(artifact, expected, outputs, 1_000_000).maps[0].figures


@pytest.mark.parametrize(("features", "drawn"), [(1, "<polyline"), (3, "<polyline"), (9, "<image")])
def test_a_signal_is_beside_the_attention_to_it(bundle, features, drawn):
    x = np.arange(4 * 6 * features, dtype=np.float32).reshape(4, 6, features)
    weights = np.full((4, 6), 1 / 6, np.float32)
    for figure in sections_of(bundle, x, weights):
        panel, *others = figure.panels
        assert len(others) == 3
        assert panel.count("<polyline") == (features if drawn == "<polyline" else 0)
        assert drawn in panel
        assert ">step</text>" in panel
    # The first point of a rising line is at the bottom, the last one at the top.
    if features == 1:
        points = re.search(r'points="(.*?)"', panel)[1].split()
        heights = [float(point.split(",")[1]) for point in points]
        assert len(points) == 6
        assert heights == sorted(heights, reverse=True)
        steps = np.diff(heights)
        assert np.allclose(steps, steps[0], atol=0.11)


def test_an_image_is_beside_the_attention_to_its_patches(bundle):
    x = np.random.default_rng(0).random((2, 8, 12, 3), np.float32)
    weights = np.full((2, 6), 1 / 6, np.float32)
    for figure in sections_of(bundle, x, weights):
        assert all("<image" in panel for panel in figure.panels)
        assert [">row</text>" in panel for panel in figure.panels] == [False, True, True, True]
    # With a key for the class, the weights are bars.
    weights = np.full((2, 7), 1 / 7, np.float32)
    for figure in sections_of(bundle, x, weights):
        assert ["<image" in panel for panel in figure.panels] == [True, False, False, False]


def test_inputs_that_have_nothing_to_do_with_the_keys_are_not_drawn(bundle):
    weights = np.full((2, 5), 0.2, np.float32)
    for shape in ((2, 3), (2, 7, 2), (2, 7, 5, 3)):
        for figure in sections_of(bundle, np.ones(shape, np.float32), weights):
            assert len(figure.panels) == 3


@pytest.mark.parametrize("value", [np.nan, np.inf, 3.0])
def test_inputs_without_a_range_are_drawn(bundle, value):
    x = np.full((2, 5, 1), value, np.float32)
    for figure in sections_of(bundle, x, np.full((2, 5), 0.2, np.float32)):
        assert "nan" not in figure.panels[0]


# Latency


def test_the_page_of_a_deployment_has_the_latency_and_the_device(
    bundle, report, recommendation, tmp_path
):
    model = tmp_path / "proc" / "device-tree"
    model.mkdir(parents=True)
    (model / "model").write_text("Raspberry Pi 3 Model B\0")
    device = describe_device(tmp_path, machine="aarch64", cores=4)
    latency = {"format": "onnx", "scheme": "int8", "threads": 2, "runs": 50, "p50_ms": 0.25}
    result = DeploymentResult(
        "pi@raspberrypi",
        SWITCHED,
        device=device,
        report=Report(tuple(replace(item, outputs={}) for item in report.artifacts)),
        bench={"artifacts": [latency], "place": "here"},
        recommendation=recommendation,
    )
    assert deploy._write_report(tmp_path / "m.edge", bundle, result) == result
    text = (tmp_path / "m.edge.pi@raspberrypi.html").read_text("utf-8")
    assert "Latency: not measured" not in text
    assert key_values(text)["Median latency"] == "0.25 ms with 2 threads on pi@raspberrypi"
    assert "median latency of one sequence on pi@raspberrypi, 2 threads" in text
    assert "<dd>pi@raspberrypi: Raspberry Pi 3 Model B, 4 cores, aarch64</dd>" in text


def test_measured_latencies_are_in_a_table(text):
    assert "Measured latency" in text
    row = text[text.index("Measured latency") :]
    assert row.index("0.0125") < row.index("0.025") < row.index("3.5")


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"artifacts": [{"format": 1}]}', "\xff"])
def test_other_files_are_not_the_output_of_bench(tmp_path, content):
    path = tmp_path / "b.json"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(UsageError, match="is not the JSON output of edgeattn bench"):
        read_bench(path)
    with pytest.raises(UsageError, match="cannot be read"):
        read_bench(tmp_path / "none.json")


@pytest.mark.parametrize("library", ["matplotlib", "jinja2"])
def test_a_missing_library_is_an_error(monkeypatch, tmp_path, bundle, report, library):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(UsageError, match=f"(?i){library}") as raised:
        write_html(tmp_path / "r.html", bundle, report)
    assert "edgeattn[report]" in raised.value.hint


def test_a_missing_library_is_an_error_before_any_work(edgeattn, dense_bundle, monkeypatch):
    from edgeattn.validation import validate as validation

    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr(validation, "validate_isolated", lambda *_, **__: pytest.fail("it ran"))
    ended = edgeattn("validate", dense_bundle.path, "--report", "r.html")
    assert ended.code == 2
    assert "edgeattn[report]" in ended.err


def test_a_page_that_cannot_be_written_leaves_no_file(bundle, tmp_path):
    report = Report(())
    with pytest.raises(OutputError, match="Cannot write"):
        write_html(tmp_path / "none" / "r.html", bundle, report)
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match="Cannot write"):
        write_html(tmp_path / "folder", bundle, report)
    assert not list(tmp_path.glob(".folder*"))


def test_junit(bundle, report, tmp_path):
    write_junit(tmp_path / "r.xml", bundle, report)
    root = ElementTree.parse(tmp_path / "r.xml").getroot()
    one, other = root.findall("testsuite")
    assert (one.get("name"), other.get("name")) == ("onnx float32", "onnx int8")
    assert one.get("failures") == "4"
    metrics = [failure.get("message").split()[0] for failure in one.iter("failure")]
    assert metrics == ["tolerance_ratio", "max_abs_error", "jensen_shannon", "worst_jensen_shannon"]
    assert (other.get("failures"), other.get("errors"), other.get("skipped")) == ("0", "1", "0")
    (error,) = other.iter("error")
    assert error.get("message").startswith("inconclusive: accuracy drops by 1.00 points")
    assert "--max-drop" in error.get("message")
    assert int(other.get("tests")) == len(other.findall("testcase"))


RESULTS = ("error", "failure", "skipped")


def junit_results(bundle, reports, path, **options):
    """The results of the cases that are not passed."""
    write_junit(path, bundle, Report(tuple(reports)), **options)
    cases = ElementTree.parse(path).getroot().iter("testcase")
    return [(case.get("name"), case[0].tag, case[0].get("message")) for case in cases if len(case)]


@pytest.mark.parametrize("result", RESULTS)
def test_junit_never_passes_what_is_inconclusive_or_did_not_run(bundle, report, tmp_path, result):
    path = tmp_path / "r.xml"
    inconclusive = report.artifacts[1]
    ((name, tag, _),) = junit_results(bundle, [inconclusive], path, inconclusive=result)
    assert (name, tag) == ("accuracy score", result)
    missing = ArtifactReport(bundle.manifest.artifacts[0], None, (), reason="none here")
    assert junit_results(bundle, [missing], path, inconclusive=result) == [
        ("runs", result, "none here")
    ]
    # Without any reason, the verdict itself is a case.
    unknown = ArtifactReport(bundle.manifest.artifacts[0], "runtime", ())
    assert junit_results(bundle, [unknown], path, inconclusive=result) == [
        ("verdict", result, "not run")
    ]
    stopped = replace(inconclusive, task=TaskReport("Keras", (), "t.npz", (), "it stopped"))
    assert junit_results(bundle, [stopped], path, inconclusive=result) == [
        ("task", result, "it stopped")
    ]


def test_junit_skips_the_task_of_the_reference_itself(bundle, report, tmp_path):
    task = TaskReport("onnx float32", (), "t.npz", (), "is the reference itself", skipped=True)
    reports = [replace(report.artifacts[1], task=task)]
    assert junit_results(bundle, reports, tmp_path / "r.xml") == [
        ("task", "skipped", "is the reference itself")
    ]


# Labels


@pytest.mark.parametrize(("output", "shown"), [(None, True), ("score", True), ("other", False)])
def test_the_confusion_has_the_labels_of_the_front_end(bundle, report, tmp_path, output, shown):
    copied = type(bundle).open(shutil.copytree(bundle.path, tmp_path / "copy"))
    answer = Answer(output=output, labels=("<off>", "on"))
    add_front_end(copied, replace(COUNTS, answer=answer))
    text = page.render(type(bundle).open(copied.path), report)
    table = text[text.index("Confusion of score after conversion") :]
    table = table[: table.index("</table>")]
    headers = re.findall(r'(?:columnheader|rowheader)">(.*?)</th>', table)
    names = ["&lt;off&gt;", "on"] if shown else ["0", "1"]
    assert headers == ["true", *names, *names]
    cells = re.findall(r'data-label="(.*?)">', table)
    assert cells == names * 2


def test_many_classes_are_listed_by_their_labels(report):
    matrix = np.diag(np.full(21, 9))
    after = matrix.copy()
    after[3, 5] = 2
    (outcome,) = report.artifacts[1].task.results
    many = replace(outcome, confusions=(matrix, after))
    labels = [f"class {number}" for number in range(21)]
    assert outcome_details(many, labels).names == labels
    # Labels of another number of classes are those of another output.
    assert outcome_details(many, labels[:2]).names == [str(number) for number in range(21)]
