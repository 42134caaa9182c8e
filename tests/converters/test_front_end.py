"""From raw input to answers: what a converted model does with it, and what Keras does."""

import json

import numpy as np
import pytest
from artifacts import edit_manifest

import edgeattn as package
from edgeattn.bundle.bundle import Bundle
from edgeattn.bundle.manifest import sha256
from edgeattn.frontend.description import FRONTEND, from_bytes

LABELS = ["cold", "mild", "warm"]
SAMPLES = [
    {"words": "The cat sat!", "kind": "a", "code": "x1", "number": 5},
    {"words": "a dog on the mat; today", "kind": "zz", "code": "", "number": 9},
    {"words": "", "kind": "b", "code": "x2", "number": 6},
]
CONVERT = ("--format", "tflite", "--scheme", "float32", "--labels", "labels.txt", "--json")


def text_model(path):
    """A model with every layer that is removed: adapted, with weights, and from arguments."""
    import keras

    words = keras.layers.TextVectorization(output_sequence_length=5, ngrams=2, name="words")
    words.adapt(["the cat sat on the mat", "a dog sat"])
    kind = keras.layers.StringLookup(output_mode="tf_idf", name="kind")
    kind.adapt([["a"], ["b"], ["a"]])
    code = keras.layers.Hashing(7, salt=[3, 4], output_mode="one_hot", name="code")
    number = keras.layers.IntegerLookup(vocabulary=[5, 6], output_mode="one_hot", name="number")
    inputs = [
        keras.Input((1,), dtype="int64" if layer is number else "string", name=f"raw_{layer.name}")
        for layer in (words, kind, code, number)
    ]
    values = [layer(item) for layer, item in zip((words, kind, code, number), inputs, strict=True)]
    embedded = keras.layers.Embedding(words.vocabulary_size(), 4)(values[0])
    mean = keras.layers.GlobalAveragePooling1D()(embedded)
    joined = keras.layers.Concatenate()([mean, *values[1:]])
    model = keras.Model(inputs, keras.layers.Dense(3, name="score")(joined))
    model.save(path)
    return model


def keras_answer(model, sample):
    """Label and score of Keras' own model for a raw sample, with softmax by NumPy."""
    import tensorflow as tf

    tensors = [tf.constant([[sample[name]]]) for name in ("words", "kind", "code", "number")]
    scores = np.asarray(model(tensors), "float64")[0]
    shares = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
    return LABELS[shares.argmax()], shares.max()


def test_removed_layers_become_the_front_end(edgeattn, tmp_path):
    pytest.importorskip("keras")
    model = text_model(tmp_path / "model.keras")
    (tmp_path / "labels.txt").write_text("\n".join(LABELS))
    lines = "".join(json.dumps(sample) + "\n" for sample in SAMPLES)
    (tmp_path / "raw.jsonl").write_text(lines)
    result = edgeattn("convert", "model.keras", "--raw-samples", "raw.jsonl", *CONVERT)
    assert result.code == 0, result.err
    assert len(
        [note for note in result.document["notes"] if "front end of the bundle does" in note]
    )

    streamed = edgeattn("run", "model.edge", "--input", "raw.jsonl", "--stream")
    answers = [json.loads(line) for line in streamed.out.splitlines()]
    for answer, sample in zip(answers, SAMPLES, strict=True):
        label, score = keras_answer(model, sample)
        assert answer["label"] == label
        assert answer["score"] == pytest.approx(score, abs=1e-5)

    validated = edgeattn("validate", "model.edge", "--json").document
    assert "raw.jsonl" in json.dumps(Bundle.open(tmp_path / "model.edge").manifest.reference)
    checks = validated["artifacts"][0]["checks"]
    passed = {
        check["output"]: check["passed"] for check in checks if check["metric"] == "preprocess"
    }
    assert passed == dict.fromkeys(["words", "kind", "code", "number"], True)
    check_changes(edgeattn, tmp_path / "model.edge")


@pytest.mark.long
def test_samples_under_the_names_of_the_stored_inputs(edgeattn, tmp_path):
    """They were refused: the inputs of the converted model are named as the removed layers."""
    pytest.importorskip("keras")
    import tensorflow as tf

    model = text_model(tmp_path / "model.keras")
    names = ("words", "kind", "code", "number")
    raw = {name: np.array([[sample[name]] for sample in SAMPLES]) for name in names}
    np.savez(tmp_path / "samples.npz", **{f"raw_{name}": raw[name] for name in names})
    convert = ("convert", "model.keras", "--samples", "samples.npz", "--format", "tflite")
    result = edgeattn(*convert, "--scheme", "float32", "--json")
    assert result.code == 0, result.err
    notes = " ".join(result.document["notes"])
    assert "samples.npz has raw values" in notes
    assert "read as prepared inputs" not in notes
    with np.load(tmp_path / "model.edge" / "reference.npz") as reference:
        for layer in (model.get_layer(name) for name in names):
            values = np.asarray(layer(tf.constant(raw[layer.name].tolist())))
            np.testing.assert_allclose(reference[f"input/{layer.name}"][:3], values, atol=1e-6)
        expected = model([tf.constant(raw[name].tolist()) for name in names])
        np.testing.assert_allclose(reference["output/score"][:3], expected, atol=1e-5)

    loaded = package.load(tmp_path / "model.edge")
    answers = [loaded.answer(sample) for sample in SAMPLES]
    stored = [{f"raw_{name}": value for name, value in sample.items()} for sample in SAMPLES]
    assert [loaded.answer(sample) for sample in stored] == answers
    evaluated = {f"raw_{name}": np.repeat(raw[name], 4, 0) for name in names}
    np.savez(tmp_path / "data.npz", **evaluated, y=np.zeros(12, int))
    validated = edgeattn("validate", "model.edge", "--raw-data", "data.npz", "--json")
    assert validated.code in (0, 6), validated.err
    refused = edgeattn("validate", "model.edge", "--data", "data.npz", "--json")
    assert refused.code == 2
    assert "with --raw-data to validate" in refused.err

    # Calibration samples with these names, too; the rows differ from those of --samples.
    count, numbers = 120, np.random.default_rng(8)
    rows = {name: raw[name][numbers.integers(0, 3, count)] for name in names}
    rows["words"] = np.array(
        [[" ".join(numbers.choice(["the", "cat", "dog"], 4))] for _ in range(count)]
    )
    np.savez(tmp_path / "calibration.npz", **{f"raw_{name}": rows[name] for name in names})
    calibrated = edgeattn(
        *convert, "--scheme", "int8", "--calibration", "calibration.npz", "--force", "--json"
    )
    assert calibrated.code == 0, calibrated.err
    assert "calibration.npz has raw values" in " ".join(calibrated.document["notes"])

    mixed = {"words": np.zeros((3, 5), int), **{f"raw_{name}": raw[name] for name in names[1:]}}
    np.savez(tmp_path / "samples.npz", **mixed)
    result = edgeattn(*convert, "--force", "--json")
    assert result.code == 2
    assert "no array for input" in result.err


def check_changes(edgeattn, bundle):
    """A front end that differs from the layers fails the check ``preprocess``."""
    original = json.loads((bundle / FRONTEND).read_text())
    for name, change in (
        ("words", {"standardize": "none"}),
        ("kind", {"idf_weights": [0.5, 0.5, 0.25]}),
        ("code", {"salt": [4, 3]}),
        ("number", {"vocabulary": [6, 5]}),
    ):
        changed = json.loads(json.dumps(original))
        changed["inputs"][name][0].update(change)
        (bundle / FRONTEND).write_text(json.dumps(changed))
        digest = sha256(bundle / FRONTEND)
        edit_manifest(bundle, lambda data, d=digest: data["frontend"].update(sha256=d))
        result = edgeattn("validate", bundle, "--json")
        checks = result.document["artifacts"][0]["checks"]
        failed = [
            (check["metric"], check["output"]) for check in checks if check["passed"] is False
        ]
        assert (result.code, failed) == (1, [("preprocess", name)])


TOML = """
[window]
length = 4
hop = 2
columns = 2

[[inputs.readings]]
step = "normalization"
mean = [1.0, -2.0]
variance = [4.0, 0.25]

[answer]
top = 2
"""


@pytest.mark.long
def test_a_described_front_end(edgeattn, tmp_path):
    keras = pytest.importorskip("keras")
    inputs = keras.Input((4, 2), name="readings")
    hidden = keras.layers.Flatten()(inputs)
    model = keras.Model(inputs, keras.layers.Dense(3, name="score")(hidden))
    model.save(tmp_path / "model.keras")
    (tmp_path / "labels.txt").write_text("\n".join(LABELS))
    (tmp_path / "preprocess.toml").write_text(TOML)
    rows = np.random.default_rng(5).normal([1, -2], [2, 0.5], (11, 2)).astype("float32")
    np.savetxt(tmp_path / "raw.csv", rows, delimiter=",")
    other = np.random.default_rng(6).normal([1, -2], [2, 0.5], (60, 2))
    np.savetxt(tmp_path / "calibration.csv", other, delimiter=",")
    files = ("--preprocess", "preprocess.toml", "--raw-samples", "raw.csv")
    files += ("--raw-calibration", "calibration.csv", "--scheme", "int8")
    result = edgeattn("convert", "model.keras", *files, *CONVERT)
    assert result.code == 0, result.err
    # 29 windows of the calibration file, in the units of the model.
    int8 = next(item for item in result.document["artifacts"] if item["scheme"] == "int8")
    assert int8["achieved"]["calibration"]["samples"] == 29
    assert int8["verdict"] == "pass"

    normalized = ((rows - [1, -2]) / [2, 0.5]).astype("float32")
    windows = np.stack([normalized[start : start + 4] for start in range(0, 8, 2)])
    scores = np.asarray(model(windows), "float64")
    shares = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    loaded = package.load(tmp_path / "model.edge", scheme="float32")
    answers = list(loaded.answers(rows))
    assert [answer["label"] for answer in answers] == [LABELS[i] for i in scores.argmax(1)]
    np.testing.assert_allclose([a["score"] for a in answers], shares.max(1), atol=1e-5)

    for arguments, message in (
        (("--preprocess", "labels.txt"), "labels.txt is not TOML"),
        (("--labels", "missing.txt"), "--labels: no such file"),
        (("--raw-samples", "raw.csv"), "the model has no preprocessing layers"),
    ):
        refused = edgeattn("convert", "model.keras", "-o", "other.edge", *arguments)
        assert (refused.code, (tmp_path / "other.edge").exists()) == (2, False)
        assert message in refused.err
    answer = from_bytes((tmp_path / "model.edge" / FRONTEND).read_bytes()).answer
    # The layer of the output has no activation.
    assert (answer.activation, answer.labels, answer.top) == ("softmax", tuple(LABELS), 2)


@pytest.mark.long
def test_steps_are_compared_with_the_original_preprocessing(edgeattn, tmp_path):
    """The original is a scaler of scikit-learn, which computes ``--samples`` from the raw ones."""
    keras = pytest.importorskip("keras")
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    inputs = keras.Input((4, 2), name="readings")
    outputs = keras.layers.Dense(3, name="score")(keras.layers.Flatten()(inputs))
    keras.Model(inputs, outputs).save(tmp_path / "model.keras")
    raw = np.random.default_rng(7).normal([3, -20], [2, 9], (30, 4, 2))
    rows = raw.reshape(-1, 2)
    np.savez(tmp_path / "raw.npz", x=raw)
    for scaler, code in (
        (preprocessing.StandardScaler(), 0),
        # The device would prepare its inputs otherwise than training did.
        (preprocessing.StandardScaler(with_mean=False), 1),
    ):
        np.savez(tmp_path / "prepared.npz", x=scaler.fit_transform(rows).reshape(raw.shape))
        trained = preprocessing.StandardScaler().fit(rows)
        toml = tmp_path / "preprocess.toml"
        package.write_preprocessing(toml, {"readings": trained}, force=True)
        files = ("--preprocess", toml, "--raw-samples", "raw.npz", "--samples", "prepared.npz")
        labels = ("--format", "onnx", "--scheme", "float32", "--force")
        assert edgeattn("convert", "model.keras", *files, *labels).code == code
        validated = edgeattn("validate", "model.edge", "--json")
        checks = validated.document["artifacts"][0]["checks"]
        failed = [check["metric"] for check in checks if check["passed"] is False]
        assert (validated.code, failed) == (code, ["preprocess"] * code)
    np.savez(tmp_path / "prepared.npz", x=raw[:29])
    refused = edgeattn("convert", "model.keras", *files, "-o", "other.edge")
    assert (refused.code, (tmp_path / "other.edge").exists()) == (2, False)
    assert "prepared.npz has 29 samples, and raw.npz has 30" in refused.err


def test_a_layer_with_a_function_has_no_step(edgeattn, tmp_path):
    keras = pytest.importorskip("keras")
    words = keras.layers.StringLookup(vocabulary=["a", "b"], invert=False, name="words")
    inputs = keras.Input((2,), dtype="string")
    hidden = keras.layers.Flatten()(keras.layers.Embedding(4, 2)(words(inputs)))
    model = keras.Model(inputs, keras.layers.Dense(2, activation="sigmoid", name="score")(hidden))
    words.encoding = "latin-1"
    model.save(tmp_path / "model.keras")
    (tmp_path / "raw.txt").write_text("a\n")
    result = edgeattn("convert", "model.keras", "--raw-samples", "raw.txt")
    assert result.code == 3
    assert "cannot prepare raw samples: words reads text as latin-1" in result.err
    assert "--samples" in result.err
