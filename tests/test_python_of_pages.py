"""Python blocks of pages that need only a bundle run as they are, on bundles made by hand.

What a reader has to supply, such as a sensor, is given to them as a variable. The other pages are
run by the tests in ``RUN_ELSEWHERE``.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from artifacts import (
    FEATURES,
    artifact,
    dense,
    samples,
    save_onnx,
    write_bundle,
    write_dense_bundle,
)
from front_ends import LABELS, add_front_end
from onnx import TensorProto, helper
from page_blocks import PAGES, ROOT, blocks

from edgeattn.frontend.answers import Answer
from edgeattn.frontend.description import FrontEnd, from_toml
from edgeattn.frontend.text import TextVectorization
from edgeattn.tensors import TensorSpec

HERE = ("device.md", "lowering.md", "preprocessing.md")
RUN_ELSEWHERE = {
    "README.md": "test_documentation.py",
    "attention-in-ten-lines.md": "test_documentation.py",
    "first-model.md": "test_tutorials.py",
    "gallery.md": "test_tutorials.py",
    "loading.md": "converters/loading/test_tensorflow_1.py",
    "moving-from-attention.md": "test_documentation.py",
    "python-api.md": "test_documentation.py",
    "serve.md": "serving/test_mqtt_recipe.py",
    "sweeps.md": "converters/sweep/test_sweep.py",
}


def test_every_page_with_python_is_run():
    pages = {page.name for page in PAGES if blocks(page.read_text("utf-8"), "python")}
    assert pages == {*HERE, *RUN_ELSEWHERE}
    for page, module in RUN_ELSEWHERE.items():
        assert page in (ROOT / "tests" / module).read_text("utf-8")


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def python_of(page: str) -> list[str]:
    return blocks((ROOT / "docs" / page).read_text("utf-8"), "python")


def toml_of(page: str) -> list[str]:
    return blocks((ROOT / "docs" / page).read_text("utf-8"), "toml")


def run(block: str, **variables: Any) -> None:
    exec(compile(block, "page", "exec"), {"__name__": "__main__", **variables})


def test_a_sensor_on_the_device(tmp_path, capsys):
    bundle = write_dense_bundle(tmp_path / "stored", formats=("onnx",))
    current = tmp_path / "edgeattn" / "model" / "current"
    current.parent.mkdir(parents=True)
    current.symlink_to(bundle.path)
    (block,) = python_of("device.md")
    run(block, sensor=samples(3))
    assert capsys.readouterr().out.splitlines() == [str(row[None]) for row in dense(samples(3))]


def test_states_are_carried_and_reset(tmp_path, capsys):
    """The model adds its input to its state: ``score = x + state``."""
    folder = tmp_path / "model.edge"
    folder.mkdir()
    file = folder / "model.float32.onnx"
    x, start, score, end = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", FEATURES])
        for name in ("x", "sum_initial", "score", "sum_final")
    )
    nodes = [
        helper.make_node("Add", ["x", "sum_initial"], ["score"]),
        helper.make_node("Identity", ["score"], ["sum_final"]),
    ]
    save_onnx(file, nodes, [x, start], [score, end], {})
    specs = {name: TensorSpec(name, (None, FEATURES), "float32") for name in ("x", "score")}
    initial = TensorSpec("sum_initial", (None, FEATURES), "float32", state="sum_final")
    final = TensorSpec("sum_final", (None, FEATURES), "float32")
    entry = artifact(file, inputs=(specs["x"], initial), outputs=(specs["score"], final))
    zeros = np.zeros((1, FEATURES), np.float32)
    names = ("input/x", "input/sum_initial", "output/score", "output/sum_final")
    write_bundle(folder, [entry], dict.fromkeys(names, zeros))
    (block,) = python_of("lowering.md")
    parts = samples(3)
    run(block + "print(model(parts[0])['score'])\n", parts=parts)
    sums = [*np.cumsum(parts, axis=0), parts[0]]
    assert capsys.readouterr().out.splitlines() == [str(row[None]) for row in sums]


def test_an_answer_to_a_sentence(tmp_path, capsys):
    bundle = write_dense_bundle(tmp_path / "commands.edge", formats=("onnx",))
    words = TextVectorization(("turn", "light"), output_mode="count")
    add_front_end(bundle, FrontEnd({"x": (words,)}, answer=Answer(labels=LABELS)))
    run(python_of("preprocessing.md")[0])
    # Two words are unknown.
    expected = dense(np.float32([[2, 1, 1]]))[0].argmax()
    assert capsys.readouterr().out == f"{LABELS[expected]}\n"


def test_fitted_scalers_are_written(tmp_path):
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    readings, values = samples(9), np.arange(9.0)[:, None]
    scaler = preprocessing.StandardScaler().fit(readings)
    target = preprocessing.MinMaxScaler().fit(values)
    run(python_of("preprocessing.md")[1], scaler=scaler, target_scaler=target)
    front_end = from_toml(tmp_path / "preprocess.toml")
    prepared = front_end.prepare("readings", readings[4])
    np.testing.assert_allclose(prepared, scaler.transform(readings[4:5])[0], rtol=1e-5)
    assert front_end.answer is not None
    assert (front_end.answer.scale, front_end.answer.offset) == ((8.0,), (0.0,))


def described(tmp_path: Path, number: int) -> FrontEnd:
    """The front end of a TOML block of docs/preprocessing.md."""
    (tmp_path / "preprocess.toml").write_text(toml_of("preprocessing.md")[number])
    return from_toml(tmp_path / "preprocess.toml")


def test_answers_of_a_sensor(tmp_path, capsys):
    """The front end of the page, and a model that scores the mean of each third of the columns."""
    front_end = described(tmp_path, 0)
    folder = tmp_path / "activity.edge"
    folder.mkdir()
    kernel = np.zeros((128, 6, 3), np.float32)
    for label in range(3):
        kernel[:, 2 * label : 2 * label + 2, label] = 1
    x = helper.make_tensor_value_info("readings", TensorProto.FLOAT, ["n", 128, 6])
    score = helper.make_tensor_value_info("score", TensorProto.FLOAT, ["n", 3])
    nodes = [
        helper.make_node("Flatten", ["readings"], ["flat"]),
        helper.make_node("MatMul", ["flat", "kernel"], ["score"]),
    ]
    file = folder / "model.float32.onnx"
    save_onnx(file, nodes, [x], [score], {"kernel": kernel.reshape(768, 3)})
    inputs = (TensorSpec("readings", (None, 128, 6), "float32"),)
    outputs = (TensorSpec("score", (None, 3), "float32"),)
    entry = artifact(file, inputs=inputs, outputs=outputs)
    reference = {
        "input/readings": np.zeros((1, 128, 6), np.float32),
        "output/score": np.zeros((1, 3), np.float32),
    }
    assert front_end.answer is not None
    answer = replace(front_end.answer, activation="none")
    add_front_end(write_bundle(folder, [entry], reference), replace(front_end, answer=answer))
    # Columns 2 and 3 are the largest until reading 160, then columns 4 and 5.
    sensor = np.tile([0.1, 9.8, 0, 0, 0, 0], (320, 1))
    sensor[:160, 2:4] = 1
    sensor[160:, 4:6] = 2
    run(python_of("preprocessing.md")[2], sensor=sensor.tolist())
    answers = [line.split("'")[3] for line in capsys.readouterr().out.splitlines()]
    # Windows start at 0, 64, 128 and 192. The majority of two is the latest.
    assert answers == ["walking", "walking", "walking", "running"]


def test_the_description_of_sound(tmp_path):
    front_end = described(tmp_path, 1)
    assert front_end.prepare("mel", np.zeros(16000)).shape == (40, 101)


def test_meta_data_of_a_fleet():
    (text,) = blocks((ROOT / "docs" / "fleets.md").read_text("utf-8"), "json")
    assert json.loads(text).keys() == {"name", "formats", "schemes"}
