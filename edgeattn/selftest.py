"""``python -m edgeattn.selftest BUNDLE``: check the runtimes and the bundle on this device.

Runs a tiny model in every installed runtime, then compares every artifact of the bundle with the
outputs of Keras. The exit code is that of ``edgeattn validate``: 0 pass, 1 a check failed, 5
nothing could be run.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from edgeattn.errors import EdgeattnError
from edgeattn.printable import join_lines


def selftest(path: Path) -> tuple[list[str], int]:
    """The results as lines of text, and the exit code."""
    from edgeattn.bundle.bundle import Bundle
    from edgeattn.device import runtime_check
    from edgeattn.validation.validate import validate_isolated

    lines = []
    for check in runtime_check.check_runtimes():
        xnnpack = {True: ", XNNPACK on", False: ", XNNPACK off", None: ""}[check.xnnpack]
        reason = f": {check.reason}" if check.reason else ""
        lines.append(f"{check.runtime or check.format} {check.state}{xnnpack}{reason}")
    bundle = Bundle.open(path)
    report = validate_isolated(bundle, bundle.select())
    for item in report.artifacts:
        lines.append(f"{item.artifact.label}: {item.verdict}")
        if item.reason:
            lines.append(f"  {item.reason}")
        lines += [f"  {check.metric} of {check.output}: {check.value:.3g}" for check in item.failed]
    return [*lines, f"verdict: {report.verdict}"], report.exit_code


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    parser = argparse.ArgumentParser(
        prog="python -m edgeattn.selftest",
        description="Check the runtimes and a bundle on this device.",
    )
    parser.add_argument("bundle", type=Path, help="folder or .zip file of the bundle")
    try:
        lines, code = selftest(parser.parse_args(arguments).bundle)
    except EdgeattnError as error:
        print(join_lines([f"Error: {error.message}", error.hint or ""]), file=sys.stderr)
        sys.exit(error.exit_code)
    print(join_lines(lines))
    sys.exit(code)


if __name__ == "__main__":
    main()
