"""Activity, gestures and vowels in quick mode, on made-up data."""

import numpy as np
import pytest

from stand_ins import write_gestures, write_har_subset, write_vowels


def check(result, folder, samples):
    assert (folder / "made" / "attention.png").stat().st_size > 0
    assert {(a["format"], a["scheme"]) for a in result["artifacts"]} == {
        (format, scheme) for format in ("tflite", "onnx") for scheme in ("float32", "int8")
    }
    assert result["failures"] == []
    assert result["keras"]["samples"] == samples
    for item in result["artifacts"]:
        if item["scheme"] == "float32":
            assert item["stages"]["numbers"] == item["stages"]["attention"] == "pass"
            assert item["score"] == result["keras"]["score"]
        assert item["bytes"] > 0
        assert item["latency_ratio"] > 0


def test_activity(tmp_path, run_example):
    write_har_subset(tmp_path / "uci_har_subset.npz")
    check(run_example("activity", "--data", tmp_path, backend="jax"), tmp_path, 48)


def test_gestures(tmp_path, run_example):
    write_gestures(tmp_path / "point_history.csv")
    check(run_example("gestures", "--data", tmp_path / "point_history.csv"), tmp_path, 120)


def test_vowels(tmp_path, run_example):
    write_vowels(tmp_path)
    result = run_example("vowels", "--data", tmp_path, backend="jax")
    check(result, tmp_path, 36)
    import keras

    import edgeattn.layers  # noqa: F401  so that the file loads without custom objects

    model = keras.saving.load_model(tmp_path / "made" / "model.h5")
    with np.load(tmp_path / "made" / "test.npz") as test:
        right = model.predict(test["x"], verbose=0).argmax(axis=1) == test["y"]
    assert result["keras"]["score"] == pytest.approx(right.mean())
