"""Lambda layers: read in the bytecode of every Python, computed right, and never run.

``lambdas.json`` holds the marshalled code of each function as every Python from 2.7 to 3.13 wrote
it; ``specimens/make_lambdas.py`` makes whole models of that kind.
"""

from __future__ import annotations

import base64
import json
import marshal
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeattn.errors import UnsafeModelError
from edgeattn_converters.loading.lambdas import bytecode, expressions
from edgeattn_converters.loading.lambdas import marshal_reader as marshalled
from edgeattn_converters.loading.lambdas import recognition as lambdas
from edgeattn_converters.loading.lambdas.expressions import NotRecognisedError

STORED = json.loads((Path(__file__).parent / "lambdas.json").read_text())

# Written by hand; the batch is 2, time 7, features 5.
MEANINGS: dict[str, Callable[[Any], Any]] = {
    "lambda x: x[:, -1, :]": lambda x: x[:, 6],
    "lambda x: K.mean(x, axis=1)": lambda x: x.sum(axis=1) / 7,
    "lambda x: K.expand_dims(x)": lambda x: x.reshape(2, 7, 5, 1),
    "lambda x: tf.reduce_sum(x, 1, keepdims=True)": lambda x: x.sum(axis=1).reshape(2, 1, 5),
    "lambda x: x * 2.0 + 1.0": lambda x: x + x + 1,
    "lambda x: x[:, 2:5]": lambda x: x[:, [2, 3, 4]],
    "lambda x: tf.nn.softmax(x, axis=1)": lambda x: (
        np.exp(x) / np.exp(x).sum(axis=1).reshape(2, 1, 5)
    ),
    "lambda x: K.reshape(x, (-1, 5, 7))": lambda x: x.reshape(2, 5, 7),
    "lambda x: x[:, ::-1]": lambda x: x[:, [6, 5, 4, 3, 2, 1, 0]],
    "lambda x, n=3: x[:, n]": lambda x: x[:, 3],
    "lambda x: K.permute_dimensions(x, (0, 2, 1)) / 2": lambda x: np.swapaxes(x, 1, 2) * 0.5,
    "lambda x: -K.abs(x - K.max(x, axis=-1, keepdims=True))": lambda x: (
        x - x.max(axis=2).reshape(2, 7, 1)
    ),
}


def recognised(source: str, python: str) -> dict[str, Any]:
    code, defaults = STORED[python][source]
    return bytecode.recognise(
        base64.b64decode(code), defaults=tuple(defaults), closure=(), given={}
    )


@pytest.mark.parametrize("python", sorted(STORED))
@pytest.mark.parametrize("source", sorted(MEANINGS))
def test_recognised_in_every_python_and_computed(source: str, python: str) -> None:
    from edgeattn_converters.loading.lambdas.keras_operations import evaluate

    x = np.random.default_rng(0).normal(size=(2, 7, 5)).astype("float32")
    computed = np.asarray(evaluate(recognised(source, python), x))
    np.testing.assert_allclose(computed, MEANINGS[source](x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("python", sorted(STORED))
def test_lists_of_tensors_and_axes_of_one(python: str) -> None:
    from edgeattn_converters.loading.lambdas.keras_operations import evaluate

    a, b = np.arange(6.0).reshape(2, 3), np.ones((2, 3))
    stacked = evaluate(recognised("lambda x: K.stack([x[0], x[1]], axis=1)", python), [a, b])
    assert np.asarray(stacked).shape == (2, 2, 3)
    squeezed = evaluate(recognised("lambda x: K.squeeze(x, 2)", python), a.reshape(2, 3, 1))
    np.testing.assert_array_equal(np.asarray(squeezed), a)


def config_of(function: Any, **more: Any) -> dict[str, Any]:
    """A Lambda's config as Keras 2 writes it, of this very Python."""
    code = base64.b64encode(marshal.dumps(function.__code__)).decode()
    return {"name": "it", "function": [code, None, None], "function_type": "lambda", **more}


def from_source(source: str) -> Any:
    names: dict[str, Any] = {}
    exec(source, names)
    return names["f"]


@pytest.mark.parametrize(
    "source",
    [
        "f = lambda x: __import__('os').system('true')",
        "f = lambda x: open('/etc/passwd')",
        "f = lambda x: [y for y in x]",
        "f = lambda x: x if x.sum() > 0 else -x",
        "f = lambda x: x.numpy()",
        "f = lambda x: helper(x)",
        "f = lambda x: K.function([x], [x])",
        "f = lambda x: tf.io.read_file(x)",
        "f = lambda x: (lambda y: y)(x)",
        "f = lambda x: tf.py_function(x, [x], 'float32')",
        "f = lambda x: x * SCALE",
        "def f(x):\n    global g\n    g = x\n    return x",
        "def f(x):\n    while True:\n        pass",
        "def f():\n    return 1",
    ],
)
def test_anything_else_is_not_recognised(source: str) -> None:
    with pytest.raises(NotRecognisedError):
        lambdas.recognise(config_of(from_source(source)))


def test_a_function_of_several_lines_is_followed() -> None:
    source = "def f(x):\n    last = x[:, -1]\n    return tf.concat([last, last], axis=-1)"
    found = lambdas.recognise(config_of(from_source(source)))
    assert expressions.describe(found) == "concatenate((x[:, -1], x[:, -1]), -1)"


def test_arguments_and_closures_are_values_of_the_file() -> None:
    given = lambdas.recognise(
        config_of(from_source("f = lambda x, axis: K.sum(x, axis)"), arguments={"axis": 2})
    )
    assert expressions.describe(given) == "sum(x, 2, False)"
    outer = from_source("def f(n):\n    return lambda x: x[:, n:]")(4)
    config = config_of(outer)
    config["function"][2] = [4]
    assert expressions.describe(lambdas.recognise(config)) == "x[:, 4:]"


def test_keras_3_and_keras_1_keep_the_code_otherwise() -> None:
    code = config_of(from_source("f = lambda x: x[:, 0]"))["function"][0]
    modern = {
        "class_name": "__lambda__",
        "config": {"code": code, "defaults": None, "closure": None},
    }
    assert expressions.describe(lambdas.recognise({"function": modern})) == "x[:, 0]"
    raw = base64.b64decode(STORED["2.7"]["lambda x: x[:, -1, :]"][0]).decode("latin-1")
    old = {"function": raw, "function_type": "lambda"}
    assert expressions.describe(lambdas.recognise(old)) == "x[:, -1, :]"


def test_bytes_of_any_kind_never_crash_the_reader() -> None:
    """Cut anywhere, or with any byte replaced, code is read or refused."""
    generator = np.random.default_rng(0)
    for python in STORED:
        data = base64.b64decode(STORED[python]["lambda x: K.mean(x, axis=1)"][0])
        changed = [data[:length] for length in range(len(data))]
        for _ in range(200):
            mutated = bytearray(data)
            mutated[generator.integers(len(data))] = generator.integers(256)
            changed.append(bytes(mutated))
        for bad in changed:
            try:
                marshalled.read(bad)
                bytecode.recognise(bad, defaults=(), closure=(), given={})
            except (marshalled.UnreadableCodeError, NotRecognisedError):
                continue


def test_nested_and_endless_code_is_cut_off() -> None:
    for data in (b")\x01" * 10_000, b"(\xff\xff\xff\x7f", b"\xe3" + bytes(70_000)):
        with pytest.raises(marshalled.UnreadableCodeError):
            marshalled.read(data)


def test_a_refusal_names_the_layer_and_says_what_to_do(tmp_path: Path) -> None:
    canary = tmp_path / "ran"
    source = f"f = lambda x: open({os.fspath(canary)!r}, 'w')"
    config = config_of(from_source(source))
    with pytest.raises(UnsafeModelError, match="refused at 'odd one'") as refused:
        lambdas.check("odd one", config, trusted=False)
    assert "odd_one(x)" in str(refused.value)
    assert "--custom-objects" in str(refused.value)
    lambdas.check("odd one", config, trusted=True)
    assert not canary.exists()
