"""A device that is a folder of this machine: its functions are called in this process.

Calls pass through the messages of :mod:`edgeattn.process.protocol`, so values that cannot be sent
raise the same errors as over ssh. Run as a script, this module interrupts deployments: see
:func:`main`.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import artifacts
from function_runner import FunctionRunner
from interruption import in_process, record_changes

from edgeattn.bundle.bundle import Bundle
from edgeattn.bundle.manifest import MANIFEST, sha256
from edgeattn.deployment.deploy import DeploymentOptions, run_steps
from edgeattn.deployment.on_device import steps
from edgeattn.deployment.results import DeploymentResult
from edgeattn.device import runtime_check
from edgeattn.errors import EdgeattnError
from edgeattn.process import protocol, server
from edgeattn.process.worker import WorkerDiedError
from edgeattn.runners import isolated
from edgeattn.targets import connection
from edgeattn.targets.connection import Connection
from edgeattn.targets.on_device import session
from edgeattn.targets.ssh import SSHHost
from edgeattn.validation import validate as validation

HOST = SSHHost("pi@board")
OPTIONS = DeploymentOptions("edgeattn/dense", measure=False, keep=2)


class LocalWorker:
    """Calls the device's functions in this process.

    The connection ends at call number ``cut_at``, counted from 1: after the device has executed it
    if ``executed`` is true, before that otherwise.
    """

    def __init__(self, *, cut_at: int | None = None, executed: bool = False) -> None:
        self.calls: list[str] = []
        self._cut_at, self._executed = cut_at, executed

    def call(
        self,
        function: str,
        arguments: Mapping[str, Any] | None = None,
        tensors: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = None,
    ) -> tuple[Any, Any]:
        self.calls.append(function.partition(":")[2])
        cut = len(self.calls) == self._cut_at
        if cut and not self._executed:
            self._disconnect()
        header = {"call": function, "arguments": dict(arguments or {})}
        header, arrays = _through_pipe(*server._call(*_through_pipe(header, tensors)))
        if cut:
            self._disconnect()
        if "error" in header:
            raise protocol.error_from_json(header["error"])
        return header.get("result"), arrays

    def _disconnect(self) -> None:
        end_process()
        raise WorkerDiedError("ended", output="client_loop: send disconnect: Broken pipe\n")


def _through_pipe(header: Mapping[str, Any], tensors: Any) -> tuple[Any, Any]:
    pipe = io.BytesIO()
    protocol.write_message(pipe, header, tensors)
    pipe.seek(0)
    return protocol.read_message(pipe)


def end_process() -> None:
    """Release the lock, as the end of the device's process does."""
    lock = session.state.pop("lock", None)
    if lock is not None:
        lock.close()
    session.state.clear()


def deploy(
    bundle: Bundle, worker: LocalWorker | None = None, options: DeploymentOptions = OPTIONS
) -> DeploymentResult:
    """As :func:`edgeattn.deployment.deploy.deploy`, over a connection that is open."""
    try:
        return run_steps(bundle, Connection(worker or LocalWorker(), HOST), options)
    except EdgeattnError as error:
        return DeploymentResult(HOST.destination, "failed", error=error)
    finally:
        end_process()


def function_runner(artifact: Any) -> FunctionRunner:
    """A runner of the dense model."""
    return FunctionRunner(
        lambda tensors: {"score": artifacts.dense(tensors["x"])}, artifact.inputs, artifact.outputs
    )


def replace_runtimes() -> None:
    """Use the NumPy model instead of runtimes, which need processes of their own."""

    def validate_isolated(bundle: Bundle, selected: Any, **_: Any) -> Any:
        return validation.validate(bundle, selected, function_runner)

    validation.validate_isolated = validate_isolated
    isolated.IsolatedRunner = lambda folder, artifact, worker, **_: function_runner(artifact)
    runtime_check.check_runtimes = lambda: tuple(
        runtime_check.RuntimeCheck(name, runtime_check.PASS) for name in ("tflite", "onnx")
    )
    session.IDLE_TIMEOUT, steps.LOCK_TIMEOUT = 0, 0.0
    connection.PIECE_SIZE = 700


def serving(home: Path) -> str | None:
    """The SHA-256 of the current version's manifest, once all its files are verified."""
    current = home / "edgeattn/dense/current"
    if not current.is_symlink():
        return None
    Bundle.open(current)
    return sha256(current / MANIFEST)


def leftovers(home: Path) -> list[str]:
    """Names of files on the device that belong to no version."""
    root = home / "edgeattn/dense"
    digests = {
        digest
        for record in root.glob("versions/*/record.json")
        for digest in json.loads(record.read_text("utf-8"))["files"].values()
    }
    expected = {"lock", "objects", "partial", "versions", "current"}
    return [
        *(path.name for path in root.iterdir() if path.name not in expected),
        *(path.name for path in root.glob("partial/*")),
        *(path.name for path in root.glob("objects/*") if path.name not in digests),
    ]


def main(folder: str, mode: str, step: str = "1") -> None:
    """Deploy a second bundle over a first, interrupted before every change of the disk in turn.

    Or before every ``step``-th one. ``mode`` is "kill" or "full". After each interruption, the
    current version must be intact, and the same deployment must complete and leave no other files.
    Prints the violations as JSON.
    """
    replace_runtimes()
    base = Path(folder)
    # Large enough for several pieces, so that interruptions leave incomplete files.
    old = artifacts.write_dense_bundle(base / "old.edge", count=64)
    new = artifacts.write_dense_bundle(base / "new.edge", count=80)
    names = {sha256(b.path / MANIFEST): b.path.name for b in (old, new)}
    pristine = base / "pristine"
    pristine.mkdir()
    os.environ["HOME"] = str(pristine)
    first = deploy(old)
    assert first.state == "serves now", first.error
    violations: list[str] = []

    def attempt(home: Path, stop_at: int | None) -> Any:
        def deploy_new() -> Any:
            os.environ["HOME"] = str(home)
            changes = record_changes(home, stop_at, mode)
            result = deploy(new, options=replace(OPTIONS, keep=1))
            return {"state": result.state, "code": result.exit_code, "changes": changes.all()}

        return in_process(deploy_new)

    def device_with_old(name: str) -> Path:
        home = base / name
        shutil.rmtree(home, ignore_errors=True)
        shutil.copytree(pristine, home, symlinks=True)
        return home

    changes = attempt(device_with_old("complete"), None)["changes"]
    switch = next(
        number
        for number, change in enumerate(changes, 1)
        if change.startswith("os.rename") and "/.current" in change
    )
    for number, change in list(enumerate(changes, 1))[:: int(step)]:
        home = device_with_old("interrupted")
        result = attempt(home, number)
        if mode == "kill" and result is not None:
            violations.append(f"at {change}: the process survived")
        current = names.get(serving(home) or "")
        # An error that a later step made good does not end the deployment.
        switched = number > switch or (result is not None and result["code"] == 0)
        if current != ("new.edge" if switched else "old.edge"):
            violations.append(f"at {change}: {current} serves")
        if mode == "full" and (result is None or result["code"] not in (0, 5)):
            violations.append(f"at {change}: ended with {result}")
        second = attempt(home, None)
        if second is None or second["code"] != 0 or names.get(serving(home) or "") != "new.edge":
            violations.append(f"after {change}: {second}")
        elif leftovers(home):
            violations.append(f"after {change}: left over {leftovers(home)}")
    print(json.dumps({"changes": len(changes), "switch": switch, "violations": violations}))


if __name__ == "__main__":
    main(*sys.argv[1:])
