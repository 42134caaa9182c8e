"""SavedModel folders that TensorFlow 1 wrote, and their graphs in folders of TensorFlow 2."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from page_blocks import blocks

from edgeattn.errors import UnsupportedModelError
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model

PAGE = Path(__file__).parents[3] / "docs" / "loading.md"
tf1 = tf.compat.v1
X = np.random.default_rng(3).normal(size=(2, 3)).astype("float32")
Z = np.random.default_rng(4).normal(size=(2, 2)).astype("float32")


@pytest.fixture
def loops_of_tensorflow_1() -> Iterator[None]:
    tf1.disable_control_flow_v2()
    yield
    tf1.enable_control_flow_v2()


def saved(folder: Path, *, loop: bool = False) -> None:
    """``tanh(x @ [[1, 2]] * 3) + z``, with tanh in a loop that runs once, or without tanh."""
    with tf1.Session(graph=tf1.Graph()) as session:
        z = tf1.placeholder(tf.float32, [None, 2], "first")
        x = tf1.placeholder(tf.float32, [None, 3], "second")
        kernel = tf1.get_variable("kernel", initializer=[[1.0, 2.0]] * 3, use_resource=False)
        y = tf.matmul(x, kernel)
        if loop:
            y = tf1.while_loop(lambda i, _: i < 1, lambda i, h: (i + 1, tf.tanh(h)), [0, y])[1]
        session.run(tf1.global_variables_initializer())
        tf1.saved_model.simple_save(session, str(folder), {"z": z, "x": x}, {"y": y + z})


def program() -> str:
    [source] = [text for text in blocks(PAGE.read_text("utf-8"), "python") if "prune(" in text]
    return source


def outputs(folder: Path) -> Any:
    model = load_model(audit_file(folder)).model
    return np.asarray(model({"x": X, "z": Z})["y"])


def test_the_program_saves_a_signature_of_tensorflow_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    saved(tmp_path / "old_model")
    with pytest.raises(UnsupportedModelError, match="was written by TensorFlow 1") as error:
        load_model(audit_file(tmp_path / "old_model"))
    assert "docs/loading.md" in str(error.value.hint)
    exec(program(), {})
    sums = X.sum(1, keepdims=True)
    np.testing.assert_allclose(outputs(tmp_path / "model"), sums * [1, 2] + Z, atol=1e-6)


@pytest.mark.usefixtures("loops_of_tensorflow_1")
def test_a_loop_of_tensorflow_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    saved(tmp_path / "old_model", loop=True)
    exec(program(), {})
    with pytest.raises(UnsupportedModelError, match="has a loop of TensorFlow 1") as error:
        load_model(audit_file(tmp_path / "model"))
    assert "enable_control_flow_v2" in str(error.value.hint)


@pytest.mark.long
def test_the_advice_about_loops(tmp_path: Path) -> None:
    saved(tmp_path / "old_model", loop=True)
    # In this process, the functions of the loop exist already.
    subprocess.run([sys.executable, "-c", program()], cwd=tmp_path, check=True)
    sums = X.sum(1, keepdims=True)
    np.testing.assert_allclose(outputs(tmp_path / "model"), np.tanh(sums * [1, 2]) + Z, atol=1e-6)
