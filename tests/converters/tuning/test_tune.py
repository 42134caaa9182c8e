"""The search on a real model: a text classifier whose embedding is inaccurate in int8."""

import json
import subprocess
import sys
import time

import numpy as np
import pytest

from edgeattn.bundle.bundle import Bundle
from edgeattn.errors import UsageError
from edgeattn.metrics.limits import Check
from edgeattn_converters import ModelSource
from edgeattn_converters.tuning.evaluation import ResultStore, excess
from edgeattn_converters.tuning.search import Candidate, Result
from edgeattn_converters.tuning.tune import tune
from edgeattn_converters.tuning.tuning_options import TuningOptions

STEPS, WORDS = 12, 200
OPTIONS = TuningOptions(max_drop=0.03, formats=("onnx",), schemes=("float16", "dynamic_int8"))


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """A model, samples labeled by Keras, and other samples for the reference."""
    import keras

    folder = tmp_path_factory.mktemp("text")
    keras.utils.set_random_seed(7)
    inputs = keras.Input((STEPS,), dtype="int32", name="words")
    x = keras.layers.Embedding(WORDS, 32, name="embedding")(inputs)
    x = keras.layers.LSTM(32, return_sequences=True, name="lstm")(x)
    x = keras.layers.Flatten()(x)
    model = keras.Model(inputs, keras.layers.Dense(4, activation="softmax", name="head")(x))
    table = model.get_layer("embedding").get_weights()[0] * 20
    # One row that no sample uses determines the scale of the table, so int8 cannot resolve others.
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
    source = ModelSource(text / "text.keras", samples=text / "samples.npz")
    return tune(source, text / "data.npz", text / "tuned.edge", options=OPTIONS)


@pytest.mark.long
def test_only_the_embedding_is_raised(tuned):
    assert tuned.exit_code == 0
    assert dict(tuned.chosen.candidate.precision) == {"embedding": "float16"}
    assert tuned.chosen.candidate.scheme == "dynamic_int8"
    whole = {r.candidate.scheme: r for r in tuned.results if not r.candidate.precision}
    assert not whole["dynamic_int8"].passed
    assert tuned.best_uniform.candidate.scheme == "float16"
    assert whole["dynamic_int8"].bytes < tuned.chosen.bytes < tuned.best_uniform.bytes


def test_the_bundle_contains_the_chosen_artifact_and_passes(tuned, text):
    from edgeattn.validation.validate import validate_isolated

    bundle = Bundle.open(text / "tuned.edge")
    (artifact,) = bundle.manifest.artifacts
    assert artifact.achieved["tuned"]["precision"] == {"embedding": "float16"}
    assert bundle.artifact_path(artifact).stat().st_size == tuned.chosen.bytes
    assert validate_isolated(bundle, (artifact,)).verdict == "pass"


def test_the_score_of_keras_and_the_removal_of_the_search_folder(tuned, text):
    assert list(tuned.reference_scores.values()) == [1.0]
    assert not list(text.glob(".*search"))


def test_the_chosen_candidate_is_timed_and_on_the_frontier(tuned):
    assert tuned.chosen.p50_ms > 0
    assert tuned.chosen in tuned.frontier


@pytest.mark.long
def test_a_killed_search_resumes(text, tmp_path):
    model = tmp_path / "text.keras"
    model.write_bytes((text / "text.keras").read_bytes())
    command = [
        *(sys.executable, "-m", "edgeattn", "tune", model, "--data", text / "data.npz"),
        *("--samples", text / "samples.npz", "--max-drop", "0.03", "--format", "onnx"),
        *("--scheme", "float16", "--scheme", "dynamic_int8", "--json"),
    ]
    folder = tmp_path / ".text.tuned.edge.search"
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while not (folder / "tried.jsonl").is_file() or _count_lines(folder) < 3:
        assert process.poll() is None
        time.sleep(0.1)
    process.kill()
    process.communicate()
    assert not (tmp_path / "text.tuned.edge").exists()
    before = (folder / "tried.jsonl").read_text().splitlines()[1:]
    files = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.onnx")}
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["chosen"]["precision"] == {"embedding": "float16"}
    # Results from before the kill are reused.
    sizes = [json.loads(line)["bytes"] for line in before]
    assert [entry["bytes"] for entry in document["tried"]][: len(sizes)] == sizes
    assert len(files) >= 2
    assert not folder.exists()


def _count_lines(folder):
    return len((folder / "tried.jsonl").read_text().splitlines())


@pytest.mark.long
def test_the_closest_candidate_is_written_if_none_passes(text, tmp_path):
    result = tune(
        ModelSource(text / "text.keras", samples=text / "samples.npz"),
        text / "data.npz",
        tmp_path / "out.edge",
        # No number of samples can show so small a drop.
        options=TuningOptions(max_drop=1e-6, formats=("onnx",), schemes=("float32",)),
    )
    assert result.chosen.verdict in ("inconclusive", "fail")
    assert result.exit_code in (1, 6)
    assert "drops by" in result.chosen.shortfall
    assert Bundle.open(tmp_path / "out.edge").manifest.artifacts


def test_labels_that_keras_does_not_predict_are_rejected(text, tmp_path):
    data = dict(np.load(text / "data.npz"))
    np.savez(tmp_path / "wrong.npz", words=data["words"], y=(data["y"] + 1) % 4)
    with pytest.raises(UsageError, match="Keras scores 0"):
        tune(text / "text.keras", tmp_path / "wrong.npz", tmp_path / "out.edge", options=OPTIONS)
    assert not list(tmp_path.glob("*.edge"))
    assert not list(tmp_path.glob(".*search"))


def test_results_of_other_inputs_are_discarded(tmp_path):
    result = Result(Candidate("onnx", "int8"), "fail", shortfall="because")
    store = ResultStore(tmp_path, {"model": "a"})
    store.add(result, True)
    assert ResultStore(tmp_path, {"model": "a"}).get(result.candidate, True) == result
    assert len(ResultStore(tmp_path, {"model": "b"})) == 0
    assert len(ResultStore(tmp_path, {"model": "a"})) == 0


def test_an_incomplete_line_is_ignored(tmp_path):
    first = Result(Candidate("onnx", "int8"), "fail")
    second = Result(Candidate("onnx", "float16", precision=(("lstm", "float32"),)), "fail")
    store = ResultStore(tmp_path, {})
    store.add(first, True)
    store.add(second, False)
    path = tmp_path / "tried.jsonl"
    path.write_text(path.read_text()[:-30])
    store = ResultStore(tmp_path, {})
    assert store.get(first.candidate, True) == first
    assert store.get(second.candidate, False) is None
    store.add(second, False)
    reopened = ResultStore(tmp_path, {})
    assert reopened.get(second.candidate, False) == second
    # A result with the task also serves without it, but not the other way around.
    assert reopened.get(second.candidate, True) is None
    assert reopened.get(first.candidate, False) == first


def test_results_of_changed_files_are_ignored(tmp_path):
    import hashlib

    (tmp_path / "a.onnx").write_bytes(b"original content")
    artifact = {"path": "a.onnx", "sha256": hashlib.sha256(b"original content").hexdigest()}
    ResultStore(tmp_path, {}).add(
        Result(Candidate("onnx", "int8"), "pass", 14, artifact=artifact), True
    )
    assert len(ResultStore(tmp_path, {})) == 1
    (tmp_path / "a.onnx").write_bytes(b"something else")
    assert len(ResultStore(tmp_path, {})) == 0
    # A search that was killed while it removed its files.
    (tmp_path / "a.onnx").unlink()
    assert len(ResultStore(tmp_path, {})) == 0


@pytest.mark.parametrize(
    ("metric", "value", "limit", "relation", "expected"),
    [
        ("max_abs_error", 0.06, 0.03, "<=", 2.0),
        ("max_abs_error", 0.0, 0.0, "<=", 0.0),
        ("non_finite", 1.0, 0.0, "<=", np.inf),
        ("snr_db", 10.0, 30.0, ">=", 10.0),  # 20 dB are a factor of ten
        ("top1_agreement", 0.97, 0.99, ">=", 3.0),
        ("top1_agreement", 1.0, 1.0, ">=", 0.0),
        ("max_abs_error", np.nan, 0.03, "<=", np.inf),
        ("lost_values", 7.0, 0.0, "<=", 8.0),
        ("lost_values", 0.0, 0.0, "<=", 0.0),
    ],
)
def test_excess_is_a_multiple_of_the_limit(metric, value, limit, relation, expected):
    check = Check("onnx int8", "numbers", metric, value, limit, relation)
    without_limit = Check("onnx int8", "numbers", "mean_abs_error", 99.0)
    assert excess([without_limit, check]) == pytest.approx(expected)
