"""The table of simulated risks in ``docs/verdict.md``."""

from __future__ import annotations

from pathlib import Path

from .experiments import EXPERIMENTS, SIZES, Setting, settings

PAGE = Path(__file__).parents[2] / "docs" / "verdict.md"
START, END = "<!-- simulated risk -->", "<!-- end of simulated risk -->"


def row(setting: Setting) -> str:
    cells = [f"{100 * setting.passed(size):.1f}" for size in SIZES]
    points = f"{100 * setting.margin:g}"
    return f"| {setting.question} | {setting.fault} | {points} | {' | '.join(cells)} |"


def table() -> str:
    """The generated part of the page."""
    head = "| decided by | fault | drop = limit (points) | "
    return "\n".join(
        [
            START,
            f"Datasets that pass (%), of {EXPERIMENTS:,} simulated ones, by number of samples:",
            "",
            head + " | ".join(f"{size:,}" for size in SIZES) + " |",
            "|---|---|" + "---|" * (1 + len(SIZES)),
            *map(row, settings()),
            END,
        ]
    )


def update() -> None:
    """Run all simulations, about two minutes, and write the table into the page."""
    text = PAGE.read_text("utf-8")
    before, after = text[: text.index(START)], text[text.index(END) + len(END) :]
    PAGE.write_text(before + table() + after, "utf-8")


if __name__ == "__main__":
    update()
