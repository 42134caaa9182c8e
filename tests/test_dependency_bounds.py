"""The lower bounds of dependencies exclude versions with known faults.

edgeattn does not pass foreign files to most of the faulty functions, but a change could.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

PYPROJECT = Path(__file__).parent.parent / "pyproject.toml"
PINNED = dict(
    line.lower().split("==")
    for line in PYPROJECT.with_name("constraints.txt").read_text("utf-8").split()
    if "==" in line
)

_ORT = "https://github.com/microsoft/onnxruntime"
_KERAS = "https://github.com/keras-team/keras/releases/tag"
_GHSA = "https://github.com/advisories"
_NVD = "https://nvd.nist.gov/vuln/detail"

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
        ("1.13.0", "CVE-2022-25882: reads any file", f"{_NVD}/CVE-2022-25882"),
        ("1.16.2", "CVE-2024-5187: writes any file", f"{_GHSA}/GHSA-6rq9-53c3-f7vj"),
        ("1.21.0", "CVE-2026-27489: reads any file", f"{_NVD}/CVE-2026-27489"),
        ("1.21.0", "CVE-2026-34446: reads any file by a hard link", f"{_GHSA}/GHSA-cmw6-hcpp-c6jp"),
        ("1.21.0", "CVE-2026-34447: reads any file by a link", f"{_GHSA}/GHSA-p433-9wv8-28xj"),
    ],
    "keras": [
        ("2.13.1", "CVE-2024-3660: runs code of Lambda layers", f"{_NVD}/CVE-2024-3660"),
        ("3.9.0", "CVE-2025-1550: runs code in safe mode", f"{_GHSA}/GHSA-48g7-3x6r-xfhp"),
        ("3.11.0", "CVE-2025-8747: runs code in safe mode", f"{_GHSA}/GHSA-c9rc-mg46-23w3"),
        ("3.11.0", "CVE-2025-9906: leaves safe mode", f"{_GHSA}/GHSA-36fq-jgmw-4r9c"),
        ("3.11.3", "CVE-2025-9905: runs code of HDF5 files", f"{_NVD}/CVE-2025-9905"),
        ("3.11.3", "CVE-2025-49655: loads pickles", f"{_NVD}/CVE-2025-49655"),
        ("3.12.0", "CVE-2025-12058: reads any file", f"{_NVD}/CVE-2025-12058"),
        ("3.12.0", "CVE-2025-12060: writes any file", f"{_NVD}/CVE-2025-12060"),
        ("3.12.0", "CVE-2025-12638: writes any file", f"{_NVD}/CVE-2025-12638"),
        ("3.13.1", "CVE-2026-0897: allocates without end", f"{_NVD}/CVE-2026-0897"),
        ("3.13.2", "CVE-2026-1462: loads other models", f"{_GHSA}/GHSA-4f3f-g24h-fr8m"),
        ("3.13.2", "CVE-2026-1669: reads any HDF5 file", f"{_NVD}/CVE-2026-1669"),
        ("3.14.1", "CVE-2026-12480: reads any HDF5 file", f"{_NVD}/CVE-2026-12480"),
        ("3.15.1", "follows HDF5 groups without a check", f"{_KERAS}/v3.15.1"),
    ],
    "tensorflow": [
        ("2.12", "CVE-2023-25668: reads and writes outside of buffers", f"{_NVD}/CVE-2023-25668"),
        ("2.12", "CVE-2023-27579: exception in a convolution", f"{_GHSA}/GHSA-5w96-866f-6rm8"),
    ],
    # Its wheels include the HDF5 library: 3.14 has HDF5 1.14.6.
    "h5py": [
        (
            "3.14",
            "CVE-2024-32624: HDF5 before 1.14.4 writes outside of buffers",
            f"{_NVD}/CVE-2024-32624",
        ),
    ],
    "protobuf": [
        ("6.31.1", "CVE-2025-4565: recursion without a limit", f"{_NVD}/CVE-2025-4565"),
        ("6.33.5", "CVE-2026-0994: recursion without a limit", f"{_GHSA}/GHSA-7gcm-g887-7qv7"),
    ],
    "jinja2": [
        ("3.1.4", "CVE-2024-34064: names of attributes are not escaped", f"{_NVD}/CVE-2024-34064"),
        ("3.1.6", "CVE-2025-27516: leaves the sandbox", f"{_NVD}/CVE-2025-27516"),
    ],
    "pillow": [
        ("10.3.0", "CVE-2024-28219: writes outside of a buffer", f"{_NVD}/CVE-2024-28219"),
        ("11.3.0", "CVE-2025-48379: writes outside of a buffer", f"{_NVD}/CVE-2025-48379"),
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
        assert PINNED.get(package, bound.version) in requirement.specifier
        for fixed, fault, source in ADVISORIES[package]:
            assert Version(bound.version) >= Version(fixed), f"{requirement}: {fault} ({source})"
