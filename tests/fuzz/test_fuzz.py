"""A quick run of the fuzzer; ``make fuzz`` is the long one."""

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
    return fuzz.specimens(tmp_path_factory.mktemp("fuzz"))


def test_no_variant_breaks_anything(sources: list[Path], tmp_path: Path) -> None:
    ended, findings = fuzz.fuzz(sources, COUNT, seed=1, keep=tmp_path / "kept", budget=120)
    assert findings == []
    # It fuzzes: variants of every sort were met, not only ones that load.
    assert ended["fine"] > 0
    assert ended["UnsupportedModelError"] > 0
    assert ended["BundleError"] > 0


def test_variants_are_seeded(sources: list[Path], tmp_path: Path) -> None:
    source = next(path for path in sources if path.suffix == ".tflite")
    made = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        made.append(fuzz.variant(source, tmp_path / name, random.Random(3)).read_bytes())
    assert made[0] == made[1] != source.read_bytes()


def test_names_that_are_no_text(sources: list[Path], tmp_path: Path) -> None:
    """Found by the fuzzer: the runtime loads such a file, and fails when it is asked for names."""
    source = next(path for path in sources if path.suffix == ".tflite")
    data = source.read_bytes()
    name = b"attention/attention"
    assert name in data
    path = tmp_path / "model.tflite"
    path.write_bytes(data.replace(name, b"\xff" * len(name)))
    with fuzz.ConversionWorker() as host, fuzz.Worker() as child:
        assert fuzz.examine(path, host, child) == "ArtifactError"


def test_a_path_that_no_system_has(sources: list[Path], tmp_path: Path) -> None:
    """Found by the fuzzer: a name of a thousand characters in the manifest."""
    source = next(path for path in sources if path.is_dir())
    path = tmp_path / source.name
    shutil.copytree(source, path)
    manifest = json.loads((path / fuzz.MANIFEST).read_text())
    manifest["artifacts"][0]["path"] = "x" * 1000
    (path / fuzz.MANIFEST).write_text(json.dumps(manifest))
    with fuzz.ConversionWorker() as host, fuzz.Worker() as child:
        assert fuzz.examine(path, host, child) == "BundleError"
