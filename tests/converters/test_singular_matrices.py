"""Made-up rows whose matrices are singular to rounding are left out, and faults still fail."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from corpus.routes import in_this_process
from keras import ops

from edgeattn.cli.conversion import conversion_lines
from edgeattn_converters import convert
from edgeattn_converters.options import ConversionOptions, ModelSource
from edgeattn_converters.reference.edge_cases import InputProperties
from edgeattn_converters.reference.keras_outputs import keras_function
from edgeattn_converters.reference.singular_matrices import changed_matrices, uses_matrices
from edgeattn_converters.reference.unmoved_rows import Changes
from edgeattn_converters.reference.usable_rows import UsableRows, usable_rows
from edgeattn_converters.tracing.trace import interface_of

STEPS, FEATURES = 6, 3


def moments(h: Any) -> Any:
    """The second moments of the features."""
    return ops.matmul(ops.transpose(h, (0, 2, 1)), h) / STEPS


def least_squares(h: Any) -> Any:
    """The coefficients of the last feature, from the normal equations."""
    known, right = h[:, :, : FEATURES - 1], h[:, :, FEATURES - 1 :]
    products = ops.matmul(ops.transpose(known, (0, 2, 1)), h[:, :, : FEATURES - 1])
    return ops.solve(products, ops.matmul(ops.transpose(known, (0, 2, 1)), right))


# Each has no defined result for a matrix of rank 1, whose rows are all alike.
SINGULAR: dict[str, Callable[[Any], Any]] = {
    "inverse": lambda h: ops.inv(moments(h)),
    "inverse in a loop": lambda h: ops.map(ops.inv, moments(h)),
    "solution": lambda h: ops.solve(moments(h), ops.transpose(h, (0, 2, 1))),
    "least squares": least_squares,
    "factors Q and R": lambda h: ops.qr(h)[0],
    "singular vectors": lambda h: ops.svd(h)[0],
    "eigenvectors": lambda h: ops.eigh(moments(h))[1],
    "logarithmic determinant": lambda h: ops.logdet(moments(h)),
    "triangular solution": lambda h: ops.solve_triangular(
        ops.qr(h)[1], ops.ones_like(h[:, :FEATURES, :1])
    ),
}


def rows_of(function: Callable[[Any], Any], *, real: bool = True) -> UsableRows:
    """The rows of two samples and two extremes: zeros, and a sample that is scaled.

    A dense layer with the identity and a bias computes the bias in each step of zeros.
    """
    generator = np.random.default_rng(5)
    orthogonal = np.linalg.qr(generator.normal(size=(2, STEPS, FEATURES)))[0]
    samples = (orthogonal * [3.0, 2.0, 1.0] * 2).astype("float32")
    x = np.concatenate([samples, np.zeros_like(samples[:1]), 3 * samples[:1]])
    inputs = keras.Input((STEPS, FEATURES), name="x")
    dense = keras.layers.Dense(FEATURES)
    hidden = dense(inputs)
    dense.set_weights([np.eye(FEATURES), np.array([0.1, 0.07, 0.03])])
    model = keras.Model(inputs, keras.layers.Identity(name="y")(function(hidden)))
    interface = interface_of(model)
    run = keras_function(model, interface, attention=False)
    assert uses_matrices(run.traced.function)
    changes = Changes(matrices=changed_matrices(model, interface, attention=False))
    values = run({"x": x})
    properties = InputProperties({}, {})
    return usable_rows(run, {"x": x}, values, (2, 2), properties, real=real, changes=changes)


@pytest.mark.parametrize("name", SINGULAR)
def test_extremes_with_singular_matrices_are_left_out(name: str) -> None:
    rows = rows_of(SINGULAR[name])
    np.testing.assert_array_equal(rows.all, [0, 1, 3])
    # Keras itself computes infinity or raises for some of these matrices.
    assert rows.not_finite + rows.unstable == 1
    assert rows.unstable_matrices == rows.unstable


@pytest.mark.parametrize("name", ["inverse", "factors Q and R", "singular vectors"])
def test_they_are_counted(name: str) -> None:
    """Keras has finite results for these."""
    assert rows_of(SINGULAR[name]).unstable_matrices == 1


def test_real_samples_are_compared_whatever_their_matrices_are() -> None:
    """Of samples whose own matrices have rank 1, none is left out."""

    def flat(h: Any) -> Any:
        return ops.qr(0.0 * h + ops.mean(h, axis=1, keepdims=True))[0]

    rows = rows_of(flat)
    np.testing.assert_array_equal(rows.samples, [0, 1])


@pytest.mark.parametrize("real", [True, False])
def test_regular_and_constant_matrices_are_no_reason_to_leave_a_row_out(real: bool) -> None:
    """With a ridge no row is singular; a constant matrix is as singular for each row."""
    almost = np.eye(FEATURES, dtype="float32")
    almost[0, 1] = almost[1, 0] = 1 - 1e-4

    def both(h: Any) -> Any:
        ridge = ops.inv(moments(h) + 2.0 * ops.eye(FEATURES))
        constant = ops.solve(ops.convert_to_tensor(almost)[None] * ops.ones((1, 1, 1)), h[:1, :3])
        return ridge + 0.0 * ops.sum(constant)

    rows = rows_of(both, real=real)
    assert (len(rows.all), rows.unstable, rows.unstable_matrices) == (4, 0, 0)


def test_models_without_matrices_are_not_traced_again() -> None:
    inputs = keras.Input((STEPS, FEATURES), name="x")
    model = keras.Model(inputs, moments(inputs))
    run = keras_function(model, interface_of(model), attention=False)
    assert not uses_matrices(run.traced.function)


RIGHT: dict[str, Callable[[Any], Any]] = {
    "Q and R": lambda h: list(ops.qr(h)),
    "inverse": lambda h: ops.inv(moments(h)),
}


@pytest.mark.long
@pytest.mark.parametrize("name", RIGHT)
def test_right_files_pass(tmp_path: Path, name: str) -> None:
    source = _saved(tmp_path, RIGHT[name])
    result = convert(source, options=ConversionOptions(schemes=["float32"]))
    assert [item.verdict for item in result.report.artifacts] == ["pass"] * 2
    text = "\n".join(conversion_lines(result, verbose=False))
    assert "when a matrix that is inverted or factored changes in its last digit" in text


@pytest.mark.long
def test_a_transposed_operand_fails(tmp_path: Path, edgeattn: Callable[..., Any]) -> None:
    """The file of one model is compared with a model that inverts the transposed matrix."""

    def inverse(h: Any) -> Any:
        return keras.layers.Identity(name="y")(ops.inv(h[:, :FEATURES]))

    def of_transposed(h: Any) -> Any:
        return keras.layers.Identity(name="y")(ops.inv(ops.transpose(h[:, :FEATURES], (0, 2, 1))))

    bundle = tmp_path / "model.edge"
    options = ConversionOptions(schemes=["float32"], formats=["onnx"])
    source = _saved(tmp_path, inverse)
    assert convert(source, bundle, options=options).exit_code == 0
    (tmp_path / "other").mkdir()
    other = _saved(tmp_path / "other", of_transposed)
    (file,) = bundle.glob("*.onnx")
    for model, code in ((source, 0), (other, 1)):
        for data in ([], ["--data", model.samples]):
            with in_this_process():
                result = edgeattn("validate", file, "--model", model.path, *data)
            assert result.code == code, result.out + result.err


def _saved(folder: Path, function: Callable[[Any], Any]) -> ModelSource:
    """The same weights and samples for each ``function``."""
    generator = np.random.default_rng(3)
    inputs = keras.Input((STEPS, FEATURES), name="x")
    model = keras.Model(inputs, function(keras.layers.Dense(FEATURES)(inputs)))
    for weight in model.weights:
        weight.assign(generator.normal(size=weight.shape))
    model.save(folder / "model.keras")
    np.save(folder / "x.npy", generator.normal(size=(64, STEPS, FEATURES)).astype("float32"))
    return ModelSource(folder / "model.keras", samples=folder / "x.npy")
