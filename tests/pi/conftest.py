"""Emulated roots with edgeattn installed from this working tree, built once and shared."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from emulated import (
    BOOKWORM,
    CACHE,
    PI4,
    PI5,
    PROJECT,
    Board,
    CannotEmulateError,
    EmulatedPi,
    Recipe,
    as_board,
    build_project_wheel,
    build_root,
    install,
    light_requirements,
    precompile,
)
from sshd import SSHServer, local_sshd


def dependencies(recipe: Recipe, wheel: Path) -> Path:
    """A folder with the dependencies of ``wheel`` on the target, cached by their requirements."""
    required = light_requirements(recipe, wheel)
    # On 32-bit systems NumPy is Debian's, because PyPI has no wheel of it.
    required = [name for name in required if recipe.architecture != "armhf" or "numpy" not in name]
    digest = hashlib.sha256(repr((recipe.key, required)).encode())
    digest.update((PROJECT / "constraints.txt").read_bytes())
    folder = CACHE / f"light-{recipe.name}-{digest.hexdigest()[:12]}"
    if not folder.exists():
        temporary = Path(tempfile.mkdtemp(prefix=".light-", dir=CACHE))
        try:
            extra = ["--no-deps"] if recipe.architecture == "armhf" else []
            install(recipe, temporary, required, *extra)
            temporary.chmod(0o755)
            temporary.rename(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return folder


@pytest.fixture(scope="session")
def project_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_project_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="session")
def emulate(
    project_wheel: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Recipe, Board], EmulatedPi]:
    """Builds a root with edgeattn, as a board; skips with the reason if it cannot be emulated."""

    def build(recipe: Recipe, board: Board) -> EmulatedPi:
        try:
            root = build_root(recipe)
            light = precompile(recipe, dependencies(recipe, project_wheel))
            edgeattn = tmp_path_factory.mktemp("edgeattn")
            install(recipe, edgeattn, [str(project_wheel)], "--no-deps")
            for folder in (edgeattn, root / "usr/lib" / f"python{recipe.python}", root / "opt"):
                precompile(recipe, folder)
        except CannotEmulateError as reason:
            pytest.skip(str(reason))
        pi = as_board(root, recipe, board)
        return pi.mounted(light, "/opt/light").mounted(edgeattn, "/opt/edgeattn")

    return build


@pytest.fixture(
    scope="session",
    params=[PI4, pytest.param(PI5, marks=pytest.mark.long)],
    ids=lambda board: board.name,
)
def either_pi(
    request: pytest.FixtureRequest, emulate: Callable[[Recipe, Board], EmulatedPi]
) -> EmulatedPi:
    """64-bit Bookworm as a Pi 4 and as a Pi 5, for what depends on the processor."""
    return emulate(BOOKWORM, request.param)


@pytest.fixture(scope="session")
def pi(emulate: Callable[[Recipe, Board], EmulatedPi]) -> EmulatedPi:
    """64-bit Bookworm as a Pi 4."""
    return emulate(BOOKWORM, PI4)


@pytest.fixture(scope="module")
def board_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home folder of a board that is this machine."""
    return tmp_path_factory.mktemp("board")


@pytest.fixture(scope="module")
def server(board_home: Path) -> Iterator[SSHServer]:
    """The sshd of this board."""
    with local_sshd(board_home) as server:
        yield server
