"""Write the tables of planted faults and sound artifacts into ``docs/verdict.md``."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from .judging import END, PAGE, START, judge_faults, judge_sound, table
from .making import bundles, digits_to_calibrate_on


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.savez(folder / "calibration.npz", x=digits_to_calibrate_on())
        made = bundles(folder, folder / "calibration.npz")
        told = table(judge_sound(made), judge_faults(made, folder))
    text = PAGE.read_text("utf-8")
    PAGE.write_text(text[: text.index(START)] + told + text[text.index(END) + len(END) :], "utf-8")


if __name__ == "__main__":
    main()
