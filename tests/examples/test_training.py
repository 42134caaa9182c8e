"""Training that was cut off ends as if it had not been."""

import numpy as np
import pytest

pytestmark = pytest.mark.usefixtures("modules")


def build():
    import keras

    layers = [
        keras.Input((3,)),
        keras.layers.Dense(5, "tanh"),
        keras.layers.Dropout(0.5),
        keras.layers.Dense(1),
    ]
    model = keras.Sequential(layers)
    model.compile("adam", "mse", metrics=["mae"])
    return model


@pytest.fixture
def train(tmp_path):
    import training

    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 3)).astype("float32")
    rows = (x, x.sum(axis=1, keepdims=True))

    def run(name, epochs, **more):
        how = {"batch_size": 16, "seed": 1, "metric": "mae"}
        return training.train(build, tmp_path / name, rows, rows, epochs=epochs, **how, **more)

    return run


def measured(history):
    return [{k: v for k, v in entry.items() if k != "seconds"} for entry in history]


def test_resumed_training_has_the_figures_of_one_that_was_not_cut_off(train):
    whole = train("whole", 3)
    train("cut", 1)
    assert measured(train("cut", 3)) == measured(whole)


def test_the_best_epoch_is_the_first_of_the_best():
    import training

    history = [{"test_accuracy": v, "test_mae": v} for v in (0.5, 0.9, 0.9, 0.2)]
    assert training.best_epoch(history, "accuracy") == 1
    assert training.best_epoch(history, "mae") == 3


def test_each_epoch_is_shown_once(train):
    seen = []
    train("shown", 2, on_epoch=lambda model, number: seen.append(number))
    train("shown", 3, on_epoch=lambda model, number: seen.append(number))
    assert seen == [0, 1, 2, 3]
