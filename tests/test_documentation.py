"""The pages that people copy from: their code runs, their links lead on, their figures hold."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from page_blocks import PAGES, blocks

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
EXPERIMENTS = DOCS / "experiments"
MOST_BYTES = {".png": 150_000, ".gif": 1_000_000}


def code(page: str) -> str:
    """All Python of a page, one block after the other."""
    return "".join(blocks((DOCS / page).read_text("utf-8"), "python"))


def run(source: str, folder: Path) -> str:
    ended = subprocess.run(
        [sys.executable, "-c", source],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=1200,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"},
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_python_of_pages_is_complete(page):
    for block in blocks(page.read_text("utf-8"), "python"):
        compile(block, page.name, "exec")


@pytest.mark.long
def test_the_readme(tmp_path):
    """The layer in a model, and the way from this model to the file to ship."""
    pytest.importorskip("edgeattn_converters")
    text = (ROOT / "README.md").read_text("utf-8")
    way, layer = blocks(text, "python")
    before = """
import keras, numpy as np
keras.utils.set_random_seed(0)
inputs = keras.Input((8, 2))
"""
    between = """
model = keras.Model(inputs, keras.layers.Dense(3, activation="softmax", name="class")(vector))
x = np.random.default_rng(0).normal(size=(2064, 8, 2)).astype("float32")
x_test, probabilities = x[64:], model.predict(x[64:], verbose=0)
y_test = probabilities.argmax(1)
"""
    after = "print(np.abs(predictions['class'] - probabilities).max() < 0.05)\n"
    printed = run(before + layer + between + way + after, tmp_path).splitlines()
    assert printed[-2].startswith("pass Recommended: ")
    assert printed[-1] == "True"
    assert [path.name for path in tmp_path.iterdir()] == ["functional.edge"]


@pytest.mark.long
def test_attention_in_ten_lines(tmp_path):
    pytest.importorskip("edgeattn_converters")
    pytest.importorskip("PIL")
    text = (DOCS / "attention-in-ten-lines.md").read_text("utf-8")
    first = re.search(r"^```python\n(.*?)^```", text, re.S | re.M)
    assert first is not None
    assert sum(bool(line) for line in first[1].splitlines()) == 10
    assert run(code("attention-in-ten-lines.md"), tmp_path).splitlines()[-1] == "pass"
    written = {path.name for path in tmp_path.iterdir()}
    assert {"model.edge", "one.png", "forty.png"} <= written
    assert {"attention.gif", "epoch-0002.png"} <= {
        p.name for p in (tmp_path / "attention").iterdir()
    }
    assert len(list((tmp_path / "model.edge").glob("model.*"))) == 6
    ended = subprocess.run(
        [sys.executable, "-m", "edgeattn", "validate", "model.edge"],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=1200,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr


@pytest.mark.long
def test_python_api(tmp_path):
    pytest.importorskip("edgeattn_converters")
    printed = run(code("python-api.md"), tmp_path).splitlines()
    assert re.match(
        r"Recommended: largest\.float16\.\w+ \(\w+ float16 -> float32\), the smallest", printed[0]
    )
    assert printed[1:-1] == [
        "pass",
        "(3, 6)",
        "latency",
        "('input_layer',) ('dense', 'attention/attention')",
        "(10, 6)",
    ]
    assert printed[-1] == "2 No such bundle: missing.edge"
    assert {"largest.edge", "map.png"} == {path.name for path in tmp_path.iterdir()}


def test_python_api_names_everything_public():
    page = (DOCS / "python-api.md").read_text("utf-8")
    from edgeattn import __all__, errors

    missing = [name for name in __all__ if name not in page and not hasattr(errors, name)]
    assert missing == ["__version__"]


@pytest.mark.long
def test_moving_from_the_package_attention(tmp_path):
    source = code("moving-from-attention.md")
    assert run(source, tmp_path).splitlines()[-1] == "Success."


def test_every_generation_that_is_named_has_a_specimen():
    """Each is loaded and held to its own Keras in converters/test_load_specimens.py."""
    table = (DOCS / "moving-from-attention.md").read_text("utf-8")
    rows = re.findall(r"^\| (\d[^|]*) \|", table, re.M)
    named = {version for row in rows for version in re.findall(r"\d\.\d", row)}
    assert named == {"5.0", "4.0", "4.1", "3.0", "2.2"}
    files = [
        entry["file"] for entry in json.loads((ROOT / "tests/specimens/index.json").read_text())
    ]
    for version in named:
        assert any(file.startswith(f"attention-{version}") for file in files), version
    assert any(file.startswith("attention-5.0.0-debug") for file in files)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    for link, _, anchor in re.findall(r"\]\(([^)#:\s]+)(#([\w-]+))?\)", page.read_text("utf-8")):
        target = page.parent / link
        assert target.exists(), f"{page.name}: {link}"
        if anchor and target.exists() and target.name != "results.md":
            assert anchor in anchors(target), f"{page.name}: {link}#{anchor}"
    for anchor in re.findall(r"\]\(#([\w-]+)\)", page.read_text("utf-8")):
        assert anchor in anchors(page), f"{page.name}: #{anchor}"


def anchors(page: Path) -> set[str]:
    """The names of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_pictures_are_small():
    for path in EXPERIMENTS.iterdir():
        if path.suffix != ".md":
            assert path.stat().st_size < MOST_BYTES[path.suffix], path.name


def test_anchors_of_results_are_the_titles_of_the_examples():
    source = (ROOT / "examples" / "results.py").read_text("utf-8")
    titles = set(re.findall(r'^    "\w+": "(.+)",$', source, re.M))
    anchors = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
    for page in EXPERIMENTS.glob("*.md"):
        for anchor in re.findall(r"results\.md#([\w-]+)", page.read_text("utf-8")):
            assert anchor in anchors, f"{page.name}: {anchor}"


@pytest.mark.parametrize("name", ["add_two_numbers", "find_max"])
def test_figures_are_those_that_were_recorded(name):
    figures = json.loads((ROOT / "examples" / "results" / f"{name}.json").read_text())["figures"]
    page = (EXPERIMENTS / f"{name}.md").read_text("utf-8")
    written = dict(re.findall(r"^\| (.+?) \| ([\d.]+%?) \|$", page, re.M))
    assert set(written) == set(figures)
    for figure, text in written.items():
        value = figures[figure]
        assert text in (f"{value:.4f}", f"{100 * value:.1f}%"), figure
