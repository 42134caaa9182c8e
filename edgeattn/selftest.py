"""``python -m edgeattn.selftest BUNDLE``: does this device run this bundle right?

What a fresh device is asked first, in one command: the runtimes that are installed, a tiny model in
each, then every artifact of the bundle held to what Keras computed. Ends as ``edgeattn validate``
does: 0 pass, 1 a check failed, 5 nothing could be run.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from edgeattn.errors import EdgeattnError


def selftest(bundle: Path) -> tuple[list[str], int]:
    """What was found, line by line, and the exit code."""
    from edgeattn.bundle.bundle import Bundle
    from edgeattn.device import runtime_check
    from edgeattn.validation.validate import validate_isolated

    lines = []
    for check in runtime_check.check_runtimes():
        xnnpack = {True: ", XNNPACK on", False: ", XNNPACK off", None: ""}[check.xnnpack]
        told = f"{check.runtime or check.format} {check.state}{xnnpack}"
        lines.append(told + (f": {check.reason}" if check.reason else ""))
    opened = Bundle.open(bundle)
    report = validate_isolated(opened, opened.select())
    for item in report.artifacts:
        lines.append(f"{item.artifact.label}: {item.verdict}")
        if item.reason:
            lines.append(f"  {item.reason}")
        lines += [f"  {check.metric} of {check.output}: {check.value:.3g}" for check in item.failed]
    return [*lines, f"verdict: {report.verdict}"], report.exit_code


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    parser = argparse.ArgumentParser(
        prog="python -m edgeattn.selftest", description="Does this device run this bundle right?"
    )
    parser.add_argument("bundle", type=Path, help="the bundle's folder")
    asked = parser.parse_args(arguments)
    try:
        lines, code = selftest(asked.bundle)
    except EdgeattnError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    print("\n".join(lines))
    sys.exit(code)


if __name__ == "__main__":
    main()
