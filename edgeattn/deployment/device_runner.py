"""Artifacts that run on a device during a deployment, for a validation on this machine.

The device returns outputs, never checks or verdicts. Which artifacts and rows must run, which
outputs are compared and with which limits is decided here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeattn import progress
from edgeattn.deployment.on_device import steps
from edgeattn.deployment.replies import parse_runtime
from edgeattn.errors import ArtifactError
from edgeattn.process.limits import run_limits
from edgeattn.targets.connection import CALL_TIMEOUT

if TYPE_CHECKING:
    from edgeattn.bundle.bundle import Bundle
    from edgeattn.bundle.manifest import Artifact
    from edgeattn.targets.connection import Connection
    from edgeattn.tensors import Tensors
    from edgeattn.validation.report import Report


class DeviceRunner:
    """A runner of an artifact of ``version`` on the device.

    It runs rows of ``reference`` only, the arrays of the bundle's reference, which the device has
    too: their numbers are sent instead of the inputs. The device ends a call that exceeds the
    limits of :func:`~edgeattn.process.limits.run_limits`.
    """

    def __init__(
        self, connection: Connection, version: str, artifact: Artifact, reference: Tensors
    ) -> None:
        self.inputs, self.outputs = artifact.inputs, artifact.outputs
        self._connection = connection
        self._lost = False
        arrays = {spec.name: reference[f"input/{spec.name}"] for spec in artifact.inputs}
        self._rows = {key: row for row, key in reversed(list(enumerate(self._keys(arrays))))}
        limits = asdict(run_limits())
        self.runtime = parse_runtime(
            self._call(
                steps.load_artifact, {"version": version, "path": artifact.path, "limits": limits}
            )[0]
        )

    def run(self, tensors: Tensors, batch_sizes: Sequence[int] = ()) -> Tensors:
        rows = [self._rows[key] for key in self._keys(tensors)]
        arguments = {"rows": rows, "batch_sizes": list(batch_sizes)}
        try:
            outputs: Tensors = self._call(steps.run_artifact, arguments)[1]
        except ArtifactError:
            raise
        except BaseException:
            # Another call would start another process on the device.
            self._lost = True
            raise
        unusual = next((name for name, array in outputs.items() if array.dtype.kind == "c"), None)
        if unusual is not None:
            raise ArtifactError(f"The output {unusual!r} has complex numbers.")
        return outputs

    def close(self) -> None:
        if not self._lost:
            self._connection.call(steps.unload_artifact)

    def _call(self, function: Callable[..., Any], arguments: dict[str, Any]) -> tuple[Any, Any]:
        # Enough for the device to reply that its runtime took too long.
        timeout = run_limits().seconds + CALL_TIMEOUT
        return self._connection.call_with_tensors(function, arguments, timeout=timeout)

    def _keys(self, tensors: Tensors) -> list[bytes]:
        """A hash of each row."""
        arrays = [np.asarray(tensors[spec.name]) for spec in self.inputs]
        return [
            hashlib.sha256(b"".join(array[row].tobytes() for array in arrays)).digest()
            for row in range(len(arrays[0]))
        ]


def validate_on_device(
    connection: Connection, version: str, bundle: Bundle, artifacts: tuple[Artifact, ...]
) -> Report:
    """The report of ``artifacts`` that run on the device, with all checks computed here.

    It has the stage ``device`` for artifacts whose runtime this machine has, too.
    """
    from edgeattn.validation.artifact import validate_artifact
    from edgeattn.validation.device_parity import add_device_stage
    from edgeattn.validation.report import Report
    from edgeattn.validation.validate import validate_isolated

    reference = bundle.reference()

    def opener(artifact: Artifact) -> DeviceRunner:
        progress.report(f"validating {artifact.label} on the device")
        return DeviceRunner(connection, version, artifact, reference)

    reports = [validate_artifact(bundle, item, reference, opener) for item in artifacts]
    host_report = validate_isolated(bundle, artifacts)
    return add_device_stage(Report(tuple(reports)), host_report, bundle)
