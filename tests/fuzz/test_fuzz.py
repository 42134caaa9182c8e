"""Short runs of the fuzzer, and files that it found; ``make fuzz`` is the long run."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("edgeattn_converters", reason="Keras files are loaded by the converters")

import damaged_bundles
import fuzz
from edgeattn.bundle.bundle import Bundle
from edgeattn.bundle.manifest import MANIFEST
from edgeattn.errors import BundleError, UnsupportedModelError
from edgeattn.inspection import inspect_artifact
from edgeattn.validation import artifact
from mutations import write_variant

SPECIMEN = damaged_bundles.SPECIMEN
COUNT = 60


@pytest.mark.long
def test_every_keras_file_opens_or_raises_an_error_of_edgeattn(tmp_path: Path) -> None:
    folder = tmp_path / "findings"
    outcomes, findings = fuzz.fuzz_keras_files(fuzz.keras_files(), 80, 1, findings_folder=folder)
    assert findings == []
    # The run is only meaningful if variants of every kind occurred.
    assert outcomes["opened"] > 0
    assert outcomes["UnsupportedModelError"] > 0


@pytest.mark.parametrize("kind", ["artifact", "bundle"])
def test_no_damaged_artifact_or_bundle_is_a_wrong_pass(kind: str) -> None:
    counts, findings = damaged_bundles.fuzz_in_memory(kind, COUNT, seed=0)
    assert findings == []
    # The run is only meaningful if some are refused and some opened.
    assert 0 < counts[damaged_bundles.RIGHT] < 0.9 * COUNT
    assert counts[damaged_bundles.REFUSED] > 0


def test_a_wrong_pass_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the comparison with the reference reports no failed check."""
    compare = artifact.comparison_checks

    def without_failures(*arguments: Any, samples: int, **options: Any) -> list[Any]:
        checks = list(compare(*arguments, samples=samples, **options))
        failed = samples == damaged_bundles.SAMPLES
        return [check for check in checks if not failed or check.passed is not False]

    monkeypatch.setattr(artifact, "comparison_checks", without_failures)
    _, findings = damaged_bundles.fuzz_in_memory("artifact", COUNT, seed=0)
    assert {item.name for item in findings} == {damaged_bundles.WRONG}


def test_variants_are_seeded(tmp_path: Path) -> None:
    source = SPECIMEN / "model.int8.tflite"
    variants = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        path = write_variant(source, tmp_path / name, random.Random(3))
        variants.append(path.read_bytes())
    assert variants[0] == variants[1] != source.read_bytes()


def test_tensor_names_that_are_not_utf_8(tmp_path: Path) -> None:
    """The runtime loads such a file and fails when the names are read. Found by the fuzzer."""
    data = (SPECIMEN / "model.float32.tflite").read_bytes()
    name = b"attention/attention"
    assert name in data
    path = tmp_path / "model.tflite"
    path.write_bytes(data.replace(name, b"\xff" * len(name)))
    with pytest.raises(UnsupportedModelError):
        inspect_artifact(path, "tflite")


def test_artifact_path_that_is_too_long(tmp_path: Path) -> None:
    """An artifact path of 1,000 characters in the manifest. Found by the fuzzer."""
    path = tmp_path / "model.edge"
    shutil.copytree(SPECIMEN, path)
    manifest = json.loads((path / MANIFEST).read_text())
    manifest["artifacts"][0]["path"] = "x" * 1000
    (path / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(BundleError):
        Bundle.open(path)
