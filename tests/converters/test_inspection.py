"""``edgeattn inspect`` on Keras files, artifacts and bundles."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest

import models
from edgeattn_converters import ModelSource, inspection
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model
from edgeattn_converters.tracing.trace import interface_of

ROOT = Path(__file__).parents[2]


def command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edgeattn", "inspect", *map(str, arguments)],
        capture_output=True,
        text=True,
    )


def test_keras_file(tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    models.filled(models.gru_bahdanau_masked()).save(path)
    document = inspection.inspect(ModelSource(path))
    assert (document["kind"], document["loads"]) == ("keras-zip", True)
    assert document["inputs"] == [{"name": "tokens", "shape": [None, 11], "dtype": "float32"}]
    assert document["outputs"] == [{"name": "answer", "shape": [None, 1], "dtype": "float32"}]
    # 17*5 + 2*(3*(5*3 + 3*3) + 2*9) + (2*6*6 + 6) + 12*7 + 7*1+1
    assert document["parameters"] == 85 + 2 * (72 + 18) + 78 + 84 + 8
    assert [item["class"] for item in document["layers"] if item["name"] == "look"] == ["Attention"]
    assert document["attention"] == ["look"]
    assert document["attended"] == {"look": {"keys": ["tokens"], "queries": ["tokens"]}}
    assert len(document["recurrent"]) == 2
    assert any("masks" in item for item in document["meets"])
    assert document["converts"] == {"tflite": "yes", "onnx": "yes"}
    assert document["next"] == f"edgeattn convert {path}"


UNUSED = """
import keras

class Reader(keras.layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.look = keras.layers.Attention(name="look")
        self.unused = keras.layers.MultiHeadAttention(2, 3, name="unused")
        self.read = keras.layers.Bidirectional(keras.layers.GRU(2, name="gru"), name="read")
        self.idle = keras.layers.LSTM(2, name="idle")

    def call(self, x):
        return self.read(self.look([x, x]))
"""


@pytest.mark.long
def test_layers_that_no_call_uses_are_not_listed(tmp_path: Path) -> None:
    import keras

    (tmp_path / "own.py").write_text(UNUSED)
    names: dict[str, Any] = {"__name__": "own"}
    exec(UNUSED, names)
    x = keras.Input((None, 3), name="x")
    keras.Model(x, keras.layers.Dense(1)(names["Reader"]()(x))).save(tmp_path / "model.keras")
    source = ModelSource(tmp_path / "model.keras", custom_objects=tmp_path / "own.py")
    document = inspection.inspect(source, attempt_conversion=False)
    assert (document["loads"], document["attention"]) == (True, ["look"])
    assert sorted(document["recurrent"]) == ["backward_gru", "forward_gru"]


def test_outputs_have_the_names_of_the_bundle(tmp_path: Path) -> None:
    """Those of a signature, and those of a dictionary; not the name of the layer for each."""
    import keras

    x = keras.Input((5, 3), name="x")
    mean = keras.layers.GlobalAveragePooling1D()(x)
    outputs = {name: keras.layers.Dense(2)(mean) for name in ("later", "earlier")}
    model = keras.Model(x, outputs)
    model.save(tmp_path / "model.keras")
    model.export(tmp_path / "exported", verbose=False)
    for path in (tmp_path / "model.keras", tmp_path / "exported"):
        document = inspection.inspect(ModelSource(path), attempt_conversion=False)
        interface = interface_of(load_model(audit_file(path)).model)
        names = [item["name"] for item in document["outputs"]]
        assert names == [spec.name for spec in interface.outputs]
        assert set(names) == {"earlier", "later"}


def test_an_operation_that_a_format_lacks(tmp_path: Path) -> None:
    import keras

    # Inverses of up to 32 rows are written out.
    inputs = keras.Input((33, 33), name="x")
    inverse = keras.ops.inv(inputs + 99 * keras.ops.eye(33))
    model = models.filled(keras.Model(inputs, keras.layers.Dense(2)(inverse)))
    model.save(tmp_path / "model.keras")
    document = inspection.inspect(ModelSource(tmp_path / "model.keras"))
    assert "MatrixInverse" in document["converts"]["tflite"]
    assert "MatrixInverse" in document["converts"]["onnx"]
    assert "MatrixInverse (operation 'inv" in document["converts"]["tflite"]
    assert document["next"] == "Express MatrixInverse with other operations."


@pytest.mark.parametrize(
    ("tflite", "onnx", "expected"),
    [
        ("yes", "yes", "edgeattn convert m.h5"),
        ("yes", "no operator", "edgeattn convert m.h5 --format tflite"),
        ("no operator", "yes", "edgeattn convert m.h5 --format onnx"),
        ("no operator", "no operator", "Use another. Or none."),
    ],
)
def test_next_step_is_a_command_that_can_succeed(tflite: str, onnx: str, expected: str) -> None:
    hints = ["Use another.", "Or none.", "Use another."]
    converts = {"tflite": tflite, "onnx": onnx}
    assert inspection._next_step(ModelSource("m.h5"), "", converts, hints) == expected


def test_command_of_a_model_that_does_not_convert() -> None:
    from edgeattn.cli.inspect import _keras_lines

    texts = dict.fromkeys(("file", "kind", "keras_version", "sha256"), "text")
    empty: dict[str, Any] = {
        name: []
        for name in ("inputs", "outputs", "layers", "attention", "attention_doubtful", "notes",
                     "custom_classes", "meets")
    }  # fmt: skip
    model = {**texts, **empty, "bytes": 3, "parameters": 3, "loads": True, "attended": {}}
    model["converts"] = {"tflite": "no", "onnx": "no"}
    assert list(_keras_lines({**model, "next": "Use others."}))[-1] == "Use others."
    assert list(_keras_lines({**model, "next": None}))[-1] == "converts to onnx: no"


def test_outputs_with_another_number_of_rows(tmp_path: Path) -> None:
    """Like ``convert``, which computes them for its reference."""
    import keras

    inputs = keras.Input((6, 8), name="x")
    model = keras.Model(inputs, keras.ops.reshape(keras.layers.Dense(4)(inputs), (-1, 4)))
    model.save(tmp_path / "model.keras")
    document = inspection.inspect(ModelSource(tmp_path / "model.keras"))
    converts = document["converts"]
    assert set(converts) == {"tflite", "onnx"}
    assert "has 6 rows for each sample, one sample after the other" in document["next"]
    assert "keras.ops.reshape(model.outputs[0], (-1, 6, 4))" in document["next"]
    for reason in converts.values():
        assert "24 rows for 4 samples: its first axis is not that of the samples" in reason


@pytest.mark.long
def test_layers_of_nested_models(tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    models.filled(models.nested()).save(path)
    names = [item["name"] for item in inspection.inspect(ModelSource(path))["layers"]]
    assert any(name.endswith("/look") for name in names)


def test_a_free_axis(tmp_path: Path) -> None:
    import keras

    inputs = keras.Input((None, 3), name="sensor")
    model = models.filled(keras.Model(inputs, keras.layers.LSTM(2)(inputs)))
    model.save(tmp_path / "model.keras")
    document = inspection.inspect(ModelSource(tmp_path / "model.keras"))
    assert document["inputs"][0]["shape"] == [None, None, 3]
    assert document["next"].endswith("model.keras --time-steps N")


@pytest.mark.parametrize(
    ("shapes", "options"),
    [
        ({"text": (None, 3), "chars": (None, 2), "date": (4,)}, "--time-steps text=N,chars=N"),
        ({"image": (None, None, 3), "date": (4,)}, "--input-shape image=HxWx3"),
        (
            {"image": (8, None, 3), "text": (None, 2)},
            "--input-shape image=8xWx3 --input-shape text=Nx2",
        ),
    ],
)
def test_the_next_command_has_the_free_axes_of_each_input(
    tmp_path: Path, shapes: dict[str, Any], options: str
) -> None:
    import keras

    inputs = [keras.Input(shape, name=name) for name, shape in shapes.items()]
    parts = [keras.layers.Dense(2)(x) for x in inputs]
    keras.Model(inputs, parts).save(tmp_path / "model.keras")
    document = inspection.inspect(ModelSource(tmp_path / "model.keras"))
    assert document["next"].endswith(f"model.keras {options}")
    assert any(options in line for line in document["meets"])


@pytest.mark.long
def test_command_on_a_keras_file() -> None:
    done = command(ROOT / "sample_models" / "digits" / "model.h5")
    assert done.returncode == 0, done.stderr
    assert "attention: attention (keys and queries from input_layer)" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("next: edgeattn convert ")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from edgeattn_converters import convert

    folder = tmp_path_factory.mktemp("inspected")
    models.filled(models.lstm_luong()).save(folder / "model.h5")
    return convert(folder / "model.h5").bundle


def test_artifacts_and_bundle(bundle: Any) -> None:
    for artifact in bundle.manifest.artifacts:
        if artifact.scheme != "float32":
            continue
        done = command(bundle.artifact_path(artifact), "--json")
        assert done.returncode == 0, done.stderr
        document = json.loads(done.stdout)
        assert document["kind"] == artifact.format
        assert [item["name"] for item in document["inputs"]] == ["sensor"]
        assert [item["name"] for item in document["outputs"]] == ["answer", "attention/look"]
        dtypes = {item["dtype"] for item in (*document["inputs"], *document["outputs"])}
        assert dtypes == {"float32"}
        assert document["operators"] == artifact.achieved["operators"]
    done = command(bundle.path, "--json")
    assert json.loads(done.stdout)["kind"] == "bundle"


@pytest.mark.parametrize(
    ("content", "code"), [(b"", 3), (b"some text\n", 3), (b"\0\0\0\0TFL3 and no more", 3)]
)
def test_bad_files(content: bytes, code: int, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    done = command(tmp_path / "file")
    assert (done.returncode, done.stdout) == (code, "")
    assert "Traceback" not in done.stderr


def test_no_such_file(tmp_path: Path) -> None:
    assert command(tmp_path / "nothing").returncode == 2


def test_next_command_has_the_options_that_loading_needed(tmp_path: Path) -> None:
    import keras

    script = tmp_path / "my model.py"
    script.write_text(
        "import keras\n\ndef build():\n"
        "    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])\n"
    )
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    path = tmp_path / "m.weights.h5"
    model.save_weights(path)
    source = ModelSource(path, architecture=f"{script}:build")
    document = inspection.inspect(source, attempt_conversion=False)
    assert shlex.split(document["next"]) == [
        "edgeattn", "convert", str(path), "--architecture", f"{script}:build",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"custom_objects": "own layers.py"},
        {"custom_objects": "own.py", "trust": "ab" * 32},
        {"architecture": "the model.json"},
        {"architecture": "model.py:build", "custom_objects": "own.py"},
    ],
)
def test_next_command_is_one_that_convert_accepts(options: dict[str, str], tmp_path: Path) -> None:
    from edgeattn.cli.convert import command as convert
    from edgeattn.cli.main import cli

    path = tmp_path / "my model.h5"
    words = shlex.split(ModelSource(path, **options).command("convert"))
    assert words[:3] == ["edgeattn", "convert", str(path)]
    outermost = click.Context(cli, **cli.context_settings)
    loading = convert.make_context("convert", words[2:], parent=outermost).params
    assert str(loading["model"]) == str(path)
    for name in ("custom_objects", "architecture", "trust"):
        assert str(loading[name]) == str(options.get(name))


def test_file_that_cannot_be_loaded(tmp_path: Path, edgeattn: Any) -> None:
    import keras

    path = tmp_path / "m.weights.h5"
    keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]).save_weights(path)
    done = edgeattn("inspect", path)
    assert done.code == 3
    assert "contains weights only" in done.out
