"""Adding two numbers and finding the maximum: from training to a verdict, watched on the way."""

from __future__ import annotations

import importlib

import keras
import numpy as np
import pytest


def test_find_max(run_example, tmp_path):
    found = run_example("find_max")
    assert {(item["format"], item["scheme"]) for item in found["artifacts"]} == {
        (kind, scheme) for kind in ("tflite", "onnx") for scheme in ("float32", "int8")
    }
    assert 0 <= found["figures"]["largest weight is on the maximum"] <= 1
    assert found["keras"]["kind"] == "r2"
    assert (tmp_path / "made" / "find_max.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "made" / "report.html").stat().st_size > 1000


def test_add_two_numbers_on_jax(run_example, tmp_path):
    pytest.importorskip("jax")
    image = pytest.importorskip("PIL.Image")
    found = run_example("add_two_numbers", backend="jax")
    assert found["figures"]["mean absolute error"] > 0
    seen = tmp_path / "made" / "attention"
    assert sorted(file.name for file in seen.glob("epoch-*.png")) == [
        f"epoch-{number:04}.png" for number in range(3)
    ]
    with image.open(seen / "attention.gif") as made:
        assert made.n_frames == 3


def test_the_truth_is_half_on_each_number_behind_a_delimiter(modules):
    example = importlib.import_module("add_two_numbers")
    x = np.array([0.3, 0.0, 0.5, 0.9, 0.0, 0.7], dtype="float32")[None, :, None]
    assert example.truth(x).tolist() == [[0, 0, 0.5, 0, 0, 0.5]]
    sample = importlib.import_module("watched").sample_model("add_two_numbers")
    drawn, target = sample.sequences(50, 3)
    np.testing.assert_allclose((example.truth(drawn) * drawn[:, :, 0]).sum(1), target[:, 0])


def test_watching_goes_on_after_an_interruption(modules, tmp_path):
    """Also where the run was cut off between an epoch's end and its picture."""
    pytest.importorskip("matplotlib")
    training = importlib.import_module("training")
    watched = importlib.import_module("watched")
    from edgeattn.layers import Attention, AttentionOverEpochs

    x = np.random.default_rng(1).random((8, 5, 1), dtype="float32")

    def build():
        model = keras.Sequential([keras.Input((5, 1)), Attention(2), keras.layers.Dense(1)])
        model.compile("sgd", "mae")
        return model

    def run(epochs, folder, cut=False):
        watcher = AttentionOverEpochs(x, folder / "attention", frames=False)
        on_epoch = watched.watching(watcher, folder)

        def stop(model, number):
            if cut and number == epochs:
                raise KeyboardInterrupt
            on_epoch(model, number)

        training.train(
            build, folder, (x, x[:, 0]), (x, x[:, 0]), epochs=epochs, batch_size=4, seed=3,
            metric="loss", on_epoch=stop,
        )  # fmt: skip
        return watcher

    whole = run(3, tmp_path / "whole")
    assert len(whole.weights) == 4
    with pytest.raises(KeyboardInterrupt):
        run(2, tmp_path / "cut", cut=True)
    resumed = run(3, tmp_path / "cut")
    np.testing.assert_allclose(resumed.weights, whole.weights, atol=1e-6)
    np.testing.assert_allclose(resumed.losses, whole.losses, atol=1e-6)
