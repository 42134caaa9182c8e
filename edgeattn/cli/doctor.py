"""``edgeattn doctor``"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeattn.cli import options, output
from edgeattn.errors import UsageError

if TYPE_CHECKING:
    from edgeattn.device.advice import Finding
    from edgeattn.device.info import Device
    from edgeattn.device.runtime_check import RuntimeCheck

# Features that decide which kernels a runtime takes; the rest of a long list is for --json.
TOLD = ("asimd", "neon", "asimdhp", "asimddp", "i8mm", "avx2", "avx512f", "avx512_vnni", "amx_int8")


@click.command("doctor")
@click.argument("host", metavar="[USER@HOST]", required=False)
@options.device_python_option
@options.ssh_config_option
@options.json_option
def command(host: str | None, python: str | None, ssh_config: Path | None, as_json: bool) -> int:
    """Say which machine this or USER@HOST is, what installs and computes right there, what to do.

    Each runtime that is installed runs a tiny model in a process of its own, so that a crash
    becomes a line. Ends with 5 where no runtime works. A host needs nothing but a Python 3 to be
    looked at; without edgeattn there, its runtimes are told as not asked.
    """
    from edgeattn.device import info as device
    from edgeattn.device import runtime_check as probing
    from edgeattn.device.advice import findings

    hindered: tuple[Finding, ...] = ()
    if host is None:
        if python is not None or ssh_config is not None:
            raise UsageError("--python and --ssh-config are for another machine: give USER@HOST.")
        found, checks = device.describe(), probing.check_runtimes()
    else:
        from edgeattn.targets.host_check import check_host

        found, checks, hindered = check_host(host, python, ssh_config)
    advice = (*hindered, *findings(found, checks))
    works = any(check.state == probing.PASS for check in checks)
    if as_json:
        output.emit_json(as_document(found, checks, advice, works))
    else:
        click.echo(as_text(found, checks, advice))
    return 0 if works else 5


def as_document(
    found: Device, checks: tuple[RuntimeCheck, ...], advice: tuple[Finding, ...], works: bool
) -> dict[str, Any]:
    """The keys that scripts may rely on."""
    from dataclasses import asdict

    from edgeattn.device.info import fitting

    return {
        "verdict": "pass" if works else "fail",
        "device": found.to_json(),
        "wheels": [
            {"distribution": name, "fits": why is None, "reason": why}
            for name, why in fitting(found).items()
        ],
        "runtimes": [asdict(check) for check in checks],
        "findings": [asdict(finding) for finding in advice],
    }


def as_text(found: Device, checks: tuple[RuntimeCheck, ...], advice: tuple[Finding, ...]) -> str:
    from edgeattn.device.info import fitting

    fits = fitting(found)
    features = [name for name in TOLD if name in found.features]
    hot = "not told" if found.temperature_c is None else f"{found.temperature_c:.1f} degrees"
    rows = [
        ["board", found.board or "not told"],
        ["processor", f"{found.cpu or 'not told'}, {found.cores} cores, {found.machine}"],
        ["features", " ".join(features) or "none that matter here"],
        ["memory", _memory(found)],
        ["system", f"{found.os or 'not told'}, {found.libc}, Python {found.python}"],
        ["governor", found.governor or "not told"],
        ["temperature", hot],
        ["throttling", _throttling(found)],
        *([f"{name} wheel", why or "fits"] for name, why in fits.items()),
        *([f"{check.format} runtime", _runtime(check)] for check in checks),
    ]
    width = max(len(name) for name, _ in rows)
    lines = [f"{name.ljust(width)}  {text}" for name, text in rows]
    for finding in advice:
        lines += ["", f"{finding.level}: {finding.what}", f"  {finding.remedy}"]
    return "\n".join(lines)


def _memory(found: Device) -> str:
    if found.memory_bytes is None:
        return "not told"
    free = "" if found.available_bytes is None else f", {output.size(found.available_bytes)} free"
    return output.size(found.memory_bytes) + free


def _throttling(found: Device) -> str:
    if found.conditions is None:
        return "not told"
    now, ever = found.conditions["now"], found.conditions["since_start"]
    told = [f"now: {', '.join(now)}"] if now else []
    told += [f"since the start: {', '.join(ever)}"] if ever else []
    return "; ".join(told) or "none since the start"


def _runtime(check: RuntimeCheck) -> str:
    if check.state != "pass":
        return f"fails: {check.reason}" if check.state == "fail" else check.state
    xnnpack = {True: ", XNNPACK on", False: ", XNNPACK off", None: ""}[check.xnnpack]
    return f"{check.runtime}, computes right{xnnpack}"
