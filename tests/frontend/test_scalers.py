"""Scalers of scikit-learn as TOML: the steps compute what the scalers compute."""

import numpy as np
import pytest

from edgeattn.errors import OutputError, UsageError
from edgeattn.frontend.answers import Answers
from edgeattn.frontend.description import from_toml
from edgeattn.frontend.scalers import write_preprocessing

preprocessing = pytest.importorskip("sklearn.preprocessing")
DATA = np.random.default_rng(3).normal([1, 50, -3, 7], [0.1, 20, 1, 0], (30, 4))
SCALERS = {
    "standard": preprocessing.StandardScaler(),
    "mean only": preprocessing.StandardScaler(with_std=False),
    "deviation only": preprocessing.StandardScaler(with_mean=False),
    "range": preprocessing.MinMaxScaler((-1, 2)),
    "clipped": preprocessing.MinMaxScaler(clip=True),
}


@pytest.mark.parametrize("name", SCALERS)
def test_the_steps_of_a_scaler(name, tmp_path):
    scaler = SCALERS[name].fit(DATA)
    write_preprocessing(tmp_path / "a.toml", {"sensor 1": scaler})
    front_end = from_toml(tmp_path / "a.toml")
    rows = np.vstack([DATA, DATA.max(0) + 5])
    actual = [front_end.prepare("sensor 1", row) for row in rows]
    np.testing.assert_allclose(actual, scaler.transform(rows), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in SCALERS if name != "clipped"])
def test_the_inverse_of_a_target_scaler(name, tmp_path):
    scaler = SCALERS[name].fit(DATA)
    write_preprocessing(tmp_path / "a.toml", {}, target=scaler)
    answers = Answers(from_toml(tmp_path / "a.toml").answer)
    scaled = scaler.transform(DATA)
    actual = [answers({"amount": row})["value"] for row in scaled]
    np.testing.assert_allclose(actual, scaler.inverse_transform(scaled), rtol=1e-9)


@pytest.mark.parametrize(
    ("scaler", "message"),
    [
        (preprocessing.RobustScaler(), "RobustScaler is not a StandardScaler"),
        (preprocessing.StandardScaler(), "StandardScaler is not fitted"),
        (preprocessing.MinMaxScaler(), "MinMaxScaler is not fitted"),
        (preprocessing.StandardScaler().fit([[0.0], [1e-9]]), "divides by 5.0e-10"),
    ],
)
def test_an_object_that_has_no_steps(scaler, message, tmp_path):
    with pytest.raises(UsageError, match=message):
        write_preprocessing(tmp_path / "a.toml", {"x": scaler})
    assert not list(tmp_path.iterdir())


def test_an_existing_file_is_kept(tmp_path):
    (tmp_path / "a.toml").write_text("mine")
    scaler = SCALERS["range"].fit(DATA)
    with pytest.raises(OutputError):
        write_preprocessing(tmp_path / "a.toml", {"x": scaler})
    assert (tmp_path / "a.toml").read_text() == "mine"
    write_preprocessing(tmp_path / "a.toml", {"x": scaler}, force=True)
    assert from_toml(tmp_path / "a.toml").inputs
