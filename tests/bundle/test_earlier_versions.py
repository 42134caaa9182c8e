"""A bundle that version 0.1.0.dev0 wrote opens and validates as it did there."""

import json
import shutil
from pathlib import Path

import pytest

from edgeattn.bundle.bundle import Bundle
from edgeattn.validation.validate import validate_isolated

SPECIMENS = Path(__file__).parents[1] / "specimens"
EARLIER = SPECIMENS / "bundle-0.1.0.dev0"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("earlier") / "model.edge"
    shutil.copytree(EARLIER, folder)
    return Bundle.open(folder)


def test_it_opens(bundle):
    assert len(bundle.manifest.artifacts) == 10
    assert {item.scheme for item in bundle.manifest.artifacts} == {
        *("float32", "float16", "dynamic_int8", "int8", "int16x8")
    }
    arrays = bundle.reference()
    assert {len(array) for array in arrays.values()} == {18}


def test_it_validates_as_before(bundle):
    before = json.loads((SPECIMENS / "bundle-0.1.0.dev0.json").read_text())
    now = validate_isolated(bundle, bundle.manifest.artifacts).to_json()
    assert now["verdict"] == before["verdict"]
    for old, new in zip(before["artifacts"], now["artifacts"], strict=True):
        assert [new[key] for key in ("format", "scheme", "verdict")] == [
            old[key] for key in ("format", "scheme", "verdict")
        ]
        values = {(c["stage"], c["output"], c["metric"]): c for c in new["checks"]}
        for stage, output, metric, value, limit, passed in old["checks"]:
            check = values[stage, output, metric]
            assert (check["limit"], check["passed"]) == (limit, passed), (stage, output, metric)
            # Another processor may round otherwise. On some of them, onnxruntime's sums of int8
            # products saturated when the file was recorded: now they are exact.
            if metric == "max_abs_error" and old["format"] == "onnx":
                assert check["value"] <= 1.5 * value + 1e-6
            elif metric == "max_abs_error":
                assert check["value"] == pytest.approx(value, rel=0.5, abs=1e-6)
