"""``edgeattn doctor``"""

from dataclasses import asdict
from typing import Any

import click

from edgeattn.cli import options, output
from edgeattn.cli.command import Command
from edgeattn.cli.terminal import styled_line
from edgeattn.device.advice import Advice
from edgeattn.device.info import Device
from edgeattn.device.runtime_check import RuntimeCheck
from edgeattn.errors import UsageError
from edgeattn.printable import Text, counted, join_lines

UNKNOWN = "unknown"
# CPU features that decide which kernels a runtime selects; --json lists all features.
RELEVANT_FEATURES = (
    *("asimd", "neon", "asimdhp", "asimddp", "i8mm"),
    *("avx2", "avx512f", "avx512_vnni", "amx_int8"),
)


@click.command("doctor", cls=Command)
@click.argument("host", metavar="[USER@HOST]", required=False)
@options.device_access
@options.json_option
def command(host: str | None, access: options.DeviceAccess, as_json: bool) -> int:
    """Check whether this machine, or USER@HOST, can run bundles, and suggest fixes.

    Prints the hardware, the runtime wheels that can be installed, and whether each installed
    runtime computes a tiny model correctly. The exit code is 5 if no runtime works. A remote host
    needs only Python 3; its runtimes are checked if edgeattn is installed on it.
    """
    from edgeattn.device import runtime_check
    from edgeattn.device.advice import advise
    from edgeattn.device.info import describe_device

    obstacles: tuple[Advice, ...] = ()
    if host is None:
        if access != options.DeviceAccess():
            raise UsageError(
                "--python and --ssh-config require USER@HOST.", hint="Add the host to check."
            )
        with output.progress(as_json):
            device, checks = describe_device(), runtime_check.check_runtimes()
    else:
        from edgeattn.targets.connection import check_host

        with output.progress(as_json):
            device, checks, obstacles = check_host(host, access.python, access.ssh_config)
    advice = (*obstacles, *advise(device, checks))
    works = any(check.state == runtime_check.PASS for check in checks)
    if as_json:
        output.emit_json(to_document(device, checks, advice, works))
    else:
        output.echo(format_text(device, checks, advice))
    return 0 if works else 5


def to_document(
    device: Device, checks: tuple[RuntimeCheck, ...], advice: tuple[Advice, ...], works: bool
) -> dict[str, Any]:
    """Return the document printed by ``--json``. Its keys are stable."""
    from edgeattn.device.wheels import wheel_incompatibilities

    return {
        "verdict": "pass" if works else "fail",
        "device": device.to_json(),
        "wheels": [
            {"distribution": name, "fits": reason is None, "reason": reason}
            for name, reason in wheel_incompatibilities(device).items()
        ],
        "runtimes": [asdict(check) for check in checks],
        "findings": [item.to_json() for item in advice],
    }


def format_text(
    device: Device, checks: tuple[RuntimeCheck, ...], advice: tuple[Advice, ...]
) -> Text:
    from edgeattn.device.wheels import wheel_incompatibilities

    features = [name for name in RELEVANT_FEATURES if name in device.features]
    celsius = device.temperature_c
    rows = [
        ["board", device.board or UNKNOWN],
        [
            "processor",
            f"{device.cpu or UNKNOWN}, {counted(device.cores, 'core')}, {device.machine}",
        ],
        ["CPU features", " ".join(features) or "none relevant to the runtimes"],
        ["memory", _memory(device)],
        ["system", f"{device.os or UNKNOWN}, {device.libc}, Python {device.python}"],
        ["CPU governor", device.governor or UNKNOWN],
        ["temperature", UNKNOWN if celsius is None else f"{celsius:.1f} °C"],
        ["throttling", _throttling(device)],
        *(
            [f"{name} wheel", reason or "installable"]
            for name, reason in wheel_incompatibilities(device).items()
        ),
        *([f"{check.format} runtime", _runtime(check)] for check in checks),
    ]
    width = max(len(name) for name, _ in rows)
    lines = [f"{name.ljust(width)}  {text}" for name, text in rows]
    for item in advice:
        lines += ["", styled_line(f"{item.level}: {item.message}"), f"  {item.remedy}"]
    return join_lines(lines)


def _memory(device: Device) -> str:
    if device.memory_bytes is None:
        return UNKNOWN
    total = output.size(device.memory_bytes)
    if device.available_bytes is None:
        return total
    return f"{total}, {output.size(device.available_bytes)} available"


def _throttling(device: Device) -> str:
    if device.conditions is None:
        return UNKNOWN
    phases = (("now", "now"), ("since_start", "since boot"))
    texts = [
        f"{label}: {', '.join(device.conditions[key])}"
        for key, label in phases
        if device.conditions[key]
    ]
    return "; ".join(texts) or "none since boot"


def _runtime(check: RuntimeCheck) -> str:
    if check.state != "pass":
        return f"fails: {check.reason}" if check.state == "fail" else check.state
    xnnpack = {True: ", XNNPACK on", False: ", XNNPACK off", None: ""}[check.xnnpack]
    return f"{check.runtime}, works{xnnpack}"
