"""The inputs beside the maps of a model with several inputs."""

import re
import shutil
from dataclasses import replace

import artifacts
import numpy as np
import pytest

from edgeattn.errors import BundleError
from edgeattn.report import map_section
from edgeattn.tensors import TensorSpec
from edgeattn.validation.report import ArtifactReport, Report

page = pytest.importorskip("edgeattn.report.page", reason="Jinja2 is not installed")
pytest.importorskip("matplotlib")

KEYS, COUNT = 4, 3
NAME = "attention/a"
TOKENS = {
    "question": np.arange(11, 11 + COUNT * KEYS, dtype=np.int32).reshape(COUNT, KEYS),
    "article": np.arange(51, 51 + COUNT * KEYS, dtype=np.int32).reshape(COUNT, KEYS),
}
SIGNALS = {
    "sensor": np.random.default_rng(0).normal(size=(COUNT, KEYS, 2)).astype(np.float32),
    "motor": np.random.default_rng(1).normal(size=(COUNT, KEYS)).astype(np.float32),
}
PHOTO = {"photo": np.random.default_rng(2).random((COUNT, 6, 6, 1)).astype(np.float32)}


def recorded(*keys, queries=()):
    return {NAME: {"keys": list(keys), "queries": list(queries)}}


@pytest.fixture
def drawn(bundle):
    """The map of a model with these inputs, as the report draws it."""

    def draw(inputs, attended, shape=(KEYS,)):
        weights = np.full((COUNT, *shape), 1 / shape[-1], np.float32)
        specs = [TensorSpec(n, (None, *x.shape[1:]), str(x.dtype)) for n, x in inputs.items()]
        artifact = replace(bundle.manifest.artifacts[0], inputs=tuple(specs), attention=(NAME,))
        expected = {f"input/{name}": x for name, x in inputs.items()} | {NAME: weights}
        (drawn,) = map_section.map_section(
            artifact, expected, {NAME: weights}, 1_000_000, attended=attended
        ).maps
        return drawn

    return draw


def labels(panel):
    return set(re.findall(r"<text[^>]*>([^<]*)</text>", panel))


@pytest.mark.parametrize("name", list(TOKENS))
def test_tokens_are_those_of_the_recorded_input(drawn, name):
    figures = drawn(TOKENS, recorded(name)).figures
    for figure in figures:
        row = int(re.search(r"number (\d+),", figure.caption)[1])
        shown = {str(token) for token in TOKENS[name][row]}
        (other,) = set(TOKENS) - {name}
        for panel in figure.panels:
            assert shown <= labels(panel)
            assert not {str(token) for token in TOKENS[other][row]} & labels(panel)


@pytest.mark.parametrize(
    ("attended", "reason"),
    [(None, "Convert the model again"), ({}, "the data flow of the model does not show it")],
)
def test_unknown_inputs_are_not_guessed(drawn, attended, reason):
    for inputs, names in ((TOKENS, "question or article"), (SIGNALS, "sensor or motor")):
        result = drawn(inputs, attended)
        assert f"whether this map looks at {names}: " in result.note
        assert reason in result.note
        for figure in result.figures:
            assert len(figure.panels) == 3
            assert "1" in labels(figure.panels[0])


def test_the_only_input_that_fits_is_shown_if_none_is_recorded(drawn):
    result = drawn(TOKENS | {"bias": np.ones((COUNT, 7), np.float32)}, None, (2, 2, KEYS))
    # Both inputs of tokens fit.
    assert result.note
    result = drawn({"sensor": SIGNALS["sensor"], "bias": np.ones((COUNT, 7), np.float32)}, None)
    assert result.note == ""
    assert all(len(figure.panels) == 4 for figure in result.figures)
    assert ">input sensor, 2 features</text>" in result.figures[0].panels[0]


def test_inputs_that_are_combined_are_all_shown(drawn):
    result = drawn(SIGNALS, recorded("sensor", "motor"))
    assert result.note == "The data at the keys combine the inputs sensor and motor."
    first, second, *maps = result.figures[0].panels
    assert len(maps) == 3
    assert "input sensor, 2 features" in labels(first)
    assert "input motor" in labels(second)
    result = drawn(TOKENS, recorded(*TOKENS))
    assert "Keys have no labels, because question and article have a token" in result.note
    assert "1" in labels(result.figures[0].panels[0])
    # Tokens label the keys of a signal.
    both = {"words": TOKENS["question"], "sensor": SIGNALS["sensor"]}
    figure = drawn(both, recorded(*both)).figures[0]
    assert len(figure.panels) == 4
    row = int(re.search(r"number (\d+),", figure.caption)[1])
    assert {str(token) for token in both["words"][row]} <= labels(figure.panels[1])


def test_an_image_among_several_inputs(drawn):
    inputs = {**SIGNALS, **PHOTO}
    figure = drawn(inputs, recorded("photo"), (9,)).figures[0]
    image, *maps = figure.panels
    assert "<image" in image
    # One patch of 2 by 2 pixels for each key.
    assert all({"row", "column"} <= labels(panel) for panel in maps)
    # A signal of four steps is not the image of four patches.
    assert "<polyline" in drawn(inputs, recorded("motor")).figures[0].panels[0]


def test_an_input_without_a_position_for_each_key_is_shown_whole(drawn):
    x = np.random.default_rng(3).normal(size=(COUNT, 12, 1)).astype(np.float32)
    result = drawn({"sensor": x, "motor": SIGNALS["motor"]}, recorded("sensor"))
    assert result.note == "The map has 4 keys for the whole input sensor (12×1)."
    panel, *maps = result.figures[0].panels
    assert len(maps) == 3
    (points,) = re.findall(r'points="(.*?)"', panel)
    assert len(points.split()) == 12


@pytest.mark.parametrize("same", [False, True])
def test_queries_are_labelled_only_if_they_are_the_same_tokens(drawn, same):
    tokens = {name: x.copy() for name, x in TOKENS.items()}
    # Padding that has no weight would be cut off, also for the queries.
    queries = ["article"] if same else ["question"]
    figure = drawn(tokens, recorded("article", queries=queries), (KEYS, KEYS)).figures[0]
    row = int(re.search(r"number (\d+),", figure.caption)[1])
    panel = figure.panels[0]
    found = re.findall(r"<text[^>]*>([^<]*)</text>", panel)
    for token in tokens["article"][row]:
        assert found.count(str(token)) == 1 + same
    assert ("query step" in found) != same


@pytest.mark.parametrize(
    "attended", [[], {"attention/row": ["x"]}, {"attention/row": {"keys": ["x"]}},
                 {"attention/row": {"keys": "x", "queries": []}},
                 {"attention/row": {"keys": [1], "queries": []}}],
)  # fmt: skip
def test_malformed_names_of_inputs(bundle, tmp_path, attended):
    copied = shutil.copytree(bundle.path, tmp_path / "copy")

    def change(data):
        data["model"]["attended"] = attended

    artifacts.edit_manifest(copied, change)
    with pytest.raises(BundleError, match="manifest"):
        type(bundle).open(copied)


def test_the_page_uses_the_names_of_the_manifest(bundle, tmp_path, monkeypatch):
    copied = shutil.copytree(bundle.path, tmp_path / "copy")

    def change(data):
        data["model"]["attended"] = recorded("article")

    artifacts.edit_manifest(copied, change)
    opened = type(bundle).open(copied)
    weights = np.full((COUNT, KEYS), 0.25, np.float32)
    arrays = {f"input/{name}": x for name, x in TOKENS.items()} | {NAME: weights}
    monkeypatch.setattr(type(opened), "reference", lambda _: arrays)
    specs = tuple(TensorSpec(name, (None, KEYS), "int32") for name in TOKENS)
    artifact = replace(opened.manifest.artifacts[0], inputs=specs, attention=(NAME,))
    items = (ArtifactReport(artifact, "r", (), outputs={NAME: weights}),)
    text = page.render(opened, Report(items))
    assert ">51</text>" in text
    assert ">11</text>" not in text
