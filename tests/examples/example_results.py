"""Where the examples are, and the checks of their results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent.parent
EXAMPLES = ROOT / "examples"


def read_result(folder: Path, samples: int) -> Any:
    """``result.json`` of a complete run, checked."""
    result = json.loads((folder / "result.json").read_text())
    assert {(item["format"], item["scheme"]) for item in result["artifacts"]} == {
        (format, scheme) for format in ("tflite", "onnx") for scheme in ("float32", "int8")
    }
    assert result["failures"] == []
    assert result["keras"]["samples"] == samples
    for item in result["artifacts"]:
        if item["scheme"] == "float32":
            assert item["stages"]["numbers"] == item["stages"]["attention"] == "pass"
            assert item["score"] == pytest.approx(result["keras"]["score"], abs=1e-6)
            assert item["attention"]["max_abs_error"] <= 1e-5
        else:
            assert item["weights"]["type"] == "int8"
            assert item["operators"]["total"] > 0
        assert item["bytes"] > 0
        assert item["latency_ratio"] > 0
    assert (folder / "report.html").stat().st_size > 1000
    return result
