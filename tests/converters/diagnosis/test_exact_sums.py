"""Diagnosis of files that onnxruntime cannot load with exact sums of int8 products."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from artifacts import X, Y, dense, samples, write_dense_onnx

from edgeattn_converters.diagnosis.onnx import InstrumentedONNX


def test_such_files_are_diagnosed_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the runner runs them. Which files these are depends on the processor."""
    session = onnxruntime.InferenceSession

    def open_session(content: bytes, options: Any, **arguments: Any) -> Any:
        if options.get_session_config_entry("session.x64quantprecision") == "1":
            raise RuntimeError("Attempt to replace the existing tensor")
        return session(content, options, **arguments)

    monkeypatch.setattr(onnxruntime, "InferenceSession", open_session)
    write_dense_onnx(tmp_path / "m.onnx")
    instrumented = InstrumentedONNX(tmp_path / "m.onnx", (X,), (Y,))
    score = instrumented.tensor_values({"x": samples(3)})["score"]
    np.testing.assert_array_equal(score, dense(samples(3)))
