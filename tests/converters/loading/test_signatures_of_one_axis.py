"""Signatures whose inputs have one axis, that of the samples, or of the steps of one waveform."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import edgeattn
from edgeattn.errors import EdgeattnError, SampleError, UnsupportedModelError, UsageError

STEP = "save the model with an axis of samples before it: tf.TensorSpec((None, N), tf.float32)"


class Waves(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([None], name="wave")])
    def spectrogram(self, wave: Any) -> Any:
        return {"spectrogram": tf.abs(tf.signal.stft(wave, 64, 32, pad_end=True))}

    @tf.function(input_signature=[tf.TensorSpec([None], name="wave")])
    def double(self, wave: Any) -> Any:
        return {"y": 2 * wave[:, None]}


def folder(path: Path, name: str) -> Path:
    module = Waves()
    tf.saved_model.save(module, path / "m", signatures=getattr(module, name))
    return path / "m"


Shape = tuple[int, ...] | None
CASES: list[tuple[dict[str, Any], Shape, type[EdgeattnError]]] = [
    ({}, None, UnsupportedModelError),
    ({}, (256,), UnsupportedModelError),
    ({"time_steps": 256}, (8, 256), UsageError),
    ({"input_shapes": {"wave": (256,)}}, (8, 256), UsageError),
    ({"time_steps": {"wave": 256}}, None, UsageError),
]


@pytest.mark.parametrize(("options", "shape", "kind"), CASES)
def test_every_error_says_what_the_axis_is(
    options: dict[str, Any],
    shape: tuple[int, ...] | None,
    kind: type[EdgeattnError],
    tmp_path: Path,
) -> None:
    if shape is not None:
        np.savez(tmp_path / "x.npz", wave=np.zeros(shape, "float32"))
        options = {**options, "samples": tmp_path / "x.npz"}
    with pytest.raises(kind) as caught:
        edgeattn.convert(
            folder(tmp_path, "spectrogram"), tmp_path / "o.edge", schemes="float32", **options
        )
    assert "The only axis of 'wave' is taken as that of the samples" in str(caught.value.hint)
    assert STEP in str(caught.value.hint)


def test_sequences_as_samples_of_numbers(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", wave=np.zeros((8, 256), "float32"))
    with pytest.raises(SampleError, match=r"expected the shape \(samples\), found") as caught:
        edgeattn.convert(
            folder(tmp_path, "double"), tmp_path / "o.edge", samples=tmp_path / "x.npz"
        )
    assert "save the model with an axis of samples" in str(caught.value.hint)


def test_samples_that_are_numbers_convert(tmp_path: Path) -> None:
    result = edgeattn.convert(folder(tmp_path, "double"), tmp_path / "o.edge", schemes="float32")
    assert {report.verdict for report in result.report.artifacts} == {"pass"}
