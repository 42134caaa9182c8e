"""Linear algebra of small matrices in both formats, compared with LAPACK (NumPy and SciPy)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops
from long_parameters import only

from edgeattn.errors import EdgeattnError
from edgeattn.runners import open_runner
from edgeattn_converters.formats import onnx, tflite
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of

CONVERTERS = {"tflite": tflite, "onnx": onnx}
GENERATOR = np.random.default_rng(8)


def _matrices() -> np.ndarray:
    """Matrices of a batch of one, most of which cannot be factored without exchanging rows."""
    random = GENERATOR.normal(size=(4, 4))
    zero_first = random.copy()
    zero_first[0, 0] = zero_first[1, 1] = 0
    small_first = random.copy()
    small_first[0, 0] = 1e-6
    ties = np.array([[1, 2, 0, 1], [-1, 1, 1, 3], [1, 0, 2, 0], [1, 1, -2, 0]])
    scaled = random * [[1e-3], [1], [1e3], [1]]
    permutation = np.eye(4)[[2, 0, 3, 1]]
    return np.array(
        [[random, zero_first, small_first, ties, scaled, permutation, np.eye(4)]], "float32"
    )


def _singular() -> np.ndarray:
    """Matrices whose determinants are 0 exactly: pivots at the end, in the middle, everywhere."""
    last = np.array([[2, 1, 0], [4, 3, 1], [2, 2, 1]])
    middle = np.array([[1, 0, 3], [0, 0, 2], [0, 0, 1]])
    return np.array([[last, middle, np.zeros((3, 3))]], "float32")


MATRICES, SINGULAR = _matrices(), _singular()
RIGHT = GENERATOR.normal(size=(1, 7, 4, 2)).astype("float32")
POSITIVE = (MATRICES @ np.swapaxes(MATRICES, -1, -2) + np.eye(4)).astype("float32")
TALL = GENERATOR.normal(size=(1, 2, 5, 3)).astype("float32")
TALL[0, 1, :, 0] = [2, 0, 0, 0, 0]  # below the diagonal, it is zero already
WIDE = np.ascontiguousarray(np.swapaxes(TALL, -1, -2))
INPUTS: Mapping[str, np.ndarray] = {
    "matrices": MATRICES,
    "singular": SINGULAR,
    "right": RIGHT,
    "positive": POSITIVE,
    "tall": TALL,
    "wide": WIDE,
}


def _triangular(**options: Any) -> Callable[..., Any]:
    return lambda i: tf.linalg.triangular_solve(i["positive"], i["right"], **options)


def _solved(triangle: Callable[[np.ndarray], np.ndarray], *, adjoint: bool = False) -> np.ndarray:
    matrix = triangle(POSITIVE.astype(np.float64))
    return np.linalg.solve(np.swapaxes(matrix, -1, -2) if adjoint else matrix, RIGHT)


def _factored(part: int) -> np.ndarray:
    """The compact factors, or the order of rows, of partial pivoting, row by row."""
    results = []
    for matrix in MATRICES[0].astype(np.float64):
        factors, order = matrix.copy(), np.arange(4)
        for k in range(3):
            pivot = k + int(np.argmax(np.abs(factors[k:, k])))
            factors[[k, pivot]], order[[k, pivot]] = factors[[pivot, k]], order[[pivot, k]]
            factors[k + 1 :, k] /= factors[k, k]
            factors[k + 1 :, k + 1 :] -= np.outer(factors[k + 1 :, k], factors[k, k + 1 :])
        results.append((factors, order)[part])
    return np.array([results])


def _qr(matrix: np.ndarray, mode: Any, part: int) -> np.ndarray:
    return np.array([[np.linalg.qr(item.astype(np.float64), mode)[part] for item in matrix[0]]])


Case = tuple[Callable[..., Any], Callable[[], Any]]
CASES: Mapping[str, Case] = {
    "inverse": (lambda i: ops.inv(i["matrices"]), lambda: np.linalg.inv(MATRICES)),
    "solve": (
        lambda i: ops.solve(i["matrices"], i["right"]),
        lambda: np.linalg.solve(MATRICES, RIGHT),
    ),
    "solve_transposed": (
        lambda i: tf.linalg.solve(i["matrices"], i["right"], adjoint=True),
        lambda: np.linalg.solve(np.swapaxes(MATRICES, -1, -2), RIGHT),
    ),
    "determinant": (lambda i: ops.det(i["matrices"]), lambda: np.linalg.det(MATRICES)),
    "determinant_zero": (lambda i: ops.det(i["singular"]), lambda: np.zeros((1, 3))),
    "sign": (lambda i: ops.slogdet(i["matrices"])[0], lambda: np.linalg.slogdet(MATRICES)[0]),
    "logarithm": (lambda i: ops.slogdet(i["matrices"])[1], lambda: np.linalg.slogdet(MATRICES)[1]),
    "sign_zero": (lambda i: ops.slogdet(i["singular"])[0], lambda: np.zeros((1, 3))),
    "logarithm_zero": (lambda i: ops.slogdet(i["singular"])[1], lambda: np.full((1, 3), -np.inf)),
    "cholesky": (lambda i: ops.cholesky(i["positive"]), lambda: np.linalg.cholesky(POSITIVE)),
    "cholesky_of_lower": (
        lambda i: ops.cholesky(ops.tril(i["positive"])),
        lambda: np.linalg.cholesky(POSITIVE),
    ),
    "lower": (_triangular(), lambda: _solved(np.tril)),
    "upper": (_triangular(lower=False), lambda: _solved(np.triu)),
    "lower_transposed": (_triangular(adjoint=True), lambda: _solved(np.tril, adjoint=True)),
    "upper_transposed": (
        _triangular(lower=False, adjoint=True),
        lambda: _solved(np.triu, adjoint=True),
    ),
    "factors": (lambda i: tf.linalg.lu(i["matrices"])[0], lambda: _factored(0)),
    "order": (lambda i: tf.linalg.lu(i["matrices"])[1], lambda: _factored(1)),
    **{
        f"{name}_{part}_{mode}": (
            lambda i, name=name, mode=mode, part=part: ops.qr(i[name], mode)["qr".index(part)],
            lambda name=name, mode=mode, part=part: _qr(INPUTS[name], mode, "qr".index(part)),
        )
        for name in ("tall", "wide", "matrices")
        for mode in ("reduced", "complete")
        for part in "qr"
    },
}


# Those of the quick tests: of every input and every kind of algorithm.
QUICK = (
    *("inverse", "solve_transposed", "determinant_zero", "sign", "logarithm", "cholesky", "lower"),
    *("upper_transposed", "factors", "order", "tall_q_reduced", "wide_r_complete"),
)


class Function(keras.layers.Layer):
    """A function of the inputs as a layer."""

    def __init__(self, function: Callable[..., Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.function = function

    def call(self, inputs: Any) -> Any:
        return self.function(inputs)


# One conversion of all operations takes several seconds: for ONNX among the long tests.
@pytest.fixture(scope="module", params=["tflite", pytest.param("onnx", marks=pytest.mark.long)])
def actual(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Mapping[str, Any]:
    """The outputs of a file with all operations, or with those of the quick tests."""
    format = request.param
    tested = {
        item.callspec.params["name"]
        for item in request.session.items
        if isinstance(item, pytest.Function) and item.originalname == "test_results_as_in_lapack"
    }
    names = QUICK if tested <= set(QUICK) else tuple(CASES)
    inputs = {name: keras.Input(value.shape[1:], name=name) for name, value in INPUTS.items()}
    model = keras.Model(inputs, {name: Function(CASES[name][0])(inputs) for name in names})
    path = tmp_path_factory.mktemp("matrices") / f"model.{format}"
    file = CONVERTERS[format].convert(model, interface_of(model), recipe_for("float32"), path)
    return open_runner(path, format, file.inputs, file.outputs).run(dict(INPUTS))


@pytest.mark.parametrize("name", only(CASES, *QUICK))
def test_results_as_in_lapack(name: str, actual: Mapping[str, Any]) -> None:
    expected = np.asarray(CASES[name][1]())
    np.testing.assert_allclose(actual[name], expected, rtol=2e-3, atol=1e-4)


@pytest.mark.parametrize("format", CONVERTERS)
def test_large_matrices_are_refused(format: str, tmp_path: Path) -> None:
    inputs = keras.Input((40, 40))
    model = keras.Model(inputs, ops.inv(inputs))
    with pytest.raises(EdgeattnError, match="MatrixInverse"):
        CONVERTERS[format].convert(
            model, interface_of(model), recipe_for("float32"), tmp_path / "m"
        )
