"""A resumed training has the same metrics as an uninterrupted one."""

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
    data = (x, x.sum(axis=1, keepdims=True))

    def run(folder, epochs, **options):
        schedule = training.Schedule(epochs, batch_size=16, seed=1)
        return training.train(
            build, tmp_path / folder, data, data, schedule, metric="mae", **options
        )

    return run


def without_time(history):
    return [{k: v for k, v in entry.items() if k != "seconds"} for entry in history]


@pytest.mark.long
def test_resumed_training_has_the_metrics_of_an_uninterrupted_one(train):
    complete = train("complete", 3)
    train("interrupted", 1)
    assert without_time(train("interrupted", 3)) == without_time(complete)


def test_the_best_epoch_is_the_first_of_the_best():
    import training

    history = [{"test_accuracy": v, "test_mae": v} for v in (0.5, 0.9, 0.9, 0.2)]
    assert training.best_epoch(history, "accuracy") == 1
    assert training.best_epoch(history, "mae") == 3


def test_the_callback_is_called_once_per_epoch(train):
    epochs = []
    train("callback", 2, on_epoch=lambda model, number: epochs.append(number))
    train("callback", 3, on_epoch=lambda model, number: epochs.append(number))
    assert epochs == [0, 1, 2, 3]
