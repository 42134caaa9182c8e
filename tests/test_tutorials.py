"""What readers copy from pages prints what they show; quoted messages and figures are real.

``python tests/test_tutorials.py`` replaces outputs and pictures by the current ones.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from console_pages import comparable, copy_sample_models, run_command, transcript, updated_page
from page_blocks import blocks

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PICTURES = DOCS / "gallery"
CONSOLE_PAGES = ["first-model.md", "failing-verdict.md"]
PYTHON_PAGES = ["first-model.md", "gallery.md"]
MODELS = ("commands", "digits", "digits_transformer", "find_max")


def text_of(page: str) -> str:
    return (DOCS / page).read_text("utf-8")


def run_python(page: str, folder: Path) -> str:
    """Run all Python of a page in ``folder``, and return what it prints."""
    code = "".join(blocks(text_of(page), "python"))
    ended = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder, capture_output=True, text=True, check=False, timeout=1200,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"},
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with sample models, in which the pages are followed one after the other."""
    pytest.importorskip("edgeattn_converters")
    path = tmp_path_factory.mktemp("clone")
    copy_sample_models(path, *MODELS)
    return path


@pytest.mark.long
@pytest.mark.parametrize(
    ("page", "command", "shown"),
    [(page, *block) for page in CONSOLE_PAGES for block in transcript(text_of(page))],
    ids=lambda value: " ".join(value.split()[1:2]) if value.startswith("edgeattn") else "",
)
def test_commands_print_what_the_page_shows(folder, page, command, shown):
    assert comparable(run_command(command, folder)) == comparable(shown)


@pytest.mark.long
def test_python_draws_the_pictures_of_the_pages(folder):
    pil = pytest.importorskip("PIL.Image")
    printed = [run_python(page, folder) for page in PYTHON_PAGES]
    assert printed[0].splitlines()[-1] in text_of("first-model.md")
    drawn = {path.name for path in folder.glob("*.png")}
    assert drawn == {path.name for path in PICTURES.iterdir()}
    for name in drawn:
        images = [np.asarray(pil.open(path / name).convert("RGB")) for path in (folder, PICTURES)]
        assert images[0].shape == images[1].shape, name
        difference = np.abs(images[0].astype(int) - images[1].astype(int))
        assert difference.mean() < 2, name


def test_every_picture_is_shown():
    shown = {name for page in DOCS.glob("*.md") for name in re.findall(
        r"\]\(gallery/([\w.-]+)\)", page.read_text("utf-8"))}  # fmt: skip
    assert shown == {path.name for path in PICTURES.iterdir()}
    assert all(path.stat().st_size < 100_000 for path in PICTURES.iterdir())


def template(node: ast.AST) -> str:
    """The text of a string, with an ellipsis for each value that is inserted; else an ellipsis."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(template(part) for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return template(node.left) + template(node.right)
    return "…"


def messages_of_errors() -> Iterator[str]:
    """The first argument of everything that is called an error, or what is missing."""
    for package in (ROOT / "edgeattn", ROOT / "converters"):
        for path in package.rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                name = getattr(getattr(node, "func", None), "id", "")
                if isinstance(node, ast.Call) and name.endswith(("Error", "Missing")) and node.args:
                    yield template(node.args[0])


def is_quoted(quote: str, message: str) -> bool:
    """Whether a quote is the start of a message, or of one with other words for its values."""
    words = [re.escape(part) for part in message.split("…")]
    is_specific = sum(map(len, words)) > 15
    return message.startswith(quote.rstrip("…")) or (
        is_specific and re.fullmatch(".+".join(words), quote) is not None
    )


def test_a_quote_has_the_words_of_the_message():
    assert is_quoted("… is a map, …", "… is a map, not …")
    assert is_quoted("… is an ONNX model, not a Keras model.", "… is …, not a Keras model.")
    assert not is_quoted("… is an ONNX file, no Keras model.", "… is …, not a Keras model.")
    assert not is_quoted("… is a map, not a list.", "…")


@pytest.mark.long
def test_quoted_messages_are_those_of_the_source():
    quoted = re.findall(r"^\| `([^`]+)` \|", text_of("troubleshooting.md"), re.MULTILINE)
    assert len(quoted) > 40
    messages = list(messages_of_errors())
    unknown = [quote for quote in quoted if not any(is_quoted(quote, text) for text in messages)]
    assert not unknown


def expected_rows() -> Iterator[str]:
    """The rows of docs/choose-a-scheme.md, from the recorded results of the experiments."""
    results = [json.loads(path.read_text()) for path in (ROOT / "examples/results").glob("*.json")]
    by_scheme: dict[tuple[str, str], list] = {}
    for result in results:
        sizes = {a["format"]: a["bytes"] for a in result["artifacts"] if a["scheme"] == "float32"}
        for artifact in result["artifacts"]:
            size = artifact["bytes"] / sizes[artifact["format"]]
            key = artifact["format"], artifact["scheme"]
            by_scheme.setdefault(key, []).append((size, artifact))
    for (kind, scheme), rows in by_scheme.items():
        if scheme == "int16x8" or (kind, scheme) == ("tflite", "float32"):
            continue
        sizes = [size for size, _ in rows]
        artifacts = [artifact for _, artifact in rows]
        times = [artifact["latency_ratio"] for artifact in artifacts]
        loss = 100 * max(artifact["drop"] for artifact in artifacts)
        weight = max(artifact["attention"]["max_abs_error"] for artifact in artifacts)
        counts = Counter(artifact["verdict"] for artifact in artifacts)
        verdict = f"{counts['pass']} of {len(rows)} pass"
        if counts["inconclusive"]:
            verdict += f", {counts['inconclusive']} inconclusive"
        assert sum(counts.values()) == counts["pass"] + counts["inconclusive"]
        yield (
            f"| {kind} | {scheme} | {min(sizes):.2f} to {max(sizes):.2f} | {loss:.2f} points | "
            f"{weight:.4f} | {min(times):.2f} to {max(times):.2f} | {verdict} |"
        )


def test_figures_of_schemes_are_those_that_were_recorded():
    table = re.search(
        r"<!-- expected -->\n[^\n]*\n[^\n]*\n(.*?)<!-- end",
        text_of("choose-a-scheme.md"),
        re.DOTALL,
    )
    assert sorted(table[1].splitlines()) == sorted(expected_rows())


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        copy_sample_models(Path(name), *MODELS)
        for console_page in CONSOLE_PAGES:
            updated = updated_page(text_of(console_page), Path(name))
            (DOCS / console_page).write_text(updated, "utf-8")
        for python_page in PYTHON_PAGES:
            run_python(python_page, Path(name))
        for picture in Path(name).glob("*.png"):
            shutil.copy(picture, PICTURES)
