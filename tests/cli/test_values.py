"""Values of options that are wrong: what is wrong with them, and what may have been meant."""

import numpy as np
import pytest
from artifacts import samples

import edgeattn as package


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["validate", "b", "--format", "onx"], "'onx' is not one of"),
        (["validate", "b", "--format", "onx"], "Did you mean onnx?"),
        (["convert", "m", "--scheme", "flot16"], "Did you mean float16?"),
        (["convert", "m", "--target", "litrt"], "Did you mean litert?"),
        (["convert", "m", "--lowering", "unroled"], "Did you mean unrolled?"),
        (["bench", "b", "--runs", "1.5"], "'--runs': '1.5' is not an integer."),
        (["bench", "b", "--threads", "two"], "'--threads': 'two' is not an integer."),
        (["bench", "b", "--threads", "0"], "'--threads': 0 is not in the range x>=1."),
        (["bench", "b", "--seconds", "nan"], "'--seconds': 'nan' is not a finite number."),
        (["bench", "b", "--sustained", "inf"], "'--sustained': 'inf' is not a finite number."),
        (["validate", "b", "--max-drop", "nan"], "'--max-drop': 'nan' is not a finite number."),
        (["validate", "b", "--max-drop", "2%"], "'--max-drop': '2%' is not a number."),
        (["validate", "b", "--max-drop", "2"], "'--max-drop': 2.0 is not in the range 0<x<1."),
        (["run", "b", "--input", "x", "--memory", "inf"], "'inf' is not a finite number."),
        (["serve", "b", "--max-size", "inf"], "'inf' is not a finite number."),
        (["serve", "b", "--timeout", "-inf"], "'-inf' is not a finite number."),
        (["convert", "m", "--time-steps", "9,11"], "For several lengths of the same input, repeat"),
        # An empty path was the current folder.
        (["convert", ""], "Invalid value for 'MODEL': the path is empty."),
        (["convert", "m", "-o", ""], "the path is empty."),
        (["validate", ""], "Invalid value for 'BUNDLE': the path is empty."),
        (["run", "b", "--input", "s.npz", "-o", ""], "the path is empty."),
        (["inspect", ""], "the path is empty."),
        (["nspect", "b"], "Did you mean 'inspect'?"),
        (["inspect", "b", "--custom-object", "x"], "Did you mean '--custom-objects'?"),
    ],
)
def test_wrong_values(edgeattn, arguments, message):
    result = edgeattn(*arguments)
    assert (result.code, result.out) == (2, "")
    assert message in result.err


def test_a_distant_value_has_no_suggestion(edgeattn):
    assert "Did you mean" not in edgeattn("validate", "b", "--format", "gguf").err


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["sign", "x.npy", "--key", "k"], "x.npy is a file of samples", "edgeattn run BUNDLE"),
        (["run", "dense.edge", "--input", "y.npy"], "No such file of samples: y.npy", "Pass an "),
        (
            ["run", "dense.edge", "--input", "n.txt"],
            "n.txt is not a file of samples",
            "numpy.savez",
        ),
        (["validate", "dense.edge", "--data", "n.txt"], "n.txt is not a file", "numpy.savez"),
        (["validate", "dense.edge", "--scheme", "int8"], "no artifact for int8", "Select one"),
        (["doctor", "--python", "p"], "require USER@HOST", "Add the host"),
    ],
)
def test_errors_name_the_next_step(edgeattn, dense_bundle, tmp_path, arguments, message, hint):
    np.save(tmp_path / "x.npy", samples())
    (tmp_path / "n.txt").write_text("hello")
    result = edgeattn(*arguments)
    assert result.code == 2
    error, following = result.err.splitlines()
    assert error.startswith("Error: ")
    assert message in error
    assert hint in following


def test_not_a_number_in_python(dense_bundle):
    """NaN is neither smaller nor larger than a limit, so that a comparison would accept it."""
    nan = float("nan")
    for argument in ("seconds", "sustained", "runs"):
        with pytest.raises(package.UsageError, match=f"{argument} is nan"):
            package.bench(dense_bundle, **{argument: nan})
    with pytest.raises(package.UsageError, match="seconds is nan"):
        package.deploy(dense_bundle, "pi@host", seconds=nan)
    with pytest.raises(package.UsageError, match="max_drop is nan"):
        package.validate(dense_bundle, max_drop=nan, data=(samples(), np.zeros(7)))
