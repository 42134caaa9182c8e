"""A function as a runner."""

import numpy as np
import pytest
from artifacts import X, Y, samples

from edgeattn.errors import ArtifactError
from edgeattn.runners import Runner
from edgeattn.runners.function import FunctionRunner


def test_it_has_the_interface_of_a_runner():
    runner: Runner = FunctionRunner(lambda tensors: {"score": tensors["x"][:, :2]}, (X,), (Y,))
    assert runner.runtime == "function"
    np.testing.assert_array_equal(runner.run({"x": samples()})["score"], samples()[:, :2])
    runner.close()


def test_it_returns_only_the_outputs_of_the_specs_as_arrays():
    runner = FunctionRunner(lambda _: {"score": [[1, 2]], "more": 3}, (X,), (Y,))
    got = runner.run({"x": samples(1)})
    assert list(got) == ["score"]
    assert isinstance(got["score"], np.ndarray)


def test_a_missing_output():
    runner = FunctionRunner(lambda _: {}, (X,), (Y,))
    with pytest.raises(ArtifactError, match="no output 'score'"):
        runner.run({"x": samples()})
