"""The trained models of the experiments, and the page of their results."""

import json

import numpy as np
import pytest
from long_parameters import only

from example_results import EXAMPLES, ROOT

NAMES = ["imdb", "activity", "gestures", "vowels"]


def recorded(name):
    return json.loads((EXAMPLES / "results" / f"{name}.json").read_text(encoding="utf-8"))


def load(name):
    import keras

    import edgeattn.layers  # noqa: F401  registers the layer of the files

    return keras.saving.load_model(ROOT / "sample_models" / name / "model.h5")


@pytest.mark.parametrize("name", NAMES)
def test_the_sample_model_is_that_of_the_recorded_results(name):
    path = ROOT / "sample_models" / name / "model.h5"
    assert path.stat().st_size < 2_000_000
    result = recorded(name)
    assert path.stat().st_size == result["model_bytes"]
    assert load(name).count_params() == result["parameters"]
    files = {file.name for file in path.parent.iterdir()}
    assert {"README.md", "model.h5"} <= files <= {"README.md", "model.h5", "preprocess.toml"}


@pytest.mark.usefixtures("modules")
@pytest.mark.parametrize("name", only(["gestures", "vowels"], "gestures"))
def test_the_score_on_the_real_data_is_the_recorded_one(name, real):
    import public_data

    data = getattr(public_data, name)(real)
    correct = load(name).predict(data.x_test, batch_size=256, verbose=0).argmax(1) == data.y_test
    keras_result = recorded(name)["keras"]
    assert keras_result["samples"] == len(correct)
    assert keras_result["score"] == pytest.approx(np.mean(correct), abs=1e-3)


@pytest.mark.usefixtures("modules")
def test_the_page_of_results_is_up_to_date():
    from click.testing import CliRunner

    import results

    ended = CliRunner().invoke(results.main, ["--check"])
    assert ended.exit_code == 0, ended.output
