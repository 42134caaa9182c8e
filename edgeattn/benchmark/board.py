"""A board reached over ssh on which candidates are measured and validated."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeattn import progress
from edgeattn.benchmark.artifact_worker import INPUT_SAMPLES
from edgeattn.benchmark.comparison import (
    SECONDS,
    Comparison,
    MedianLatency,
    compare_on_this_device,
    parse_latencies,
)
from edgeattn.device.runtime_check import PASS
from edgeattn.errors import DeviceError, EdgeattnError, RuntimeUnavailableError
from edgeattn.printable import counted, enumerated
from edgeattn.process.limits import run_limits
from edgeattn.targets import ssh
from edgeattn.targets.connection import CALL_TIMEOUT, Connection, check_host, send_files
from edgeattn.targets.on_device import environment, session
from edgeattn.targets.replies import parse_device, parse_folder, parsing, text
from edgeattn.targets.target import WORKER_MODULE, Target
from edgeattn.validation.validate import ValidationOptions, validate
from edgeattn.version import __version__

if TYPE_CHECKING:
    from edgeattn.bundle.bundle import Bundle
    from edgeattn.bundle.manifest import Artifact
    from edgeattn.device.info import Device
    from edgeattn.evaluation.dataset import Dataset
    from edgeattn.tensors import Tensors
    from edgeattn.validation.report import Report


# Degrees Celsius below which a measurement begins, and seconds between readings and at most.
COOL_C, COOL_POLL_S, COOL_DOWN_S = 65.0, 10.0, 600.0


@dataclass(frozen=True)
class BoardAddress:
    """How a board is reached.

    Attributes:
        destination: USER@HOST, ssh://USER@HOST:PORT or a name of the ssh configuration.
        python: Its Python, a path on the board; default: that of ``~/edge``, or ``python3``.
        config: The ssh configuration that replaces ``~/.ssh/config``.
    """

    destination: str
    python: str | None = None
    config: Path | None = None


@dataclass(frozen=True)
class Board:
    """An open connection to a board that has a copy of the files of ``artifacts``."""

    target: Target
    connection: Connection

    def inside(self, folder: str) -> Board:
        """The same board, with the artifacts of a folder of its files."""
        return replace(self, target=replace(self.target, folder=f"{self.target.folder}/{folder}"))

    def compare(
        self,
        artifacts: Sequence[Artifact],
        inputs: Tensors,
        comparison: Comparison = Comparison(),  # noqa: B008
    ) -> tuple[MedianLatency, ...]:
        """The latency of each artifact, measured in turns on the board.

        Raises :class:`DeviceError` if the connection is lost.
        """
        progress.report(f"measuring {counted(len(artifacts), 'artifact')} on {self.target.name}")
        # Each block takes as long as the limit of a runtime at most; so long only if it hangs.
        timeout = CALL_TIMEOUT + SECONDS + run_limits().seconds
        reply, _ = self.connection.call_with_tensors(
            compare_on_this_device,
            {
                "folder": self.target.folder,
                "artifacts": [artifact.to_json() for artifact in artifacts],
                "comparison": asdict(comparison),
                "limits": asdict(run_limits()),
            },
            {name: array[:INPUT_SAMPLES] for name, array in inputs.items()},
            timeout=timeout,
        )
        return parse_latencies(reply, len(artifacts))

    def validate(
        self,
        bundle: Bundle,
        artifacts: tuple[Artifact, ...],
        *,
        dataset: Dataset | None = None,
        options: ValidationOptions = ValidationOptions(),  # noqa: B008
    ) -> Report:
        """Validate as :func:`edgeattn.validation.validate.validate` does, but run on the board."""
        progress.report(f"validating on {self.target.name}")
        with self.target.start() as worker:
            return validate(
                bundle,
                artifacts,
                lambda artifact: self.target.runner(worker, artifact, as_deployed=True),
                dataset=dataset,
                options=options,
            )


def check_board(address: BoardAddress, formats: Sequence[str]) -> Device:
    """The machine, if it can run files of all ``formats``.

    Raises :class:`UsageError` if the address is invalid, :class:`DeviceError` if the board does not
    respond, has no edgeattn or another version of it, and :class:`RuntimeUnavailableError` if a
    runtime is missing or wrong.
    """
    name = address.destination
    progress.report(f"checking {name}")
    device, checks, advice = check_host(name, address.python, address.config)
    if advice:
        raise DeviceError(advice[0].message, hint=advice[0].remedy)
    failing = [check for check in checks if check.format in formats and check.state != PASS]
    if failing:
        reasons = "; ".join(f"{check.format}: {check.reason or check.state}" for check in failing)
        missing = {check.format for check in failing}
        others = "".join(f" --format {item}" for item in formats if item not in missing)
        raise RuntimeUnavailableError(
            f"No runtime for {enumerated(sorted(missing), 'or')} files works on {name}: {reasons}",
            hint=f"Check the device: edgeattn doctor {name}"
            + (f". To measure other files only, pass{others}" if others else ""),
        )
    with _connected(address) as connection:
        _check_version(connection)
    return device


def cool_down(
    address: BoardAddress,
    read: Callable[[BoardAddress], Device] | None = None,
    wait: Callable[[float], object] = time.sleep,
) -> None:
    """Wait until a board is cool and not throttled.

    ``read`` describes the board, ``wait`` waits for seconds. Raises :class:`DeviceError` if it does
    not respond or is not cool after :data:`COOL_DOWN_S`.
    """
    described = (read or _describe)(address)
    waited = 0.0
    while _is_hot(described):
        if waited >= COOL_DOWN_S:
            conditions = ", ".join((described.conditions or {}).get("now", ()))
            raise DeviceError(
                f"{address.destination} did not cool down within {COOL_DOWN_S:g} s: "
                f"{described.temperature_c} °C{', ' if conditions else ''}{conditions}.",
                hint="Use the official power supply and a fan.",
            )
        progress.report(f"waiting until {address.destination} is below {COOL_C:g} °C")
        wait(COOL_POLL_S)
        waited += COOL_POLL_S
        described = (read or _describe)(address)


def _is_hot(device: Device) -> bool:
    hot = device.temperature_c is not None and device.temperature_c >= COOL_C
    return hot or bool((device.conditions or {}).get("now"))


def _describe(address: BoardAddress) -> Device:
    with ssh.connect(address.destination, address.config) as host:
        return parse_device(ssh.system_snapshot(host, address.python))


@contextlib.contextmanager
def open_board(address: BoardAddress, folder: Path, files: Mapping[str, str]) -> Iterator[Board]:
    """A connection to a board, with ``files`` (path in ``folder``: SHA-256) copied to it.

    The board keeps them in its cache, as ``bench --on`` does. Raises :class:`DeviceError` if it
    does not respond.
    """
    with _connected(address) as connection:
        connection.call(session.open_cache, digest=session.digest_of(files))
        send_files(connection, folder, files)
        copied = parse_folder(connection.call(session.assemble_files, files=dict(files)))
        command = connection.host.python_command(address.python, *WORKER_MODULE)
        target = Target(address.destination, copied, command, connection.host)
        yield Board(target, connection)


@contextlib.contextmanager
def _connected(address: BoardAddress) -> Iterator[Connection]:
    with (
        ssh.connect(address.destination, address.config) as host,
        ssh.worker_on(host, address.python) as worker,
    ):
        yield Connection(worker, host)


def _check_version(connection: Connection) -> None:
    name, hint = connection.host.destination, "Install this version with edgeattn deploy --install."
    try:
        reply: Any = connection.call(environment.installed_version)
    except DeviceError:
        raise
    except EdgeattnError as error:
        # Earlier versions do not have the function.
        raise DeviceError(f"{name} has another edgeattn than {__version__}.", hint=hint) from error
    with parsing("its version"):
        installed = text(reply)
    if installed != __version__:
        raise DeviceError(
            f"{name} has edgeattn {installed}, this machine has {__version__}.", hint=hint
        )
