"""Runs the states of the Update Module, interrupted before every change of the disk in turn.

The device is a folder of this machine and the runtimes are the NumPy model. Run as a script, see
:func:`main`.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import artifacts
from interruption import in_process, record_changes
from local_device import replace_runtimes

from edgeattn.bundle.bundle import Bundle
from edgeattn.bundle.manifest import MANIFEST, sha256
from edgeattn.bundle.packing import pack
from edgeattn.deployment.names import PAYLOAD
from edgeattn.deployment.on_device.update_module import UPDATE
from edgeattn.deployment.on_device.update_module import main as run_module

NAME = "dense"


def write_tree(folder: Path, bundle: Bundle, **meta_data: Any) -> Path:
    """The folder that Mender passes to the module, without what the module does not read."""
    for name in ("header", "files", "tmp"):
        (folder / name).mkdir(parents=True)
    document = {"name": NAME, "formats": [], "schemes": [], **meta_data}
    (folder / "header/meta-data").write_text(json.dumps(document))
    pack(bundle, folder / "files" / PAYLOAD)
    return folder


def serving(root: Path) -> str | None:
    """The SHA-256 of the current version's manifest, once all its files are verified."""
    current = root / NAME / "current"
    if not current.is_symlink():
        return None
    Bundle.open(current)
    return sha256(current / MANIFEST)


def leftovers(root: Path) -> list[str]:
    """Names of files on the device that belong to no version."""
    folder = root / NAME
    records = [json.loads(path.read_text()) for path in folder.glob("versions/*/record.json")]
    digests = {digest for record in records for digest in record["files"].values()}
    expected = {"lock", "objects", "partial", "versions", "current"}
    return [
        *(path.name for path in folder.iterdir() if path.name not in expected),
        *(path.name for path in folder.glob("partial/*")),
        *(path.name for path in folder.glob("objects/*") if path.name not in digests),
    ]


def run_states(root: Path, tree: Path, states: Sequence[str], keep: int = 3) -> int:
    """The exit code of the first state that fails, or 0."""
    options = ["--root", str(root), "--keep", str(keep)]
    return next((code for state in states if (code := run_module([*options, state, str(tree)]))), 0)


# What Mender does after a power failure in a state, and which bundle then serves: its daemon rolls
# back or repeats the state; a person repeats `mender install`.
ROLLED_BACK = (("ArtifactRollback", "ArtifactFailure", "Cleanup"), "old.edge")
INSTALLED = (("ArtifactInstall", "ArtifactCommit", "Cleanup"), "new.edge")
RECOVERIES = {
    "ArtifactInstall": (ROLLED_BACK, INSTALLED),
    "ArtifactCommit": (ROLLED_BACK, INSTALLED, (("ArtifactCommit", "Cleanup"), "new.edge")),
    "ArtifactRollback": (ROLLED_BACK,),
    "Cleanup": (
        (("Cleanup",), "new.edge"),
        (("ArtifactCommit", "Cleanup"), "new.edge"),
        INSTALLED,
    ),
}
BEFORE = {
    "ArtifactInstall": (),
    "ArtifactCommit": ("ArtifactInstall",),
    "ArtifactRollback": ("ArtifactInstall",),
    "Cleanup": ("ArtifactInstall", "ArtifactCommit"),
}


def main(folder: str, mode: str, step: str = "1") -> None:
    """Update a device with one bundle to a second one; ``mode`` is "kill" or "full".

    Each state is interrupted before every change, or every ``step``-th one. Afterwards, one of the
    two bundles must serve, intact, and every recovery must end as it promises, with no other files.
    Prints the violations and the numbers of changes as JSON.
    """
    replace_runtimes()
    base = Path(folder)
    old = artifacts.write_dense_bundle(base / "old.edge", count=64)
    new = artifacts.write_dense_bundle(base / "new.edge", count=80)
    names = {sha256(b.path / MANIFEST): b.path.name for b in (old, new)}
    tree = write_tree(base / "tree", new)
    pristine = base / "pristine"
    code = run_states(
        pristine,
        write_tree(base / "first", old),
        ("ArtifactInstall", "ArtifactCommit", "Cleanup"),
    )
    assert code == 0
    violations: list[str] = []
    counts = {}

    def device(state: str) -> Path:
        root = base / "device"
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(pristine, root, symlinks=True)
        assert run_states(root, tree, BEFORE[state]) == 0
        return root

    def run(root: Path, states: Sequence[str], stop_at: int | None) -> Any:
        def action() -> Any:
            changes = record_changes(root, stop_at, mode)
            return {"code": run_states(root, tree, states, keep=1), "changes": changes.all()}

        return in_process(action)

    for state, recoveries in RECOVERIES.items():
        changes = run(device(state), (state,), None)["changes"]
        counts[state] = len(changes)
        for number, change in list(enumerate(changes, 1))[:: int(step)]:
            for states, expected in recoveries:
                root = device(state)
                place = f"{state}, at {change}, then {states[0]}"
                interrupted = run(root, (state,), number)
                if mode == "kill" and interrupted is not None:
                    violations.append(f"{place}: the process survived")
                if names.get(serving(root) or "") is None:
                    violations.append(f"{place}: {serving(root)} serves")
                recovered = run(root, states, None)
                if recovered is None or recovered["code"]:
                    violations.append(f"{place}: {recovered}")
                elif names.get(serving(root) or "") != expected:
                    violations.append(f"{place}: {names.get(serving(root) or '')} serves")
                elif leftovers(root) or (root / NAME / UPDATE).exists():
                    violations.append(f"{place}: left over {leftovers(root)}")
    print(json.dumps({"changes": counts, "violations": violations}))


if __name__ == "__main__":
    main(*sys.argv[1:])
