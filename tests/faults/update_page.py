"""Update the tables of planted faults and sound artifacts in ``docs/evidence.md``."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from .bundles import calibration_digits, convert_all
from .fault_table import END, PAGE, START, table, validate_faults, validate_sound


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.savez(folder / "calibration.npz", x=calibration_digits())
        bundles = convert_all(folder, folder / "calibration.npz")
        tables = table(validate_sound(bundles), validate_faults(bundles, folder))
    text = PAGE.read_text("utf-8")
    PAGE.write_text(
        text[: text.index(START)] + tables + text[text.index(END) + len(END) :], "utf-8"
    )


if __name__ == "__main__":
    main()
