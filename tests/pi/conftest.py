"""Emulated roots with this tree's light half in them, built once and shared."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from emulated import (
    BOOKWORM,
    CACHE,
    PI4,
    PI5,
    PROJECT,
    Board,
    CannotEmulate,
    Place,
    Recipe,
    as_board,
    built,
    compiled,
    install,
    light_requirements,
    wheel,
)


def dependencies(recipe: Recipe, made: Path) -> Path:
    """What edgeattn asks for on the target, kept by what was asked."""
    asked = light_requirements(recipe, made)
    # Debian brings numpy where the registry has no wheel of it.
    asked = [name for name in asked if not (recipe.architecture == "armhf" and "numpy" in name)]
    digest = hashlib.sha256(repr((recipe.key, asked)).encode())
    digest.update((PROJECT / "constraints.txt").read_bytes())
    folder = CACHE / f"light-{recipe.name}-{digest.hexdigest()[:12]}"
    if not folder.exists():
        aside = Path(tempfile.mkdtemp(prefix=".light-", dir=CACHE))
        try:
            extra = ["--no-deps"] if recipe.architecture == "armhf" else []
            install(recipe, aside, asked, *extra)
            aside.chmod(0o755)
            aside.rename(folder)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return folder


@pytest.fixture(scope="session")
def the_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="session")
def enter(
    the_wheel: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Recipe, Board], Place]:
    """A root with edgeattn installed, as a board; skips, saying why, where there can be none."""

    def open_as(recipe: Recipe, board: Board) -> Place:
        try:
            root = built(recipe)
            light = compiled(recipe, dependencies(recipe, the_wheel))
            ours = tmp_path_factory.mktemp("edgeattn")
            install(recipe, ours, [str(the_wheel)], "--no-deps")
            for folder in (ours, root / "usr/lib" / f"python{recipe.python}", root / "opt"):
                compiled(recipe, folder)
        except CannotEmulate as why:
            pytest.skip(str(why))
        place = as_board(root, recipe, board)
        return place.showing(light, "/opt/light").showing(ours, "/opt/edgeattn")

    return open_as


@pytest.fixture(scope="session", params=[PI4, PI5], ids=lambda board: board.name)
def either_pi(request: pytest.FixtureRequest, enter: Callable[[Recipe, Board], Place]) -> Place:
    """64-bit Bookworm as a Pi 4 and as a Pi 5: for what depends on the processor."""
    return enter(BOOKWORM, request.param)


@pytest.fixture(scope="session")
def pi(enter: Callable[[Recipe, Board], Place]) -> Place:
    """64-bit Bookworm as a Pi 4: for what does not."""
    return enter(BOOKWORM, PI4)
