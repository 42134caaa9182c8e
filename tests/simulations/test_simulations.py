"""A true drop of the largest accepted size passes in at most 2.5% of simulated datasets.

``make simulations`` runs all simulations and writes their table into ``docs/verdict.md``.
"""

import pytest

from simulations.experiments import SIZES, TOLERATED, settings
from simulations.page import PAGE, row

SETTINGS = {
    f"{setting.question}, {setting.fault}, {setting.margin:g}": setting for setting in settings()
}
AMOUNTS = {name for name, setting in SETTINGS.items() if setting.question == "R²"}


@pytest.mark.parametrize("name", sorted(SETTINGS.keys() - AMOUNTS))
def test_the_score_of_decisions(name):
    shares = {size: SETTINGS[name].passed(size) for size in SIZES}
    assert max(shares.values()) <= TOLERATED, shares


@pytest.mark.parametrize("share", ["100%", "10%", "1%"])
@pytest.mark.parametrize(
    ("margin", "size"),
    [("0.2", 500), ("0.02", 20), pytest.param("0.02", 3000, marks=pytest.mark.long)],
)
def test_amounts(share, margin, size):
    setting = SETTINGS.get(f"R², {share} of samples off, {margin}")
    if setting is not None:
        assert setting.passed(size) <= TOLERATED


def test_the_page_shows_the_simulations():
    """The rows of decisions; those of amounts take minutes."""
    text = PAGE.read_text("utf-8")
    for name in SETTINGS.keys() - AMOUNTS:
        assert row(SETTINGS[name]) in text
    for name in AMOUNTS:
        setting = SETTINGS[name]
        assert f"| {setting.question} | {setting.fault} | {100 * setting.margin:g} | " in text
