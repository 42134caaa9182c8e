"""Recognition of Lambda layers in the bytecode of every Python version, without running it.

``lambdas.json`` contains the marshalled code of each function from Python 2.7 to 3.13;
``specimens/make_lambdas.py`` creates whole models with Lambda layers.
"""

from __future__ import annotations

import base64
import dis
import json
import marshal
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from edgeattn.errors import UnsafeModelError
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.lambdas import (
    bytecode,
    expressions,
    marshal_reader,
    recognition,
)
from edgeattn_converters.loading.lambdas.expressions import NotRecognizedError
from edgeattn_converters.loading.safety import config_screening

STORED = json.loads((Path(__file__).parent / "lambdas.json").read_text())

# The same functions in NumPy, for inputs of shape (batch 2, time 7, features 5).
NUMPY_FUNCTIONS: dict[str, Callable[[Any], Any]] = {
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


def recognized(source: str, python: str) -> dict[str, Any]:
    code, defaults = STORED[python][source]
    return bytecode.recognize(base64.b64decode(code), defaults=tuple(defaults), arguments={})


@pytest.mark.parametrize("python", sorted(STORED))
@pytest.mark.parametrize("source", sorted(NUMPY_FUNCTIONS))
def test_functions_are_recognized_in_every_python_version(source: str, python: str) -> None:
    from edgeattn_converters.loading.lambdas.keras_operations import evaluate

    x = np.random.default_rng(0).normal(size=(2, 7, 5)).astype("float32")
    computed = np.asarray(evaluate(recognized(source, python), x))
    np.testing.assert_allclose(computed, NUMPY_FUNCTIONS[source](x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("python", sorted(STORED))
def test_lists_of_tensors_and_single_axes(python: str) -> None:
    from edgeattn_converters.loading.lambdas.keras_operations import evaluate

    a, b = np.arange(6.0).reshape(2, 3), np.ones((2, 3))
    stacked = evaluate(recognized("lambda x: K.stack([x[0], x[1]], axis=1)", python), [a, b])
    assert np.asarray(stacked).shape == (2, 2, 3)
    squeezed = evaluate(recognized("lambda x: K.squeeze(x, 2)", python), a.reshape(2, 3, 1))
    np.testing.assert_array_equal(np.asarray(squeezed), a)


def config_of(function: Any, **more: Any) -> dict[str, Any]:
    """Return the config of a Lambda as Keras 2 stores it, with code of this Python version."""
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
def test_other_code_is_not_recognized(source: str) -> None:
    with pytest.raises(NotRecognizedError):
        recognition.recognize(config_of(from_source(source)))


@pytest.mark.parametrize(
    "source",
    [
        "f = lambda x: x.unknown(1, 2)",
        "f = lambda x: open(x)",
        "f = lambda x: [y for y in x if y]",
        "def f(x):\n    for y in x:\n        print(y)\n    return x",
        "def f(x):\n    import os\n    return os.environ[x]",
    ],
)
def test_reason_of_a_single_python_version(source: str) -> None:
    """Its bytes could be those of several versions, of which one wrote them."""
    with pytest.raises(NotRecognizedError) as error:
        recognition.recognize(config_of(from_source(source)))
    assert str(error.value).count("Python 3") == 1


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
@pytest.mark.parametrize("source", ["lambda x: open(x)", "lambda x: [y for y in x if y]"])
def test_refusal_of_a_file_has_one_reason(source: str, suffix: str, tmp_path: Path) -> None:
    """Three versions of Python would each have another complaint about the same bytes."""
    import keras

    layer = keras.layers.Lambda(eval(source), output_shape=(3,), name="odd")
    inputs = keras.Input((3,))
    model = keras.Model(inputs, keras.layers.Dense(2)(inputs))
    path = tmp_path / f"model{suffix}"
    config = model.get_config()
    lambda_config = keras.saving.serialize_keras_object(layer)
    dense = config["layers"][1]
    config["layers"][1] = {**lambda_config, "name": "odd", "inbound_nodes": dense["inbound_nodes"]}
    config["output_layers"] = ["odd", 0, 0]
    stored = {**keras.saving.serialize_keras_object(model), "config": config}
    model.save(path)
    if suffix == ".h5":
        with h5py.File(path, "a") as file:
            file.attrs["model_config"] = json.dumps(stored)
    else:
        content = {}
        with zipfile.ZipFile(path) as archive:
            content = {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in {**content, "config.json": json.dumps(stored).encode()}.items():
                archive.writestr(name, data)
    with pytest.raises(UnsafeModelError, match="odd") as error:
        audit_file(path)
    assert str(error.value).count("Python 3") == 1


def test_function_of_several_lines_is_recognized() -> None:
    source = "def f(x):\n    last = x[:, -1]\n    return tf.concat([last, last], axis=-1)"
    expression = recognition.recognize(config_of(from_source(source)))
    assert expressions.describe(expression) == "concat((x[:, -1], x[:, -1]), -1)"


def test_arguments_and_closures_are_read_from_the_file() -> None:
    expression = recognition.recognize(
        config_of(from_source("f = lambda x, axis: K.sum(x, axis)"), arguments={"axis": 2})
    )
    assert expressions.describe(expression) == "sum(x, 2, False)"
    outer = from_source("def f(n):\n    return lambda x: x[:, n:]")(4)
    config = config_of(outer)
    config["function"][2] = [4]
    assert expressions.describe(recognition.recognize(config)) == "x[:, 4:]"


def test_code_as_keras_1_and_keras_3_store_it() -> None:
    code = config_of(from_source("f = lambda x: x[:, 0]"))["function"][0]
    modern = {
        "class_name": "__lambda__",
        "config": {"code": code, "defaults": None, "closure": None},
    }
    assert expressions.describe(recognition.recognize({"function": modern})) == "x[:, 0]"
    raw = base64.b64decode(STORED["2.7"]["lambda x: x[:, -1, :]"][0]).decode("latin-1")
    old = {"function": raw, "function_type": "lambda"}
    assert expressions.describe(recognition.recognize(old)) == "x[:, -1, :]"


def test_damaged_code_never_crashes_the_reader() -> None:
    """Code that is cut at any byte, or has a replaced byte, is read or refused."""
    generator = np.random.default_rng(0)
    for python in STORED:
        data = base64.b64decode(STORED[python]["lambda x: K.mean(x, axis=1)"][0])
        damaged = [data[:length] for length in range(len(data))]
        for _ in range(200):
            mutated = bytearray(data)
            mutated[generator.integers(len(data))] = generator.integers(256)
            damaged.append(bytes(mutated))
        for code in damaged:
            try:
                marshal_reader.read(code)
                bytecode.recognize(code, arguments={})
            except (marshal_reader.UnreadableCodeError, NotRecognizedError):
                continue


@pytest.mark.parametrize(
    "statement",
    ["x = x + x", "x = x * x", "x = K.concatenate([x, x])", "y = x - x; x = y / y", "x = x[:, 1]"],
)
def test_code_that_repeats_operations_without_end(statement: str) -> None:
    """Each assignment doubles the operations, or there are more than a function of a layer has."""
    repeated = f"    {statement}\n" * (200 if "[:" in statement else 40)
    function = from_source(f"def f(x):\n{repeated}    return x")
    with pytest.raises(NotRecognizedError, match=r"without end|has \d+ instructions"):
        recognition.recognize(config_of(function))
    few = from_source(f"def f(x):\n    {statement}\n    {statement}\n    return x")
    recognition.recognize(config_of(few))


@pytest.mark.parametrize("argument", [101, 2**16, 2**31, 2**32 - 1])
def test_code_that_unpacks_without_end(argument: int) -> None:
    """The instructions unpack a tensor into up to four billion values."""
    extended, unpack = dis.opmap["EXTENDED_ARG"], dis.opmap["UNPACK_SEQUENCE"]
    parts = argument.to_bytes(4, "big")
    instructions = b"".join(bytes([extended, part]) for part in parts[:3])
    instructions += bytes([unpack, parts[3]]) + bytes(2)  # and one entry of its cache
    load, back = dis.opmap["LOAD_FAST"], dis.opmap["RETURN_VALUE"]
    code = (lambda x: x).__code__.replace(
        co_code=bytes([dis.opmap["RESUME"], 0, load, 0]) + instructions + bytes([back, 0])
    )
    with pytest.raises(NotRecognizedError, match=f"it unpacks {argument} values"):
        bytecode.recognize(marshal.dumps(code), arguments={})


def test_oversized_code_is_refused() -> None:
    for data in (b")\x01" * 10_000, b"(\xff\xff\xff\x7f", b"\xe3" + bytes(70_000)):
        with pytest.raises(marshal_reader.UnreadableCodeError):
            marshal_reader.read(data)


def screened(*layers: Any, trusted: bool = False) -> None:
    items = [{"class_name": "Lambda", "config": layer} for layer in layers]
    config = {"class_name": "Sequential", "config": {"name": "m", "layers": items}}
    trust = recognition.CodeTrust("0" * 64, trusted)
    config_screening.screen(config, hint="", trusted=trusted, code=trust)


def test_refusal_names_the_layer_and_the_option_to_pass(tmp_path: Path) -> None:
    canary = tmp_path / "ran"
    source = f"f = lambda x: open({os.fspath(canary)!r}, 'w')"
    config = {**config_of(from_source(source)), "name": "odd one"}
    with pytest.raises(UnsafeModelError, match="Refused at 'odd one'") as refused:
        screened(config)
    assert "odd_one(x)" in str(refused.value)
    assert f"--custom-objects FILE.py --trust {'0' * 64}" in str(refused.value)
    screened(config, trusted=True)
    assert not canary.exists()


def test_all_unknown_layers_are_named() -> None:
    """The function of ``lambda``, the first name that Keras gives, cannot have that name."""
    sources = {"lambda": "sorted(x)", "lambda_1": "x + 1", "2nd": "sorted(x)", "far>off": "repr(x)"}
    configs = [
        {**config_of(from_source(f"f = lambda x: {code}")), "name": name}
        for name, code in sources.items()
    ]
    with pytest.raises(UnsafeModelError) as refused:
        screened(*configs)
    assert "Refused at 'lambda', '2nd' and 'far>off': the Lambda layers" in refused.value.message
    assert "Define lambda_(x), layer_2nd(x) and far_off(x) in" in str(refused.value.hint)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("def f(x, n):\n    for i in range(n):\n        x = x + i\n    return x", "it has a loop"),
        ("def f(x, n):\n    return x[0] if n else x", "it has branches"),
        ("def f(x, n):\n    return (lambda y: y)(x)", "it defines another function"),
        ("def f(x, n):\n    return sum([x[i] * n for i in (0, 1)])", "it defines another function"),
    ],
)
def test_refusal_says_what_the_code_has_and_names_arguments(source: str, reason: str) -> None:
    """Keras passes the stored arguments to the function that replaces the code, too."""
    config = {**config_of(from_source(source)), "name": "odd", "arguments": {"n": 2}}
    with pytest.raises(UnsafeModelError, match=rf"Python 3\S+: {reason}") as refused:
        screened(config)
    assert "Define odd(x, n) in" in str(refused.value.hint)
