"""A bundle to a device, judged there before it serves.

The steps, each of which a lost connection, a full disk or a reboot may end: look at the device,
copy what it lacks, hash every file there, judge there, measure there, keep the report there and
here, and switch over by one rename. Until that last step the old version serves, and a second
attempt goes on where the first one ended.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeattn import progress
from edgeattn.deployment.fleet import Work, on_each, worst
from edgeattn.deployment.results import (
    FAILED,
    REFUSED,
    ROLLED_BACK,
    SWITCHED,
    UNCHANGED,
    DeploymentOptions,
    DeploymentResult,
)
from edgeattn.errors import DeviceError, EdgeattnError, UsageError
from edgeattn.targets import transfer as sending

if TYPE_CHECKING:
    from edgeattn.bundle.bundle import Bundle
    from edgeattn.bundle.manifest import Artifact
    from edgeattn.device.info import Device
    from edgeattn.targets.ssh import SSHHost
    from edgeattn.tensors import Tensors
    from edgeattn.validation.report import Report

__all__ = [
    "DeploymentOptions",
    "DeploymentResult",
    "Work",
    "default_folder",
    "deploy",
    "on_each",
    "roll_back",
    "worst",
]


def default_folder(bundle: Path) -> str:
    """Where on a device a bundle goes unless told otherwise: ``edgeattn/NAME``."""
    name = bundle.absolute().name.removesuffix(".zip").removesuffix(".edge")
    if not re.fullmatch(r"\w[\w. -]*", name):
        raise UsageError(
            f"The bundle's name {name!r} makes no folder on a device.",
            hint="Say where it goes: --to edgeattn/NAME",
        )
    return f"edgeattn/{name}"


def deploy(
    bundle: Bundle,
    host: str,
    order: DeploymentOptions,
    work: Work | None = None,
) -> DeploymentResult:
    """Deploy ``bundle`` to ``host``; what goes wrong on the way is in the outcome.

    Raises :class:`UsageError` for a host that is none and :class:`BundleError` for a bundle that is
    not whole, before anything is done.
    """
    from edgeattn.targets import ssh

    ssh.parse(host)
    device: Device | None = None
    try:
        with ssh.connected(host, order.config) as remote:
            progress.report("looking")
            device, _ = look(remote)
            if order.install is not None:
                progress.report("installing")
                order.install(remote)
            with (work or Work()).on(ssh.worker_on(remote, order.python)) as child:
                return carry_out(bundle, remote, child, order, device=device)
    except EdgeattnError as error:
        return DeploymentResult(host, FAILED, device=device, error=error)
    except Exception as error:
        # A fault of ours, or a device that answers what it should not: other devices go on.
        fault = EdgeattnError(f"{type(error).__name__}: {error}")
        return DeploymentResult(host, FAILED, device=device, error=fault)


def look(remote: SSHHost) -> tuple[Device, dict[str, Any]]:
    """What a machine is, which need not have edgeattn, and what else it said of itself."""
    from edgeattn.device.info import device_from_snapshot
    from edgeattn.targets import ssh

    told = ssh.look(remote)
    return device_from_snapshot(told), told


def carry_out(
    bundle: Bundle,
    remote: SSHHost,
    child: sending.Caller,
    order: DeploymentOptions,
    *,
    device: Device | None = None,
) -> DeploymentResult:
    """The steps after the connection stands."""

    def ask(function: str, **arguments: Any) -> Any:
        return sending.ask(child, remote, function, **arguments)

    chosen = bundle.select(order.formats, order.schemes)
    start = ask("edgeattn.deployment.on_device.steps:begin", folder=order.folder)
    _same_edgeattn(remote, start)
    progress.report("asking its runtimes")
    _can_run(remote, chosen, ask("edgeattn.deployment.on_device.steps:runtimes"))
    files = bundle.file_hashes()
    sent = sending.send(child, remote, bundle.path, files)
    progress.report("hashing every file there")
    version = ask("edgeattn.deployment.on_device.steps:assemble", files=files)
    progress.report("judging there")
    which: dict[str, Any] = {"formats": list(order.formats), "schemes": list(order.schemes)}
    told, answers = sending.ask_both(
        child, remote, "edgeattn.deployment.on_device.steps:judge", version=version, **which
    )
    report = judged(bundle, chosen, told, answers)
    bench = None
    if order.measure and report.exit_code == 0:
        progress.report("measuring there")
        bench, _ = sending.ask_both(
            child,
            remote,
            "edgeattn.deployment.on_device.steps:measure",
            patience=sending.PATIENCE + order.seconds,
            version=version,
            runs=order.runs,
            seconds=order.seconds,
            **which,
        )
    outcome = DeploymentResult(
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
        outcome = replace(outcome, state=REFUSED)
    ask(
        "edgeattn.deployment.on_device.steps:note",
        version=version,
        report={**_plain(outcome.to_json()), "state": None},
    )
    if outcome.state == REFUSED:
        return outcome
    if outcome.state == SWITCHED:
        ask("edgeattn.deployment.on_device.steps:switch", version=version)
    return replace(
        outcome, removed=tuple(ask("edgeattn.deployment.on_device.steps:prune", keep=order.keep))
    )


def roll_back(host: str, order: DeploymentOptions, work: Work | None = None) -> DeploymentResult:
    """Let the version serve on ``host`` that served before."""
    from edgeattn.targets import ssh

    ssh.parse(host)
    try:
        with (
            ssh.connected(host, order.config) as remote,
            (work or Work()).on(ssh.worker_on(remote, order.python)) as child,
        ):
            start = sending.ask(
                child, remote, "edgeattn.deployment.on_device.steps:begin", folder=order.folder
            )
            told = sending.ask(child, remote, "edgeattn.deployment.on_device.steps:roll_back")
    except EdgeattnError as error:
        return DeploymentResult(host, FAILED, error=error)
    return DeploymentResult(host, ROLLED_BACK, start["folder"], told["to"], told["from"])


def judged(
    bundle: Bundle,
    chosen: tuple[Artifact, ...],
    told: Sequence[dict[str, Any]],
    answers: Tensors,
) -> Report:
    """The device's report, with the device's stage where this machine can run the artifact too.

    Raises :class:`DeviceError` where the device's verdict does not follow from its numbers.
    """
    from edgeattn import ArtifactReport, Check, Report, validate_isolated
    from edgeattn.validation import device_parity as parity

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
            outputs={
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
    return parity.add_device_stage(Report(tuple(reports)), here, bundle)


def _same_edgeattn(remote: SSHHost, start: dict[str, Any]) -> None:
    from edgeattn import __version__

    if start["edgeattn"] != __version__:
        raise DeviceError(
            f"{remote.destination} has edgeattn {start['edgeattn']}, and this one is "
            f"{__version__}: the same numbers must be judged by the same rules.",
            hint="Install this one there with --install.",
        )


def _can_run(remote: SSHHost, chosen: Sequence[Artifact], checks: Sequence[dict[str, Any]]) -> None:
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


def _plain(document: dict[str, Any]) -> dict[str, Any]:
    """Without numbers that JSON does not have."""
    import json

    return dict(json.loads(json.dumps(document), parse_constant=str))
