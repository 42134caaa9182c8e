"""Adding two numbers and finding the maximum, with recorded attention."""

from __future__ import annotations

import importlib

import keras
import numpy as np
import pytest

from example_results import read_result

pytestmark = pytest.mark.long


def test_find_max_from_training_to_report(run_example):
    folder = run_example("find_max")
    result = read_result(folder, samples=200)
    assert 0 <= result["figures"]["largest weight is on the maximum"] <= 1
    assert result["keras"]["kind"] == "r2"
    assert (folder / "find_max.png").read_bytes().startswith(b"\x89PNG")


def test_add_two_numbers_on_jax(run_example):
    pytest.importorskip("jax")
    image = pytest.importorskip("PIL.Image")
    folder = run_example("add_two_numbers", "--no-convert", backend="jax")
    attention = folder / "attention"
    assert sorted(file.name for file in attention.glob("epoch-*.png")) == [
        f"epoch-{number:04}.png" for number in range(3)
    ]
    with image.open(attention / "attention.gif") as gif:
        assert gif.n_frames == 3
    assert (folder / "model.h5").stat().st_size > 0


def test_the_truth_is_one_half_on_each_number_after_a_delimiter(modules):
    example = importlib.import_module("add_two_numbers")
    x = np.array([0.3, 0.0, 0.5, 0.9, 0.0, 0.7], dtype="float32")[None, :, None]
    assert example.truth(x).tolist() == [[0, 0, 0.5, 0, 0, 0.5]]
    sample = importlib.import_module("sample_scripts").sample_script("add_two_numbers")
    sequences, target = sample.sequences(50, 3)
    np.testing.assert_allclose((example.truth(sequences) * sequences[:, :, 0]).sum(1), target[:, 0])


def test_recording_resumes_after_an_interruption(modules, tmp_path):
    """Also after an interruption between the end of an epoch and its record."""
    pytest.importorskip("matplotlib")
    training = importlib.import_module("training")
    synthetic = importlib.import_module("synthetic")
    from edgeattn.layers import Attention, AttentionOverEpochs

    x = np.random.default_rng(1).random((8, 5, 1), dtype="float32")

    def build():
        model = keras.Sequential([keras.Input((5, 1)), Attention(2), keras.layers.Dense(1)])
        model.compile("sgd", "mae")
        return model

    def run(epochs, folder, interrupt=False):
        callback = AttentionOverEpochs(x, folder / "attention", frames=False)
        record = synthetic.recording(callback, folder)

        def on_epoch(model, number):
            if interrupt and number == epochs:
                raise KeyboardInterrupt
            record(model, number)

        data = (x, x[:, 0])
        schedule = training.Schedule(epochs, batch_size=4, seed=3)
        training.train(build, folder, data, data, schedule, metric="loss", on_epoch=on_epoch)
        return callback

    complete = run(3, tmp_path / "complete")
    assert len(complete.weights) == 4
    with pytest.raises(KeyboardInterrupt):
        run(2, tmp_path / "interrupted", interrupt=True)
    resumed = run(3, tmp_path / "interrupted")
    np.testing.assert_allclose(resumed.weights, complete.weights, atol=1e-6)
    np.testing.assert_allclose(resumed.losses, complete.losses, atol=1e-6)
