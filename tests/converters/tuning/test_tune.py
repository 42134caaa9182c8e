"""The search on a real model: a text classifier whose embedding does not survive int8."""

import json
import subprocess
import sys
import time

import numpy as np
import pytest

from edgeattn.bundle.bundle import Bundle
from edgeattn.errors import UsageError
from edgeattn.validation.validate import Check
from edgeattn_converters.tuning import tune
from edgeattn_converters.tuning.attempts import Memory, excess
from edgeattn_converters.tuning.search import Candidate, Result

STEPS, WORDS = 12, 200
ASKED = {"formats": ("onnx",), "schemes": ("float16", "dynamic_int8")}


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """A model, samples with Keras' own decisions as labels, and other samples to calibrate on."""
    import keras

    folder = tmp_path_factory.mktemp("text")
    keras.utils.set_random_seed(7)
    inputs = keras.Input((STEPS,), dtype="int32", name="words")
    x = keras.layers.Embedding(WORDS, 32, name="embedding")(inputs)
    x = keras.layers.LSTM(32, return_sequences=True, name="lstm")(x)
    x = keras.layers.Flatten()(x)
    model = keras.Model(inputs, keras.layers.Dense(4, activation="softmax", name="head")(x))
    table = model.get_layer("embedding").get_weights()[0] * 20
    # One word that no sample has is so large that int8, one scale for the table, has no other left.
    table[WORDS - 1] = 500.0
    model.get_layer("embedding").set_weights([table])
    kernel, bias = model.get_layer("head").get_weights()
    model.get_layer("head").set_weights([kernel * 8, bias])
    model.save(folder / "text.keras")
    numbers = np.random.default_rng(3)
    words = numbers.integers(0, WORDS - 1, (600, STEPS), dtype=np.int32)
    labels = model.predict(words, verbose=0).argmax(-1)
    np.savez(folder / "data.npz", words=words[:400], y=labels[:400])
    np.savez(folder / "samples.npz", words=words[400:])
    return folder


@pytest.fixture(scope="module")
def tuned(text):
    return tune(
        text / "text.keras",
        text / "data.npz",
        text / "tuned.edge",
        samples=text / "samples.npz",
        max_drop=0.02,
        **ASKED,
    )


def test_the_embedding_is_raised_and_the_rest_stays_int8(tuned):
    assert tuned.exit_code == 0
    assert dict(tuned.chosen.candidate.precision) == {"embedding": "float16"}
    assert tuned.chosen.candidate.scheme == "dynamic_int8"
    whole = {r.candidate.scheme: r for r in tuned.results if not r.candidate.precision}
    assert not whole["dynamic_int8"].passed
    assert tuned.single.candidate.scheme == "float16"
    assert whole["dynamic_int8"].bytes < tuned.chosen.bytes < tuned.single.bytes


def test_the_bundle_holds_what_was_chosen_and_passes_by_itself(tuned, text):
    from edgeattn.validation.validate import validate_isolated

    bundle = Bundle.open(text / "tuned.edge")
    (artifact,) = bundle.manifest.artifacts
    assert artifact.achieved["tuned"]["precision"] == {"embedding": "float16"}
    assert bundle.artifact_path(artifact).stat().st_size == tuned.chosen.bytes
    assert validate_isolated(bundle, (artifact,)).verdict == "pass"


def test_keras_scores_what_it_was_asked_for_and_nothing_is_left_beside(tuned, text):
    assert list(tuned.reference_scores.values()) == [1.0]
    assert not list(text.glob(".*search"))


def test_what_passes_was_timed_and_lies_on_the_frontier(tuned):
    assert tuned.chosen.p50_ms > 0
    assert tuned.chosen in tuned.frontier


def test_a_search_that_was_killed_goes_on(text, tmp_path):
    model = tmp_path / "text.keras"
    model.write_bytes((text / "text.keras").read_bytes())
    command = [
        *(sys.executable, "-m", "edgeattn", "tune", model, "--data", text / "data.npz"),
        *("--samples", text / "samples.npz", "--max-drop", "0.02", "--format", "onnx"),
        *("--scheme", "float16", "--scheme", "dynamic_int8", "--json"),
    ]
    folder = tmp_path / ".text.tuned.edge.search"
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    for _ in range(1200):
        if (folder / "tried.jsonl").is_file() and _lines(folder) >= 3:
            break
        assert process.poll() is None
        time.sleep(0.1)
    process.kill()
    process.communicate()
    assert not (tmp_path / "text.tuned.edge").exists()
    before = (folder / "tried.jsonl").read_text().splitlines()[1:]
    files = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.onnx")}
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["chosen"]["precision"] == {"embedding": "float16"}
    # What was tried before the kill is there as it was, and was not made again.
    kept = [json.loads(line)["bytes"] for line in before]
    assert [entry["bytes"] for entry in found["tried"]][: len(kept)] == kept
    assert len(files) >= 2
    assert not folder.exists()


def _lines(folder):
    return len((folder / "tried.jsonl").read_text().splitlines())


def test_where_nothing_passes_the_nearest_is_written_and_the_exit_code_says_so(text, tmp_path):
    found = tune(
        text / "text.keras",
        text / "data.npz",
        tmp_path / "out.edge",
        samples=text / "samples.npz",
        max_drop=1e-6,  # no number of samples shows so little
        formats=("onnx",),
        schemes=("float32",),
    )
    assert found.chosen.verdict in ("inconclusive", "fail")
    assert found.exit_code in (1, 6)
    assert "drops by" in found.chosen.shortfall
    assert Bundle.open(tmp_path / "out.edge").manifest.artifacts


def test_labels_that_keras_does_not_meet_are_refused(text, tmp_path):
    data = dict(np.load(text / "data.npz"))
    decided = data["y"]
    np.savez(tmp_path / "wrong.npz", words=data["words"], y=(decided + 1) % 4)
    with pytest.raises(UsageError, match="Keras itself scores 0"):
        tune(text / "text.keras", tmp_path / "wrong.npz", tmp_path / "out.edge", **ASKED)
    assert not list(tmp_path.glob("*.edge"))
    assert not list(tmp_path.glob(".*search"))


# What is remembered


def test_a_memory_of_another_question_is_begun_anew(tmp_path):
    result = Result(Candidate("onnx", "int8"), "fail", shortfall="because")
    memory = Memory(tmp_path, {"model": "a"})
    memory.add(result, True)
    assert Memory(tmp_path, {"model": "a"}).get(result.candidate, True) == result
    assert len(Memory(tmp_path, {"model": "b"})) == 0
    assert len(Memory(tmp_path, {"model": "a"})) == 0


def test_a_line_that_was_cut_off_is_forgotten_and_the_next_is_not(tmp_path):
    first = Result(Candidate("onnx", "int8"), "fail")
    second = Result(Candidate("onnx", "float16", precision=(("lstm", "float32"),)), "fail")
    memory = Memory(tmp_path, {})
    memory.add(first, True)
    memory.add(second, False)
    path = tmp_path / "tried.jsonl"
    path.write_text(path.read_text()[:-30])
    memory = Memory(tmp_path, {})
    assert memory.get(first.candidate, True) == first
    assert memory.get(second.candidate, False) is None
    memory.add(second, False)
    again = Memory(tmp_path, {})
    assert again.get(second.candidate, False) == second
    # Of a task that was not asked for nothing is known; of one that was, both are.
    assert again.get(second.candidate, True) is None
    assert again.get(first.candidate, False) == first


def test_a_file_that_was_changed_is_not_what_was_tried(tmp_path):
    import hashlib

    (tmp_path / "a.onnx").write_bytes(b"what was tried")
    artifact = {"path": "a.onnx", "sha256": hashlib.sha256(b"what was tried").hexdigest()}
    Memory(tmp_path, {}).add(Result(Candidate("onnx", "int8"), "pass", 14, artifact=artifact), True)
    assert len(Memory(tmp_path, {})) == 1
    (tmp_path / "a.onnx").write_bytes(b"something else")
    assert len(Memory(tmp_path, {})) == 0


# How far over its limit a figure is


@pytest.mark.parametrize(
    ("metric", "value", "limit", "better", "expected"),
    [
        ("max_abs_error", 0.06, 0.03, "<=", 2.0),
        ("max_abs_error", 0.0, 0.0, "<=", 0.0),
        ("non_finite", 1.0, 0.0, "<=", np.inf),
        ("snr_db", 10.0, 30.0, ">=", 10.0),  # 20 dB are a factor of ten
        ("top1_agreement", 0.97, 0.99, ">=", 3.0),
        ("top1_agreement", 1.0, 1.0, ">=", 0.0),
        ("max_abs_error", np.nan, 0.03, "<=", np.inf),
    ],
)
def test_how_far_over_its_limit_a_figure_is(metric, value, limit, better, expected):
    check = Check("onnx int8", "numbers", metric, value, limit, better)
    told = Check("onnx int8", "numbers", "mean_abs_error", 99.0)
    assert excess([told, check]) == pytest.approx(expected)
