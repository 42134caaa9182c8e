"""A short run of the fuzzer, and files that it found; ``make fuzz`` is the long run."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest

import fuzz

COUNT = 240


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return fuzz.source_files(tmp_path_factory.mktemp("fuzz"))


def test_every_variant_opens_or_raises_an_error_of_edgeattn(
    sources: list[Path], tmp_path: Path
) -> None:
    outcomes, findings = fuzz.fuzz(sources, COUNT, seed=1, findings_folder=tmp_path / "findings")
    assert findings == []
    # The run is only meaningful if variants of every kind occurred.
    assert outcomes["opened"] > 0
    assert outcomes["UnsupportedModelError"] > 0
    assert outcomes["BundleError"] > 0


def test_variants_are_seeded(sources: list[Path], tmp_path: Path) -> None:
    source = next(path for path in sources if path.suffix == ".tflite")
    variants = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        path = fuzz.write_variant(source, tmp_path / name, random.Random(3))
        variants.append(path.read_bytes())
    assert variants[0] == variants[1] != source.read_bytes()


def test_tensor_names_that_are_not_utf_8(sources: list[Path], tmp_path: Path) -> None:
    """The runtime loads such a file and fails when the names are read. Found by the fuzzer."""
    source = next(path for path in sources if path.suffix == ".tflite")
    data = source.read_bytes()
    name = b"attention/attention"
    assert name in data
    path = tmp_path / "model.tflite"
    path.write_bytes(data.replace(name, b"\xff" * len(name)))
    with fuzz.ConversionWorker() as converter, fuzz.Worker() as worker:
        assert fuzz.outcome_of(path, converter, worker) == "ArtifactError"


def test_artifact_path_that_is_too_long(sources: list[Path], tmp_path: Path) -> None:
    """An artifact path of 1,000 characters in the manifest. Found by the fuzzer."""
    source = next(path for path in sources if path.is_dir())
    path = tmp_path / source.name
    shutil.copytree(source, path)
    manifest = json.loads((path / fuzz.MANIFEST).read_text())
    manifest["artifacts"][0]["path"] = "x" * 1000
    (path / fuzz.MANIFEST).write_text(json.dumps(manifest))
    with fuzz.ConversionWorker() as converter, fuzz.Worker() as worker:
        assert fuzz.outcome_of(path, converter, worker) == "BundleError"
