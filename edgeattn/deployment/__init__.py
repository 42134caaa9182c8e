"""A bundle to a device, judged there before it serves.

The steps, each of which a lost connection, a full disk or a reboot may end: look at the device,
copy what it lacks, hash every file there, judge there, measure there, keep the report there and
here, and switch over by one rename. Until that last step the old version serves, and a second
attempt goes on where the first one ended.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeattn.deployment import sending
from edgeattn.errors import DeviceError, EdgeattnError, UsageError

if TYPE_CHECKING:
    from edgeattn.bundle import Artifact, Bundle
    from edgeattn.child import Child
    from edgeattn.device import Device
    from edgeattn.remote import Remote
    from edgeattn.tensors import Tensors
    from edgeattn.validation import Report

SWITCHED, UNCHANGED, REFUSED = "serves now", "served already", "refused"
ROLLED_BACK, FAILED = "rolled back", "failed"
# Hosts that are deployed to at the same time.
SIDE_BY_SIDE = 8

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Order:
    """What to do on each device.

    ``folder`` is one of the device, from its user's home folder unless it is absolute. Artifacts
    of ``formats`` and ``schemes`` are judged and measured, all of them where none is named.
    ``python`` is the device's, ``config`` stands in for ``~/.ssh/config``. ``install`` prepares
    the device first; it is given the connection.
    """

    folder: str
    formats: tuple[str, ...] = ()
    schemes: tuple[str, ...] = ()
    runs: int = 700
    seconds: float = 10.0
    measure: bool = True
    keep: int = 3
    python: str | None = None
    config: Path | None = None
    install: Callable[[Remote], object] | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of a device; ``error`` says why it did not come to an end."""

    host: str
    state: str
    folder: str | None = None
    version: str | None = None
    previous: str | None = None
    sent: int = 0
    device: Device | None = None
    report: Report | None = None
    bench: dict[str, Any] | None = None
    removed: tuple[str, ...] = ()
    error: EdgeattnError | None = field(default=None, compare=False)

    @property
    def exit_code(self) -> int:
        if self.error is not None:
            return self.error.exit_code
        return 0 if self.report is None else self.report.exit_code

    def to_json(self) -> dict[str, Any]:
        told = None
        if self.error is not None:
            told = {"message": self.error.message, "hint": self.error.hint}
        return {
            "host": self.host,
            "state": self.state,
            "verdict": "not run" if self.report is None else self.report.verdict,
            "exit_code": self.exit_code,
            "folder": self.folder,
            "version": self.version,
            "previous": self.previous,
            "bytes_sent": self.sent,
            "removed": list(self.removed),
            "device": None if self.device is None else self.device.to_json(),
            "artifacts": [] if self.report is None else self.report.to_json()["artifacts"],
            "bench": self.bench,
            "error": told,
        }


def default_folder(bundle: Path) -> str:
    """Where on a device a bundle goes unless told otherwise: ``edgeattn/NAME``."""
    name = bundle.absolute().name.removesuffix(".zip").removesuffix(".edge")
    if not re.fullmatch(r"\w[\w. -]*", name):
        raise UsageError(
            f"The bundle's name {name!r} makes no folder on a device.",
            hint="Say where it goes: --to edgeattn/NAME",
        )
    return f"edgeattn/{name}"


class Work:
    """Deployments under way on several threads, which can be broken off from another."""

    def __init__(self) -> None:
        self._children: set[Child] = set()
        self._ended = False
        self._turn = threading.Lock()

    @contextlib.contextmanager
    def on(self, child: Child) -> Iterator[Child]:
        with self._turn:
            if self._ended:
                raise DeviceError("Interrupted before it began.")
            self._children.add(child)
        try:
            with child:
                yield child
        finally:
            with self._turn:
                self._children.discard(child)

    def end(self) -> None:
        """Break off what is under way, and let nothing more begin: nothing is switched any more."""
        with self._turn:
            self._ended = True
            for child in self._children:
                child.kill()


def deploy(
    bundle: Bundle,
    host: str,
    order: Order,
    on_progress: Progress | None = None,
    work: Work | None = None,
) -> Outcome:
    """Deploy ``bundle`` to ``host``; what goes wrong on the way is in the outcome.

    Raises :class:`UsageError` for a host that is none and :class:`BundleError` for a bundle that is
    not whole, before anything is done.
    """
    from edgeattn import remote as ssh

    ssh.parse(host)
    bundle.verify()
    tell = on_progress or _quiet
    device: Device | None = None
    try:
        with ssh.connected(host, order.config) as remote:
            tell("looking")
            device, _ = look(remote)
            if order.install is not None:
                tell("installing")
                order.install(remote)
            with (work or Work()).on(ssh.child_of(remote, order.python)) as child:
                return carry_out(bundle, remote, child, order, tell, device=device)
    except EdgeattnError as error:
        return Outcome(host, FAILED, device=device, error=error)


def look(remote: Remote) -> tuple[Device, dict[str, Any]]:
    """What a machine is, which need not have edgeattn, and what else it said of itself."""
    from edgeattn import device
    from edgeattn import remote as ssh

    told = ssh.look(remote)
    return device.from_look(told), told


def carry_out(
    bundle: Bundle,
    remote: Remote,
    child: sending.Caller,
    order: Order,
    tell: Progress,
    *,
    device: Device | None = None,
) -> Outcome:
    """The steps after the connection stands."""
    from edgeattn.deployment.receiver import files_of

    def ask(name: str, **arguments: Any) -> Any:
        return sending.ask(child, remote, name, **arguments)

    chosen = bundle.select(order.formats, order.schemes)
    start = ask("begin", folder=order.folder)
    _same_edgeattn(remote, start)
    tell("asking its runtimes")
    _can_run(remote, chosen, ask("runtimes"))
    files = files_of(bundle)
    sent = sending.send(child, remote, bundle.path, files, tell)
    tell("hashing every file there")
    version = ask("assemble", files=files)
    tell("judging there")
    which: dict[str, Any] = {"formats": list(order.formats), "schemes": list(order.schemes)}
    told, answers = sending.ask_both(child, remote, "judge", None, version=version, **which)
    report = judged(bundle, chosen, told, answers)
    bench = None
    if order.measure and report.exit_code == 0:
        tell("measuring there")
        bench = ask("measure", version=version, runs=order.runs, seconds=order.seconds, **which)
    outcome = Outcome(
        remote.destination,
        UNCHANGED if start["current"] == version else SWITCHED,
        start["folder"],
        version,
        start["current"],
        sent,
        device,
        report,
        bench,
    )
    if report.exit_code:
        outcome = _with(outcome, state=REFUSED)
    ask("note", version=version, report={**_plain(outcome.to_json()), "state": None})
    if outcome.state == REFUSED:
        return outcome
    if outcome.state == SWITCHED:
        ask("switch", version=version)
    return _with(outcome, removed=tuple(ask("prune", keep=order.keep)))


def roll_back(host: str, order: Order, work: Work | None = None) -> Outcome:
    """Let the version serve on ``host`` that served before."""
    from edgeattn import remote as ssh

    ssh.parse(host)
    try:
        with (
            ssh.connected(host, order.config) as remote,
            (work or Work()).on(ssh.child_of(remote, order.python)) as child,
        ):
            start = sending.ask(child, remote, "begin", folder=order.folder)
            told = sending.ask(child, remote, "roll_back")
    except EdgeattnError as error:
        return Outcome(host, FAILED, error=error)
    return Outcome(host, ROLLED_BACK, start["folder"], told["to"], told["from"])


def on_each(hosts: Sequence[str], action: Callable[[str, Work], Outcome]) -> tuple[Outcome, ...]:
    """``action`` for every host, several at a time; the outcomes in the order of ``hosts``.

    Ctrl-C and the like break all of them off.
    """
    from concurrent.futures import ThreadPoolExecutor

    work = Work()
    with ThreadPoolExecutor(min(len(hosts), SIDE_BY_SIDE)) as pool:
        under_way = [pool.submit(action, host, work) for host in hosts]
        try:
            return tuple(each.result() for each in under_way)
        except BaseException:
            for each in under_way:
                each.cancel()
            work.end()
            raise


def worst(outcomes: Sequence[Outcome]) -> int:
    """The exit code for all: a fault of ours first, then a failed check, then what was refused."""
    codes = {outcome.exit_code for outcome in outcomes}
    return next((code for code in (70, 1, 4, 2, 3, 5, 6) if code in codes), 0)


def judged(
    bundle: Bundle,
    chosen: tuple[Artifact, ...],
    told: Sequence[dict[str, Any]],
    answers: Tensors,
) -> Report:
    """The device's report, with the device's stage where this machine can run the artifact too.

    Raises :class:`DeviceError` where the device's verdict does not follow from its numbers.
    """
    from edgeattn import ArtifactReport, Check, Report, parity, validate_isolated

    by_path = {item.path: item for item in chosen}
    reports = []
    for number, item in enumerate(told):
        prefix = f"{number}/"
        there = ArtifactReport(
            by_path[item["path"]],
            item["runtime"],
            tuple(Check(**{**check, "heads": tuple(check["heads"])}) for check in item["checks"]),
            reason=item["reason"],
            broken=item["broken"],
            answers={
                name.removeprefix(prefix): array
                for name, array in answers.items()
                if name.startswith(prefix)
            },
        )
        if there.verdict != item["verdict"]:
            raise DeviceError(
                f"The device says {item['verdict']} of {there.artifact.label}, and its numbers "
                f"say {there.verdict}.",
                hint="Is the edgeattn there this one? Install it with --install.",
            )
        reports.append(there)
    here = validate_isolated(bundle, chosen)
    return parity.with_device(Report(tuple(reports)), here, bundle)


def _same_edgeattn(remote: Remote, start: dict[str, Any]) -> None:
    from edgeattn import __version__

    if start["edgeattn"] != __version__:
        raise DeviceError(
            f"{remote.destination} has edgeattn {start['edgeattn']}, and this one is "
            f"{__version__}: the same numbers must be judged by the same rules.",
            hint="Install this one there with --install.",
        )


def _can_run(remote: Remote, chosen: Sequence[Artifact], checks: Sequence[dict[str, Any]]) -> None:
    """Before anything is copied: a runtime that computes a tiny model right."""
    works = {check["format"] for check in checks if check["state"] == "pass"}
    if not any(item.format in works for item in chosen):
        asked = sorted({item.format for item in chosen})
        told = "; ".join(
            f"{check['format']}: {check['reason'] or check['state']}"
            for check in checks
            if check["format"] in asked
        )
        raise DeviceError(
            f"No runtime for {' or '.join(asked)} files works on {remote.destination}: {told}",
            hint=f"Ask: edgeattn doctor {remote.destination}",
        )


def _with(outcome: Outcome, **changes: Any) -> Outcome:
    from dataclasses import replace

    return replace(outcome, **changes)


def _plain(document: dict[str, Any]) -> dict[str, Any]:
    """Without numbers that JSON does not have."""
    import json

    return dict(json.loads(json.dumps(document), parse_constant=str))


def _quiet(message: str) -> None:
    pass
