"""Float32 files with attention maps are converted once if their outputs are those of Keras."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import attentive
import models
from edgeattn.errors import ConversionError
from edgeattn_converters.formats import ConvertedFile, tflite, tflite_float
from edgeattn_converters.options import ConversionOptions, ModelSource, QuantizationOptions
from edgeattn_converters.worker import tasks

OPTIONS = ConversionOptions(formats=("tflite",), schemes=("float32",))


@dataclass
class Conversions:
    """Converts to TFLite, with the weights of ``with_maps`` if the file has maps."""

    original: Any
    with_maps: Any = None
    attention: list[bool] = field(default_factory=list)

    def __call__(self, model: Any, *args: Any, **kwargs: Any) -> ConvertedFile:
        has_maps = kwargs["options"].attention
        self.attention.append(has_maps)
        weights = model.get_weights()
        if has_maps and self.with_maps is not None:
            model.set_weights(self.with_maps.get_weights())
        try:
            file: ConvertedFile = self.original(model, *args, **kwargs)
        finally:
            model.set_weights(weights)
        return file


def artifact_of(folder: Path, model: Path, reference: dict[str, Any]) -> dict[str, Any]:
    return tasks.write_artifact(
        ModelSource(model).to_json(),
        OPTIONS.to_json(),
        QuantizationOptions().to_json(),
        str(folder),
        "tflite",
        "float32",
        reference,
    )


def test_a_conversion_without_maps_is_made_if_outputs_are_not_those_of_keras(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, path = models.filled(attentive.scored()), tmp_path / "scored.keras"
    model.save(path)
    reference = tasks.write_reference(ModelSource(path).to_json(), OPTIONS.to_json(), str(tmp_path))
    conversions = Conversions(tflite.convert)
    monkeypatch.setattr(tflite, "convert", conversions)
    entry = artifact_of(tmp_path, path, reference)
    assert entry["attention"] == ["attention/weights"]
    assert entry["achieved"]["difference_by_maps"] <= 1e-5
    assert conversions.attention == [True]

    tflite_float.float_file.cache_clear()
    # A file whose outputs maps do change.
    conversions.with_maps = models.filled(attentive.scored(), scale=0.4)
    with pytest.raises(ConversionError, match="Exporting attention maps changes output"):
        artifact_of(tmp_path, path, reference)
    assert conversions.attention == [True, True, False]
