"""``tune`` from raw samples with labels to a bundle that answers to them."""

import json

import numpy as np
import pytest

import edgeattn as package
from edgeattn.bundle.bundle import Bundle
from edgeattn.frontend.description import FRONTEND

LABELS = ["cold", "mild", "warm"]
WORDS = ["ice", "snow", "rain", "wind", "sun", "sand"]
SEARCH = ("--max-drop", "0.3", "--format", "onnx", "--labels", "labels.txt", "--json")


@pytest.fixture
def keras():
    return pytest.importorskip("keras")


def save(folder, model, front_end_input, raw_samples):
    """The model, its labels, and samples with the labels that Keras gives them, as JSON lines."""
    model.save(folder / "model.keras")
    (folder / "labels.txt").write_text("\n".join(LABELS))
    answers = np.asarray(model(front_end_input)).argmax(1)
    assert len(set(answers)) > 1
    lines = [
        json.dumps({"x": sample, "y": LABELS[answer]})
        for sample, answer in zip(raw_samples, answers, strict=True)
    ]
    (folder / "data.jsonl").write_text("\n".join(lines))
    return [LABELS[answer] for answer in answers]


@pytest.mark.long
def test_sentences(edgeattn, tmp_path, keras):
    """The layer that the runtime lacks becomes the front end, as in ``convert``."""
    import tensorflow as tf

    keras.utils.set_random_seed(2)
    layer = keras.layers.TextVectorization(output_sequence_length=3, vocabulary=WORDS)
    inputs = keras.Input((1,), dtype="string", name="sentence")
    x = keras.layers.Embedding(8, 4)(layer(inputs))
    x = keras.layers.Dense(3, activation="softmax", name="score")(keras.layers.Flatten()(x))
    numbers = np.random.default_rng(1)
    sentences = [" ".join(numbers.choice([*WORDS, "fog"], 3)).title() for _ in range(60)]
    model = keras.Model(inputs, x)
    labels = save(tmp_path, model, tf.constant([[text] for text in sentences]), sentences)
    (tmp_path / "samples.txt").write_text("\n".join(sentences[:20]))
    files = ("--raw-data", "data.jsonl", "--raw-samples", "samples.txt", "--scheme", "float16")
    (tmp_path / "edgeattn.toml").write_text('[tune]\nscheme = "float16"\n')
    result = edgeattn("tune", "model.keras", *files[:4], *SEARCH)
    assert result.code == 0, result.err
    config = Bundle.open(tmp_path / "model.tuned.edge").manifest.config
    assert config is not None
    assert config["options"] == {"scheme": "float16"} == result.document["config"]["options"]
    assert result.document["reference"] == {"score": 1.0}
    tuned = package.load(tmp_path / "model.tuned.edge")
    assert [tuned.answer(text)["label"] for text in sentences] == labels

    converted = edgeattn("convert", "model.keras", *files[2:], *SEARCH[2:])
    assert converted.code == 0, converted.err
    front_ends = [tmp_path / name / FRONTEND for name in ("model.tuned.edge", "model.edge")]
    assert front_ends[0].read_bytes() == front_ends[1].read_bytes()
    command = ("validate", "model.tuned.edge", *files[:2], *SEARCH[:2])
    validated = edgeattn(*command, "--json")
    assert validated.code == 0
    # Reports name the file of the user, whose samples were prepared in another one.
    assert "data.jsonl" in json.dumps(validated.document)
    assert "data.npz" not in json.dumps(validated.document)
    (artifact,) = validated.document["artifacts"]
    assert "preprocess" in {check["metric"] for check in artifact["checks"] if check["passed"]}
    assert artifact["stages"]["task"] == "pass"


TOML = """
[window]
length = 4
columns = 2

[[inputs.readings]]
step = "rescaling"
scale = [0.5]
offset = [-1.0]
"""


def windows_model(keras, folder):
    """A model of prepared windows, and raw windows that a file describes how to prepare.

    It has enough weights for its int8 file to be smaller than its float32 file.
    """
    keras.utils.set_random_seed(3)
    inputs = keras.Input((4, 2), name="readings")
    x = keras.layers.Dense(64, activation="relu")(keras.layers.Flatten()(inputs))
    x = keras.layers.Dense(3, name="score")(x)
    raw = np.random.default_rng(4).normal(2, 2, (60, 4, 2)).round(3)
    labels = save(folder, keras.Model(inputs, x), np.float32(raw / 2 - 1), raw.tolist())
    (folder / "preprocess.toml").write_text(TOML)
    other = np.random.default_rng(5).normal(2, 2, (400, 2))
    np.savetxt(folder / "calibration.csv", other, delimiter=",")
    return raw, labels


@pytest.mark.long
def test_windows_and_calibration(edgeattn, tmp_path, keras):
    """In an .npz, and calibrated on raw readings."""
    raw, labels = windows_model(keras, tmp_path)
    np.savez(tmp_path / "data.npz", x=raw, y=[LABELS.index(label) for label in labels])
    files = ("--raw-data", "data.npz", "--raw-calibration", "calibration.csv")
    files += ("--preprocess", "preprocess.toml", "--scheme", "int8")
    result = edgeattn("tune", "model.keras", *files, *SEARCH)
    assert result.code == 0, result.err
    tried = {item["scheme"]: item["verdict"] for item in result.document["tried"]}
    assert tried["int8"] == "pass"
    bundle = Bundle.open(tmp_path / "model.tuned.edge")
    (artifact,) = bundle.manifest.artifacts
    # 400 readings make 100 windows, some of which are the reference.
    assert artifact.scheme == "int8"
    counts = artifact.achieved["calibration"]["samples"], bundle.manifest.reference["samples"]
    assert sum(counts) == 100
    answers = package.load(bundle.path).answers(raw)
    agreement = [answer["label"] == label for answer, label in zip(answers, labels, strict=True)]
    assert np.mean(agreement) > 0.9


RAW = ("--raw-data", "data.jsonl")
FLOAT = ("--scheme", "float16")
DESCRIBED = ("--preprocess", "preprocess.toml", *SEARCH)


def refused(edgeattn, folder, arguments, message):
    result = edgeattn("tune", "model.keras", *arguments)
    assert (result.code, (folder / "model.tuned.edge").exists()) == (2, False)
    assert message in result.err or message in result.out
    assert not list(folder.glob(".*search"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "There is no data to tune on"),
        ((*RAW, "--data", "data.jsonl"), "--raw-data and --data exclude each other"),
        (("--raw-data", "no.jsonl"), "--raw-data: no such file: no.jsonl"),
        ((*RAW, "--raw-calibration", "no.csv", "--scheme", "int8"), "--raw-calibration: no such"),
        (
            (*RAW, "--raw-samples", "samples.txt", "--raw-calibration", "data.jsonl", *FLOAT),
            "--raw-calibration has no effect",
        ),
        ((*RAW, "--labels", "no.txt"), "--labels: no such file"),
    ],
)
def test_options_that_are_refused(edgeattn, tmp_path, arguments, message):
    for name in ("model.keras", "data.jsonl", "samples.txt"):
        (tmp_path / name).touch()
    refused(edgeattn, tmp_path, arguments, message)


@pytest.mark.long
def test_datasets_that_are_refused(edgeattn, tmp_path, keras):
    windows_model(keras, tmp_path)
    (tmp_path / "short.jsonl").write_text('{"x": [[1, 2]], "y": "cold"}\n')
    (tmp_path / "unknown.jsonl").write_text('{"x": [[1, 2]], "y": "hot"}\n')
    for arguments, message in (
        ((*RAW, "--format", "onnx", "--scheme", "float32"), "the model has no preprocessing"),
        (("--raw-data", "short.jsonl", *DESCRIBED), "sample 1: A window has 4 readings; received"),
        (("--raw-data", "unknown.jsonl", *DESCRIBED), "'hot' is no label of the front end"),
    ):
        refused(edgeattn, tmp_path, arguments, message)


def test_names_of_the_stored_inputs(edgeattn, tmp_path, keras):
    """Data and calibration under the names ahead of the removed layer were refused."""
    import tensorflow as tf

    keras.utils.set_random_seed(4)
    lookup = keras.layers.StringLookup(vocabulary=WORDS, output_mode="multi_hot", name="lookup")
    inputs = keras.Input((3,), dtype="string", name="words")
    x = keras.layers.Dense(64, activation="relu")(lookup(inputs))
    model = keras.Model(inputs, keras.layers.Dense(3, name="score")(x))
    model.save(tmp_path / "model.keras")
    words = np.random.default_rng(3).choice([*WORDS, "fog"], (400, 3))
    labels = np.asarray(model(tf.constant(words.tolist()))).argmax(1)
    np.savez(tmp_path / "data.npz", words=words[:60], y=labels[:60])
    np.savez(tmp_path / "calibration.npz", words=words[60:], y=labels[60:])
    files = ("--data", "data.npz", "--calibration", "calibration.npz", "--scheme", "int8")
    result = edgeattn("tune", "model.keras", *files, *SEARCH[:2], "--format", "tflite", "--json")
    assert result.code == 0, result.err
    tried = {item["scheme"]: item["verdict"] for item in result.document["tried"]}
    assert tried["int8"] == "pass"
    bundle = Bundle.open(tmp_path / "model.tuned.edge")
    notes = [note for note in bundle.manifest.model["notes"] if "raw values under the" in note]
    assert [note.rsplit("--raw-", 1)[1] for note in notes] == [
        "data",
        "calibration, where labels have no effect",
    ]
    with np.load(bundle.path / "reference.npz") as reference:
        values = np.float32(lookup(tf.constant(words[60:].tolist())))
        rows = {row.tobytes() for row in values}
        assert {row.tobytes() for row in reference["input/lookup"][:10]} <= rows
