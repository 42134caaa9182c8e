"""A slice of the corpus: what ``make corpus`` measures, for a few models in some schemes.

Every file loads as the model that was saved, and every artifact computes what Keras computes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from long_parameters import only

from . import page, routes
from .case import Case
from .outputs import Expected
from .reasons import INEXACT_MODELS, REFUSALS
from .results import PATH, append_result, read_results, write_results
from .run import all_cases, missing_schemes, retained

SLICE = {
    "layers/SimpleRNN masked": ("float32", "dynamic_int8"),
    "layers/MultiHeadAttention value_dim": ("float32", "float16"),
    "layers/Conv2D same strides": ("float32", "int8"),
    "layers/dictionaries of inputs and outputs": ("float32",),
    "reported/text transformer": ("float32",),
    "reported/seq2seq step": ("float32",),
    "tensorflow/x + y, 1 - x, x ** 2, -x": ("float32",),
    "operations/constant minus transpose": ("float32",),
    "published/two columns of words": ("float32",),
}
CASES = {case.name: case for case in all_cases()}


@pytest.mark.parametrize("name", only(SLICE, *list(SLICE)[1:3], *list(SLICE)[6:8]))
def test_every_file_and_artifact_is_right(name: str) -> None:
    with routes.in_this_process():
        results = routes.convert_case(CASES[name], SLICE[name])
    assert len(results["artifacts"]) == 2 * len(SLICE[name])
    statuses = {**results["files"], **results["artifacts"]}
    assert {label: status for label, status in statuses.items() if status[0] != "right"} == {}


def test_a_wrong_output_is_reported() -> None:
    """The comparison of the corpus itself detects a model that computes something else."""
    import keras

    case = CASES["layers/Dense of a vector"]
    expected = routes._expected(case, case.model(keras))
    right = expected.outputs[0]
    assert expected.difference([right]) is None
    assert "differs by 0.5" in str(expected.difference([right + np.float32(0.5)]))
    assert "dB" in str(expected.difference([right * 1.5], "int8"))
    assert "not finite" in str(expected.difference([right * np.nan]))


@pytest.mark.parametrize(("others", "reason"), [(2, None), (6, "another class in 6 of 36 rows")])
def test_one_hot_outputs_are_compared_by_classes(others: int, reason: str | None) -> None:
    """The exact lower limit of 2 of 36 is 0.7%, that of 6 is 6.4%; int8 may change 2%."""
    rows = np.eye(4, dtype=np.float32)[np.arange(36) % 4].reshape(6, 6, 4)
    actual = rows.copy().reshape(36, 4)
    actual[:others] = actual[1 : others + 1]
    difference = Expected([], [rows], {}).difference([actual], "int8")
    assert difference is None if reason is None else reason in str(difference)


def test_names_are_unique() -> None:
    names = [case.name for case in all_cases()]
    assert len(names) == len(set(names)) > 150


def _result(name: str, status: str) -> dict[str, Any]:
    return {
        "name": name,
        "files": {"keras .keras": ["right"], "tf_keras .h5": ["-", "not built"]},
        "artifacts": {"tflite float32": [status, "a reason"], "onnx float32": ["right"]},
        "stock": {"tflite": ["right"], "onnx": ["refused", "no"]},
    }


def test_the_last_result_of_a_model_counts(tmp_path: Path) -> None:
    """A stopped run resumes, and a model that is converted again replaces its result."""
    file = tmp_path / "results.jsonl"
    assert read_results(file) == {}
    first, second, other = _result("b", "wrong"), _result("b", "refused"), _result("a", "inexact")
    for result in (first, second, other):
        append_result(file, result)
    assert read_results(file) == {"b": second, "a": other}
    write_results(file, read_results(file), ["a", "b", "c"])
    assert len(file.read_text("utf-8").splitlines()) == 2
    assert list(read_results(file).values()) == [other, second]


def test_the_page_has_the_tables_of_the_results() -> None:
    text = page.PAGE.read_text("utf-8")
    assert text == page.with_tables(text, PATH), "run: cd tests && python -m corpus.page"


def test_a_refusal_without_a_known_reason_is_an_error() -> None:
    """A new refusal, or a new inexact file, must be looked at before it is on the page."""
    for status, match in (("refused", "0 reasons"), ("inexact", "no reason why")):
        with pytest.raises(ValueError, match=match):
            list(page._tables([_result("layers/x", status)], 1))


def test_models_on_which_a_stock_route_is_ahead_are_named() -> None:
    """The goal is that there are none; those that remain are on the page."""
    refused = _result("operations/a, b", "refused")
    text = "".join(page._behind([_result("layers/x", "right"), refused]))
    assert "for: a, b (TFLite). " in text
    assert "x (" not in text
    assert list(page._behind([_result("layers/x", "right")])) == []


def test_every_reason_explains_a_result() -> None:
    results = read_results(PATH)
    inexact = {
        name
        for name, item in results.items()
        if any(status == "inexact" for status, *_ in item["artifacts"].values())
    }
    assert set(INEXACT_MODELS) == inexact
    refusals = {
        page._reason(name, reason[0])
        for name, item in results.items()
        for status, *reason in item["artifacts"].values()
        if status == "refused"
    }
    assert set(REFUSALS) == refusals


def test_only_schemes_without_results_are_converted() -> None:
    case = CASES["layers/Dense of a vector"]
    assert missing_schemes(case, {}) == case.schemes
    known = {"artifacts": dict.fromkeys(["tflite float32", "onnx float32", "tflite int8"])}
    missing = tuple(scheme for scheme in case.schemes if scheme != "float32")
    assert missing_schemes(case, known) == missing
    assert missing_schemes(case, known, ["float32", "int8"]) == ("int8",)


def test_schemes_that_are_not_measured_again_keep_their_results() -> None:
    known = {
        **_result("b", "right"),
        "artifacts": {"tflite float32": ["wrong", "1"], "tflite int8": ["right"]},
    }
    kept = retained(known, ["float32"])
    assert kept == {**known, "artifacts": {"tflite int8": ["right"]}}
    assert retained(known, []) == retained({}, ["float32"]) == {}


def test_a_row_shows_the_status_of_each_route() -> None:
    result = {
        "name": "layers/LSTM",
        "files": {"keras .keras": ["right"]},
        "artifacts": {"tflite int8": ["wrong", "verdict pass, but output 0 differs by 1"]},
        "stock": {"tflite": ["refused", "no"], "onnx": ["right"]},
    }
    labels = ("keras .keras", "tflite int8", "onnx int8", "stock tflite", "stock onnx")
    statuses = [page.status(result, label) for label in labels]
    assert statuses == ["right", "wrong", "-", "refused", "right"]


def test_cases_are_built_by_the_kerases_that_have_them() -> None:
    case = Case("layers/none", lambda keras: None, keras=False)
    assert case.kerases() == ("tf_keras",)
