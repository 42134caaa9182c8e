"""Bundles with random changes in their manifest: an error of edgeattn or a verdict, and no false
pass."""

from __future__ import annotations

import json
import random
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from long_parameters import only

from damaged_bundles import contradictions
from edgeattn.bundle.bundle import Bundle
from edgeattn.bundle.manifest import MANIFEST
from edgeattn.cli.inspect import _bundle_lines
from edgeattn.errors import EdgeattnError
from edgeattn.inspection import inspect_bundle
from edgeattn.metrics.verdict import FAIL, PASS
from edgeattn.runners import open_artifact
from edgeattn.validation.validate import validate
from mutations import mutate_json

SPECIMEN = Path(__file__).parents[1] / "specimens" / "bundle-0.1.0.dev0"
FILES = ("model.float32.onnx", "model.int8.tflite")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A bundle of two artifacts."""
    target = tmp_path / "model.edge"
    target.mkdir()
    for name in (*FILES, "reference.npz", MANIFEST):
        shutil.copyfile(SPECIMEN / name, target / name)
    return target


@pytest.mark.parametrize("count", only([80, 240], 80))
def test_no_change_of_a_manifest_is_a_false_pass(count: int, folder: Path) -> None:
    data = json.loads((folder / MANIFEST).read_text())
    data["artifacts"] = [item for item in data["artifacts"] if item["path"] in FILES]
    text = json.dumps(data)
    (folder / MANIFEST).write_text(text)
    originals = {item.path: item for item in Bundle.open(folder).manifest.artifacts}
    outcomes: Counter[str] = Counter()
    for seed in range(count):
        mutated: Any = json.loads(text)
        generator = random.Random(seed)
        # Most values of a manifest are counts in an artifact's account.
        part = mutated if seed % 2 else generator.choice(mutated["artifacts"])
        if seed % 5 == 0 and "inputs" in part:
            part = generator.choice([*part["inputs"], *part["outputs"]])
        mutate_json(part, generator)
        (folder / MANIFEST).write_text(json.dumps(mutated))
        try:
            list(_bundle_lines(inspect_bundle(folder)))
            bundle = Bundle.open(folder)
            with np.errstate(all="ignore"):
                report = validate(
                    bundle,
                    bundle.manifest.artifacts,
                    lambda artifact, path=bundle.path: open_artifact(path, artifact),
                )
        except EdgeattnError as error:
            outcomes[type(error).__name__] += 1
            continue
        outcomes[report.verdict] += 1
        for item in report.artifacts:
            found = contradictions(item.artifact, originals[item.artifact.path])
            assert item.verdict != PASS or not found, (seed, item.artifact.label, found)
    assert not outcomes["EdgeattnError"]  # an internal error
    # The run is only meaningful if changes of every kind occurred.
    assert min(outcomes[name] for name in (PASS, FAIL, "BundleError")) > count / 20, outcomes
