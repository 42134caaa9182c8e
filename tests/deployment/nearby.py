"""A device that is a folder of this machine: what a deployment calls there is called here.

Calls go through the frames of :mod:`edgeattn.process.protocol`, so what cannot travel does not.
Started as a script this breaks deployments off: see :func:`main`.
"""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import signal
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import artifacts

from edgeattn.bundle.bundle import Bundle
from edgeattn.bundle.manifest import MANIFEST, sha256
from edgeattn.deployment.deploy import DeploymentOptions, DeploymentResult, carry_out
from edgeattn.deployment.on_device import steps as receiver
from edgeattn.device import runtime_check
from edgeattn.errors import EdgeattnError
from edgeattn.process import protocol, server
from edgeattn.process.worker import WorkerDied
from edgeattn.runners.function import FunctionRunner
from edgeattn.targets import transfer as sending
from edgeattn.targets.on_device import session as targets_receiver
from edgeattn.targets.ssh import SSHHost
from edgeattn.validation import validate as validation

REMOTE = SSHHost("pi@board")
ORDER = DeploymentOptions("edgeattn/dense", measure=False, keep=2)
# What audit hooks are told of that changes a disk.
CHANGES = {
    *("os.mkdir", "os.rename", "os.link", "os.symlink", "os.remove", "os.rmdir", "os.chmod"),
    *("os.truncate", "os.utime"),
}


class Nearby:
    """Calls the device's functions in this process; ``cut`` ends the connection at a call.

    The number of the call is counted from 1; ``answered`` says whether the device still did it.
    """

    def __init__(self, *, cut: int | None = None, answered: bool = False) -> None:
        self.calls: list[str] = []
        self._cut, self._answered = cut, answered

    def call(
        self,
        function: str,
        arguments: Mapping[str, Any] | None = None,
        tensors: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = None,
    ) -> tuple[Any, Any]:
        self.calls.append(function.partition(":")[2])
        cut = len(self.calls) == self._cut
        if cut and not self._answered:
            self._gone()
        header = {"call": function, "arguments": dict(arguments or {})}
        told, arrays = server._answer(*_there(header, tensors))
        told, arrays = _there(told, arrays)
        if cut:
            self._gone()
        if "error" in told:
            raise protocol.rebuild(told["error"])
        return told.get("result"), arrays

    def _gone(self) -> None:
        hang_up()
        raise WorkerDied("ended", output="client_loop: send disconnect: Broken pipe\n")


def _there(header: Mapping[str, Any], tensors: Any) -> tuple[Any, Any]:
    pipe = io.BytesIO()
    protocol.write_message(pipe, header, tensors)
    pipe.seek(0)
    return protocol.read_message(pipe)


def hang_up() -> None:
    """What the end of the device's process does: its lock is let go of."""
    lock = targets_receiver.connection.pop("lock", None)
    if lock is not None:
        lock.close()
    targets_receiver.connection.clear()


def deploy(
    bundle: Bundle, caller: Nearby | None = None, order: DeploymentOptions = ORDER
) -> DeploymentResult:
    """As :func:`edgeattn.deployment.deploy.deploy`, the connection standing."""
    try:
        return carry_out(bundle, REMOTE, caller or Nearby(), order)
    except EdgeattnError as error:
        return DeploymentResult(REMOTE.destination, "failed", error=error)
    finally:
        hang_up()


def no_runtimes() -> None:
    """In the place of runtimes, which need processes of their own, the oracle in NumPy."""

    def judged(bundle: Bundle, chosen: Any, **_: Any) -> Any:
        return validation.validate(
            bundle,
            chosen,
            lambda item: FunctionRunner(
                lambda tensors: {"score": artifacts.dense(tensors["x"])}, item.inputs, item.outputs
            ),
        )

    validation.validate_isolated = judged
    runtime_check.check_runtimes = lambda: tuple(
        runtime_check.RuntimeCheck(name, runtime_check.PASS) for name in ("tflite", "onnx")
    )
    targets_receiver.LEASE, receiver.PATIENCE = 0, 0.0
    sending.PIECE = 700


def serving(home: Path) -> str | None:
    """The manifest's hash of what serves, every file of it hashed; None where nothing does."""
    current = home / "edgeattn/dense/current"
    if not current.is_symlink():
        return None
    bundle = Bundle.open(current)
    bundle.verify()
    return sha256(current / MANIFEST)


def left_over(home: Path) -> list[str]:
    """What lies on the device and is part of no version that is kept."""
    root = home / "edgeattn/dense"
    used = {
        digest
        for record in root.glob("versions/*/record.json")
        for digest in json.loads(record.read_text("utf-8"))["files"].values()
    }
    known = {"lock", "objects", "partial", "versions", "current"}
    return [
        *(path.name for path in root.iterdir() if path.name not in known),
        *(path.name for path in root.glob("partial/*")),
        *(path.name for path in root.glob("objects/*") if path.name not in used),
    ]


def watch(home: Path, at: int | None, mode: str) -> list[str]:
    """Count what changes files under ``home``; at change ``at`` die, or find the disk full."""
    seen: list[str] = []

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            changes = bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        else:
            path, changes = arguments[0] if arguments else None, event in CHANGES
        if not changes or not isinstance(path, str | os.PathLike):
            return
        # Removing by descriptor names files relative to it.
        if Path(path).is_absolute() and not str(path).startswith(str(home)):
            return
        seen.append(f"{event} {path}")
        if len(seen) == at:
            if mode == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    sys.addaudithook(hook)
    return seen


def in_a_process(action: Any) -> Any:
    """What ``action`` gives, in a process of its own; None where that died."""
    read, write = os.pipe()
    number = os.fork()
    if not number:
        try:
            os.write(write, json.dumps(action()).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as stream:
        told = stream.read()
    os.waitpid(number, 0)
    return json.loads(told) if told else None


def main(folder: str, mode: str) -> None:
    """Deploy a second bundle over a first, broken off at every change of the disk in turn.

    ``mode`` is "kill" or "full". After each, what serves must be whole, and the same deployment
    once more must come to its end and leave nothing lying about. Prints what went wrong, as JSON.
    """
    no_runtimes()
    base = Path(folder)
    # Big enough for several pieces, so that files are left half copied.
    old = artifacts.write_dense_bundle(base / "old.edge", count=64)
    new = artifacts.write_dense_bundle(base / "new.edge", count=80)
    names = {sha256(b.path / MANIFEST): b.path.name for b in (old, new)}
    pristine = base / "pristine"
    pristine.mkdir()
    os.environ["HOME"] = str(pristine)
    first = deploy(old)
    assert first.state == "serves now", first.error
    wrong: list[str] = []

    def attempt(home: Path, at: int | None) -> Any:
        def go() -> Any:
            os.environ["HOME"] = str(home)
            seen = watch(home, at, mode)
            outcome = deploy(new, order=replace(ORDER, keep=1))
            return {"state": outcome.state, "code": outcome.exit_code, "seen": seen}

        return in_a_process(go)

    def device_with_old(name: str) -> Path:
        home = base / name
        shutil.rmtree(home, ignore_errors=True)
        shutil.copytree(pristine, home, symlinks=True)
        return home

    whole = attempt(device_with_old("whole"), None)
    steps = whole["seen"]
    switched = next(
        i for i, s in enumerate(steps, 1) if s.startswith("os.rename") and "/.current" in s
    )
    for at, step in enumerate(steps, 1):
        home = device_with_old("cut")
        told = attempt(home, at)
        if mode == "kill" and told is not None:
            wrong.append(f"at {step}: it went on")
        served = names.get(serving(home) or "")
        # What one step could not do another may have done: then the deployment came to its end.
        done = at > switched or (told is not None and told["code"] == 0)
        if served != ("new.edge" if done else "old.edge"):
            wrong.append(f"at {step}: {served} serves")
        if mode == "full" and (told is None or told["code"] not in (0, 5)):
            wrong.append(f"at {step}: ended with {told}")
        again = attempt(home, None)
        if again is None or again["code"] != 0 or names.get(serving(home) or "") != "new.edge":
            wrong.append(f"after {step}: {again}")
        elif left_over(home):
            wrong.append(f"after {step}: left over {left_over(home)}")
    print(json.dumps({"steps": len(steps), "switched": switched, "wrong": wrong}))


if __name__ == "__main__":
    main(*sys.argv[1:])
