"""The lower bounds of dependencies that open foreign files exclude versions with known faults."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

PYPROJECT = Path(__file__).parent.parent / "pyproject.toml"

_ORT = "https://github.com/microsoft/onnxruntime"
_GHSA = "https://github.com/advisories"

# Package: (first version without the fault, fault, source). tflite-runtime has the version numbers
# of TensorFlow. No advisory of LiteRT is known: to its authors, a model is a program
# (https://github.com/google-ai-edge/LiteRT/security).
ADVISORIES = {
    "onnxruntime": [
        ("1.24.1", "reads any file as external data", f"{_ORT}/pull/26776"),
        ("1.27.0", "reads any file as the data of sparse tensors", f"{_ORT}/pull/28408"),
        ("1.27.0", "reads any address as data in memory", f"{_ORT}/pull/28709"),
        ("1.28.1", "reads any address as data in memory", f"{_ORT}/releases/tag/v1.28.1"),
        ("1.30.1", "reads and writes outside of buffers", f"{_ORT}/releases/tag/v1.30.1"),
    ],
    "tflite-runtime": [
        ("2.12", "CVE-2023-27579: exception in a convolution", f"{_GHSA}/GHSA-5w96-866f-6rm8"),
        ("2.5.1", "CVE-2021-37685: reads outside of a buffer", f"{_GHSA}/GHSA-c545-c4f9-rf6v"),
    ],
    "ai-edge-litert": [],
    "onnx": [
        (
            "1.13.0",
            "CVE-2022-25882: reads any file",
            "https://nvd.nist.gov/vuln/detail/CVE-2022-25882",
        ),
        ("1.16.2", "CVE-2024-5187: writes any file", f"{_GHSA}/GHSA-6rq9-53c3-f7vj"),
        (
            "1.21.0",
            "CVE-2026-27489: reads any file",
            "https://nvd.nist.gov/vuln/detail/CVE-2026-27489",
        ),
        ("1.21.0", "CVE-2026-34446: reads any file by a hard link", f"{_GHSA}/GHSA-cmw6-hcpp-c6jp"),
        ("1.21.0", "CVE-2026-34447: reads any file by a link", f"{_GHSA}/GHSA-p433-9wv8-28xj"),
    ],
}


def requirements() -> list[Requirement]:
    project = tomllib.loads(PYPROJECT.read_text("utf-8"))["project"]
    extras = project["optional-dependencies"].values()
    return [Requirement(text) for group in (project["dependencies"], *extras) for text in group]


@pytest.mark.parametrize("package", list(ADVISORIES))
def test_a_bound_is_not_below_a_known_advisory(package: str) -> None:
    found = [item for item in requirements() if item.name == package]
    assert found
    for requirement in found:
        (bound,) = (item for item in requirement.specifier if item.operator == ">=")
        for fixed, fault, source in ADVISORIES[package]:
            assert Version(bound.version) >= Version(fixed), f"{requirement}: {fault} ({source})"
