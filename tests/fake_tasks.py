"""The tasks of a conversion without Keras: they write the files of the dense model.

:mod:`killed_commands` uses this module in place of :mod:`edgeattn_converters.worker.tasks`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import artifacts

from edgeattn.bundle.manifest import REFERENCE, sha256
from edgeattn.samples.npz import write_npz


def audit(**_: Any) -> None:
    pass


def check(**_: Any) -> None:
    pass


def rename_samples(**_: Any) -> None:
    """The samples have the names of the inputs."""


def describe(**_: Any) -> dict[str, Any]:
    return {"file": "hand.h5", "parameters": 8, "notes": []}


def write_reference(folder: str, **_: Any) -> dict[str, Any]:
    x = artifacts.samples(9)
    path = Path(folder) / REFERENCE
    with path.open("wb") as file:
        write_npz(file, {"input/x": x, "output/score": artifacts.dense(x)})
    counts = {"samples": len(x), "edge_cases": 0}
    return {"path": REFERENCE, "sha256": sha256(path), **counts, "source": "by hand", "notes": []}


def package_versions() -> dict[str, str]:
    return {"edgeattn": "0"}


def describe_layers(**_: Any) -> dict[str, Any]:
    return {"layers": [], "recurrent": []}


def write_front_end(**_: Any) -> None:
    """The model has none."""


def write_artifact(folder: str, format: str, scheme: str, **_: Any) -> dict[str, Any]:
    path = Path(folder) / f"model.{scheme}.{format}"
    artifacts.write_dense_onnx(path)
    return artifacts.artifact(path, scheme=scheme).to_json()


def predict(tensors: Any, **_: Any) -> tuple[None, Any]:
    return None, {"score": artifacts.dense(tensors["x"])}
