"""The structure stage counts in the file; nothing in the manifest replaces it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import artifacts
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from artifacts import X, Y, edit_manifest, rehash
from long_parameters import only
from onnx import TensorProto, helper

from edgeattn.bundle.bundle import Bundle
from edgeattn.bundle.manifest import Artifact
from edgeattn.errors import RuntimeUnavailableError
from edgeattn.file_structure.read import read_contents
from edgeattn.inspection import inspect_bundle
from edgeattn.metrics.verdict import FAIL, NOT_RUN, PASS
from edgeattn.report.check_descriptions import CHECKS, describe
from edgeattn.tensors import TensorSpec
from edgeattn.validation.structure import structure_checks
from edgeattn.validation.validate import validate, validate_isolated

EARLIER = Path(__file__).parents[1] / "specimens" / "bundle-0.1.0.dev0"
WIDTH = 32  # kernels of WIDTH x WIDTH have more values than the converters leave unquantized
WIDE = TensorSpec("x", (1, WIDTH), "float32")
WIDE_OUTPUT = TensorSpec("y", (1, WIDTH), "float32")


def failures(path: Path, artifact: Artifact, *maps: str) -> dict[str, str | None]:
    checks = structure_checks(path, artifact, maps)
    return {check.metric: check.detail for check in checks if check.passed is False}


def values(path: Path, artifact: Artifact) -> dict[str, tuple[float, float | None]]:
    return {check.metric: (check.value, check.limit) for check in structure_checks(path, artifact)}


def write_tflite_product(path: Path, dtype: str) -> None:
    """``y = x @ kernel`` with a kernel that is stored as ``dtype``."""
    model = artifacts.TFLite()
    x, y = model.tensor("x", (1, WIDTH)), model.tensor("y", (1, WIDTH))
    kinds = {"float32": "FLOAT32", "float16": "FLOAT16", "dynamic_int8": "INT8"}
    stored = np.ones((WIDTH, WIDTH), np.int8 if dtype == "dynamic_int8" else dtype)
    kind = getattr(schema.TensorType, kinds[dtype])
    quantization = (0.5, 0) if dtype == "dynamic_int8" else None
    kernel = model.tensor("k", stored.shape, value=stored, kind=kind, quantization=quantization)
    if dtype == "float16":
        decoded = model.tensor("k32", stored.shape)
        model.operator(schema.BuiltinOperator.DEQUANTIZE, (kernel,), (decoded,))
        kernel = decoded
    model.operator(schema.BuiltinOperator.FULLY_CONNECTED, (x, kernel, -1), (y,))
    model.save(path, (x,), (y,))


def write_onnx_product(path: Path, dtype: str) -> None:
    stored = np.ones((WIDTH, WIDTH), np.int8 if dtype == "dynamic_int8" else dtype)
    constants = {"k": stored, "scale": np.array(0.5, np.float32), "zero": np.array(0, np.int8)}
    node = helper.make_node
    nodes = {
        "float32": [node("MatMul", ["x", "k"], ["y"])],
        "float16": [
            node("Cast", ["k"], ["k32"], to=TensorProto.FLOAT),
            node("MatMul", ["x", "k32"], ["y"]),
        ],
        "dynamic_int8": [
            node("DequantizeLinear", ["k", "scale", "zero"], ["k32"]),
            node("MatMul", ["x", "k32"], ["y"]),
        ],
    }[dtype]
    tensor = helper.make_tensor_value_info
    artifacts.save_onnx(
        path,
        nodes,
        [tensor("x", TensorProto.FLOAT, [1, WIDTH])],
        [tensor("y", TensorProto.FLOAT, [1, WIDTH])],
        constants,
    )


@pytest.mark.parametrize("format", ["tflite", "onnx"])
@pytest.mark.parametrize("scheme", ["float16", "dynamic_int8", "int8", "int16x8", "int4"])
@pytest.mark.parametrize("stored", ["float32", "float16", "dynamic_int8"])
def test_weights_must_have_the_type_of_the_scheme(
    tmp_path: Path, format: str, scheme: str, stored: str
) -> None:
    path = tmp_path / f"m.{format}"
    {"tflite": write_tflite_product, "onnx": write_onnx_product}[format](path, stored)
    entry = artifacts.artifact(path, scheme=scheme, inputs=(WIDE,), outputs=(WIDE_OUTPUT,))
    wanted = {"float16": "float16", "int4": "int4"}.get(scheme, "int8")
    right = {"dynamic_int8": "int8"}.get(stored, stored) == wanted
    expected = set() if right else {"weights_in_scheme"}
    if scheme in ("int8", "int16x8"):  # no operator of these files computes in integers
        expected.add("operators_in_scheme")
    assert set(failures(path, entry)) == expected
    assert values(path, entry)["weights_in_scheme"] == (float(right), 0.5)


def test_counts_of_earlier_versions_with_operators_in_float32() -> None:
    """Earlier versions counted a Tanh between conversions to int8 as int8."""
    entry = next(item for item in earlier_entries() if item["path"] == "model.int8.onnx")
    assert entry["achieved"]["computes_in"]["int8"] == {"Concat": 1, "MatMul": 2, "Tanh": 1}
    path = EARLIER / entry["path"]
    assert failures(path, Artifact.from_json(entry)) == {}
    changed = {"int8": {"Concat": 1, "MatMul": 3, "Tanh": 1}}
    achieved = {**entry["achieved"], "computes_in": changed}
    (detail,) = failures(path, Artifact.from_json({**entry, "achieved": achieved})).values()
    assert detail is not None
    assert "has 4 int8 in computes_in, the file has 3" in detail


def write_quantized_operators(path: Path) -> None:
    """A file of onnxruntime's quantizer with an operator for each integer operation (QOperator)."""
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class Samples(CalibrationDataReader):
        def __init__(self) -> None:
            rows = np.random.default_rng(1).normal(size=(4, 1, WIDTH)).astype(np.float32)
            self._rows = iter([{"x": row} for row in rows])

        def get_next(self) -> Any:
            return next(self._rows, None)

    generator = np.random.default_rng(2)
    constants = {
        name: generator.normal(size=shape).astype(np.float32)
        for name, shape in {"k": (WIDTH, WIDTH), "b": (WIDTH,), "k2": (WIDTH, WIDTH)}.items()
    }
    node = helper.make_node
    nodes = [
        node("Gemm", ["x", "k", "b"], ["h"], "gemm"),
        node("Sigmoid", ["h"], ["s"], "sigmoid"),
        node("MatMul", ["s", "k2"], ["m"], "matmul"),
        node("Add", ["m", "h"], ["a"], "add"),
        node("Tanh", ["a"], ["y"], "tanh"),
    ]
    tensor = helper.make_tensor_value_info
    inputs = [tensor("x", TensorProto.FLOAT, [1, WIDTH])]
    outputs = [tensor("y", TensorProto.FLOAT, [1, WIDTH])]
    plain = path.with_suffix(".float.onnx")
    artifacts.save_onnx(plain, nodes, inputs, outputs, constants)
    quantize_static(
        plain, path, Samples(), quant_format=QuantFormat.QOperator,
        activation_type=QuantType.QInt8, weight_type=QuantType.QInt8,
    )  # fmt: skip


def test_files_with_quantized_operators(tmp_path: Path) -> None:
    """Operators named ``QLinear`` and QGemm compute in int8, without conversions around them."""
    path = tmp_path / "m.onnx"
    write_quantized_operators(path)
    contents = read_contents(path, "onnx")
    assert contents.computes_in["int8"] == {
        "QGemm": 1, "QLinearSigmoid": 1, "QLinearMatMul": 1, "QLinearAdd": 1
    }  # fmt: skip
    assert contents.computes_in["float32"] == {"Tanh": 1}
    assert contents.scheme == "int8"
    entry = artifacts.artifact(path, scheme="int8", inputs=(WIDE,), outputs=(WIDE_OUTPUT,))
    assert failures(path, entry) == {}
    listed = {"computes_in": contents.computes_in}
    assert failures(path, replace(entry, achieved={**entry.achieved, **listed})) == {}
    fewer = {"computes_in": {"int8": {"QLinearMatMul": 1}}}
    (detail,) = failures(path, replace(entry, achieved={**entry.achieved, **fewer})).values()
    assert detail is not None
    assert "has 1 int8 in computes_in, the file has 4" in detail
    others = {
        scheme: set(failures(path, replace(entry, scheme=scheme)))
        for scheme in ("float16", "dynamic_int8", "int4")
    }
    assert others["float16"] == others["int4"] == {"weights_in_scheme"}


def test_the_limit_does_not_apply_to_small_weights(tmp_path: Path) -> None:
    artifacts.write_dense_onnx(tmp_path / "m.onnx")
    entry = artifacts.artifact(tmp_path / "m.onnx", scheme="float16")
    assert values(tmp_path / "m.onnx", entry)["weights_in_scheme"] == (0.0, None)


def test_weights_of_more_bits_on_purpose(tmp_path: Path) -> None:
    """The manifest may name float16 weights as intended, no others, and only with their number."""
    path = tmp_path / "m.tflite"
    write_tflite_product(path, "float16")
    entry = artifacts.artifact(path, scheme="dynamic_int8", inputs=(WIDE,), outputs=(WIDE_OUTPUT,))
    intended = replace(entry, achieved={"kept_weights": {"float16": WIDTH**2}})
    assert failures(path, intended) == {}
    assert set(failures(path, replace(entry, achieved={"kept_weights": {"float16": 9}}))) == {
        "manifest_differences"
    }
    write_tflite_product(path, "float32")
    floats = replace(entry, bytes=path.stat().st_size)
    for kept in ({"float32": WIDTH**2}, {"float16": 0}):
        found = failures(path, replace(floats, achieved={"kept_weights": kept}))
        assert "weights_in_scheme" in found


def test_weights_of_spectra_are_not_counted(tmp_path: Path) -> None:
    """No scheme rounds them, and the manifest has their number; other weights stay limited."""
    path = tmp_path / "m.tflite"
    write_tflite_product(path, "float32")
    entry = artifacts.artifact(path, scheme="dynamic_int8", inputs=(WIDE,), outputs=(WIDE_OUTPUT,))
    for number, limit in ((WIDTH**2, None), (WIDTH**2 - 1, 0.5)):
        of_spectra = replace(entry, achieved={"exact_weights": number})
        assert values(path, of_spectra)["weights_in_scheme"] == (0.0, limit)


# A file under the name and the account of another


def earlier_entries() -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = json.loads((EARLIER / "manifest.json").read_text())["artifacts"]
    return entries


@pytest.mark.parametrize("format", ["tflite", "onnx"])
@pytest.mark.parametrize("scheme", only(["int8", "int16x8"], "int8"))
@pytest.mark.parametrize("account", ["that of the scheme", "none"])
def test_a_float32_file_under_the_name_of_another_scheme_fails(
    tmp_path: Path, format: str, scheme: str, account: str
) -> None:
    folder = tmp_path / "model.edge"
    shutil.copytree(EARLIER, folder)
    shutil.copyfile(folder / f"model.float32.{format}", folder / f"model.{scheme}.{format}")
    rehash(folder)
    if account == "none":
        edit_manifest(folder, lambda data: [item.update(achieved={}) for item in data["artifacts"]])
    bundle = Bundle.open(folder)
    (report,) = validate_isolated(bundle, bundle.select((format,), (scheme,))).artifacts
    assert (report.verdict, report.stages["numbers"]) == (FAIL, PASS)
    metrics = {check.metric for check in report.failed}
    expected = {"operators_in_scheme"}
    assert metrics == expected | ({"manifest_differences"} if account != "none" else set())


def test_differing_counts_are_named(tmp_path: Path) -> None:
    """Every count of a manifest is compared with the file, and both numbers are reported."""
    changes: dict[str, tuple[Any, str]] = {
        "operators": ({"GATHER": 3}, "has 3 GATHER in operators, the file has 1"),
        "weights": ({"int8": 33, "float32": 149}, "has 149 float32 in weights, the file has 148"),
        "variables": (4, "has variables 4, the file has 0"),
        "cell_clips": ([0.5], "has cell_clips [0.5], the file has []"),
        "computes_in": (
            {"int8": {"TANH": 7}, "float32": {}},
            "has 7 int8 in computes_in, the file has 6",
        ),
    }
    entry = next(item for item in earlier_entries() if item["path"] == "model.int8.tflite")
    path = EARLIER / entry["path"]
    assert failures(path, Artifact.from_json(entry)) == {}
    for key, (value, message) in changes.items():
        if key == "operators":
            value = {**entry["achieved"]["operators"], **value}
        changed = {**entry, "achieved": {**entry["achieved"], key: value}}
        (detail,) = failures(path, Artifact.from_json(changed)).values()
        assert detail is not None
        assert message in detail
    opset = next(item for item in earlier_entries() if item["path"] == "model.int8.onnx")
    opset["achieved"]["opset"]["ai.onnx"] = 17
    (detail,) = failures(EARLIER / opset["path"], Artifact.from_json(opset)).values()
    assert detail == "the manifest has 17 ai.onnx in opset, the file has 18"
    size = {**entry, "bytes": entry["bytes"] - 1}
    (detail,) = failures(path, Artifact.from_json(size)).values()
    assert detail == "the manifest has 7,759 bytes, the file has 7,760"


# Inputs and outputs


@pytest.mark.parametrize("format", ["tflite", "onnx"])
@pytest.mark.parametrize(
    ("change", "detail"),
    [
        ({"outputs": (replace(Y, name="other"),)}, "the outputs other; the file has score"),
        ({"outputs": (Y, replace(Y, name="other"))}, "the outputs other, score; the file has"),
        ({"inputs": (replace(X, shape=(1, 4)),)}, "has x (1, 4) float32; the file has x ("),
        ({"inputs": (replace(X, shape=(1, 3, 1)),)}, "has x (1, 3, 1) float32; the file has x ("),
        ({"outputs": (replace(Y, dtype="float16"),)}, "2) float16; the file has score ("),
    ],
)
def test_inputs_and_outputs_must_be_those_of_the_file(
    tmp_path: Path, format: str, change: dict[str, Any], detail: str
) -> None:
    path = tmp_path / f"m.{format}"
    {"tflite": artifacts.write_dense_tflite, "onnx": artifacts.write_dense_onnx}[format](path)
    assert failures(path, artifacts.artifact(path)) == {}
    found = failures(path, artifacts.artifact(path, **change))
    assert set(found) == {"interface_differences"}
    assert detail in str(found["interface_differences"])


def test_an_output_that_the_manifest_leaves_out_fails(tmp_path: Path) -> None:
    artifacts.write_dense_onnx(tmp_path / "m.onnx", outputs=("score", "other"))
    found = failures(tmp_path / "m.onnx", artifacts.artifact(tmp_path / "m.onnx"))
    assert found == {
        "interface_differences": "the manifest has the outputs score; the file has other, score"
    }


def test_a_free_batch_axis_is_a_promise(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    artifacts.write_dense_onnx(path, batch=1)
    found = failures(path, artifacts.artifact(path))
    assert "x (?, 3) float32; the file has x (1, 3) float32" in str(found["interface_differences"])
    # The reverse is none: a file may accept more than the manifest promises.
    artifacts.write_dense_onnx(path)
    fixed = artifacts.artifact(
        path, inputs=(replace(X, shape=(1, 3)),), outputs=(replace(Y, shape=(1, 2)),)
    )
    assert failures(path, fixed) == {}


def test_scale_and_zero_point_must_be_those_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "m.tflite"
    artifacts.write_int8_tflite(path)
    right = {"inputs": (artifacts.INT8_X,), "outputs": (artifacts.INT8_Y,)}
    assert failures(path, artifacts.artifact(path, scheme="int8", **right)) == {}
    for change in ({"scale": 0.25}, {"zero_point": 0}, {"scale": None, "zero_point": None}):
        wrong = {**right, "inputs": (replace(artifacts.INT8_X, **change),)}
        found = failures(path, artifacts.artifact(path, scheme="int8", **wrong))
        assert "the file has x (1, 3) int8 with scale 0.5 and zero point -3" in str(
            found["interface_differences"]
        )


# Attention maps


def without_map(folder: Path, *, reference: bool, exported: bool | None) -> Bundle:
    """The earlier bundle whose manifest leaves out the map of the float32 ONNX file."""
    shutil.copytree(EARLIER, folder)
    maps = ("attention/attention",)

    def change(data: dict[str, Any]) -> None:
        for item in data["artifacts"]:
            if item["path"] != "model.float32.onnx":
                (folder / item["path"]).unlink()
        data["artifacts"] = [item for item in data["artifacts"] if (folder / item["path"]).exists()]
        (item,) = data["artifacts"]
        item["outputs"] = [spec for spec in item["outputs"] if spec["name"] not in maps]
        item["attention"] = []
        if exported is not None:
            data["model"]["attention_outputs"] = exported

    edit_manifest(folder, change)
    bundle = Bundle.open(folder)
    arrays = dict(bundle.reference())
    if not reference:
        del arrays[maps[0]]
        with (folder / "reference.npz").open("wb") as file:
            artifacts.write_npz(file, arrays)
        rehash(folder)
    return Bundle.open(folder)


@pytest.mark.parametrize(
    ("reference", "exported", "missing"),
    [
        (True, None, True),
        (True, True, True),
        (True, False, True),
        (False, True, True),
        # Converted with --no-attention, by this version and by an earlier one.
        (False, False, False),
        (False, None, False),
    ],
)
def test_a_map_that_the_model_has_must_be_an_output(
    tmp_path: Path, reference: bool, exported: bool | None, missing: bool
) -> None:
    bundle = without_map(tmp_path / "m.edge", reference=reference, exported=exported)
    (report,) = validate_isolated(bundle, bundle.manifest.artifacts).artifacts
    found = {check.metric: check.detail for check in report.failed}
    # The file still has the output.
    assert "interface_differences" in found
    assert found.get("missing_maps") == ("attention/attention" if missing else None)


# Files that no runtime needs to refuse


def test_a_file_can_fail_without_a_runtime(tmp_path: Path) -> None:
    bundle = artifacts.write_dense_bundle(tmp_path / "m.edge", formats=("onnx",))

    def unavailable(_: Artifact) -> Any:
        raise RuntimeUnavailableError("not installed")

    entries = bundle.manifest.artifacts
    assert validate(bundle, entries, unavailable).verdict == NOT_RUN
    wrong = replace(entries[0], scheme="int8")
    report = validate(bundle, (wrong,), unavailable)
    assert report.verdict == FAIL
    assert "operators_in_scheme" in {check.metric for check in report.artifacts[0].failed}


@pytest.mark.parametrize("format", ["tflite", "onnx"])
def test_no_part_of_a_file_passes(tmp_path: Path, format: str) -> None:
    path = tmp_path / f"m.{format}"
    {"tflite": artifacts.write_dense_tflite, "onnx": artifacts.write_dense_onnx}[format](path)
    content = path.read_bytes()
    for length in range(0, len(content.rstrip(b"\0")), 7):
        path.write_bytes(content[:length])
        found = failures(path, artifacts.artifact(path))
        assert set(found) == {"malformed_file"}
        assert f"The structure of m.{format} cannot be read" in str(found["malformed_file"])


def test_custom_operators_and_cell_clips_are_read_from_the_file(tmp_path: Path) -> None:
    path = tmp_path / "m.tflite"
    for code, options, metric in (
        (schema.BuiltinOperator.CUSTOM, None, "custom_operators"),
        (
            schema.BuiltinOperator.UNIDIRECTIONAL_SEQUENCE_LSTM,
            schema.UnidirectionalSequenceLSTMOptionsT(),
            "cell_clip",
        ),
    ):
        model = artifacts.TFLite()
        x, y = model.tensor("x", (1, WIDTH)), model.tensor("y", (1, WIDTH))
        if options is not None:
            options.cellClip = 10.0
        model.operator(code, (x,), (y,), options, 71 if options else 0)
        model._model.operatorCodes[0].customCode = None if options else "FlexErf"
        model.save(path, (x,), (y,))
        entry = artifacts.artifact(path, inputs=(WIDE,), outputs=(WIDE_OUTPUT,))
        # What the manifest says about the file changes nothing.
        clean = replace(entry, achieved={"operators": {}, "cell_clips": []})
        assert metric in failures(path, entry)
        assert metric in failures(path, clean)
    assert values(path, entry)["cell_clip"] == (10.0, 0.0)


# What people read


def test_reports_show_the_difference(tmp_path: Path, edgeattn: Any) -> None:
    bundle = artifacts.write_dense_bundle(tmp_path / "m.edge", formats=("onnx",))
    edit_manifest(
        bundle.path,
        lambda data: data["artifacts"][0].update(achieved={"weights": {"float32": 9}}),
    )
    difference = "the manifest has 9 float32 in weights, the file has 8"
    result = edgeattn("validate", bundle.path)
    assert result.code == 1
    assert difference in result.out
    checks = edgeattn("validate", bundle.path, "--json").document["artifacts"][0]["checks"]
    assert difference in [check.get("detail") for check in checks]
    edgeattn("validate", bundle.path, "--junit", "junit.xml")
    assert difference in (tmp_path / "junit.xml").read_text()


def test_every_check_has_a_title(tmp_path: Path) -> None:
    entry = next(item for item in earlier_entries() if item["path"] == "model.int8.tflite")
    checks = [
        *structure_checks(EARLIER / entry["path"], Artifact.from_json(entry)),
        *structure_checks(tmp_path / "missing.tflite", Artifact.from_json(entry)),
    ]
    for check in checks:
        assert check.metric in CHECKS
        assert describe(check)


def test_inspect_counts_in_the_files(tmp_path: Path, edgeattn: Any) -> None:
    folder = tmp_path / "model.edge"
    shutil.copytree(EARLIER, folder)

    def change(data: dict[str, Any]) -> None:
        for item in data["artifacts"]:
            item["bytes"] = 5
            item["achieved"]["weights"] = {"int8": 1_000_000}

    edit_manifest(folder, change)
    (folder / "model.int8.onnx").write_bytes(b"\xff")
    for item in inspect_bundle(folder)["artifacts"]:
        path = folder / item["path"]
        if path.name == "model.int8.onnx":
            assert "weights" not in item["achieved"]
            assert "cannot be read" in item["problem"]
            continue
        assert item["bytes"] == path.stat().st_size
        assert item["achieved"]["weights"] == read_contents(path, item["format"]).weights
    assert "The structure of model.int8.onnx cannot be read" in edgeattn("inspect", folder).out
