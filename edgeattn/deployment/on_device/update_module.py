"""On a device: the Mender Update Module ``edgeattn``, which installs bundles as versions.

Mender calls it once per state, with the name of the state and a folder that has the payload
(protocol: Mender, Documentation/update-modules-v3-file-api.md). A script that ``edgeattn fleet
mender-module`` writes starts it.

    ArtifactInstall    adds the bundle as a version and validates it; serves it if it passes
    ArtifactCommit     fails unless the bundle serves, is intact and has passed
    ArtifactRollback   serves the version that served before
    Cleanup            removes old versions

Until the rename in ArtifactInstall, the old version serves. ``mender.json`` has both versions from
before that rename until Cleanup, so every state can run again after a power failure, and Mender can
roll back from each of them.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeattn.bundle.manifest import MALFORMED
from edgeattn.deployment.names import META_DATA_KEYS, PAYLOAD, check_bundle_name
from edgeattn.deployment.on_device.versions import CURRENT, REPORT, Versions, write_json
from edgeattn.errors import ArtifactError, BundleError, DeviceError, EdgeattnError
from edgeattn.files import sync
from edgeattn.metrics.verdict import PASS
from edgeattn.targets.on_device.file_store import PIECE_SIZE

if TYPE_CHECKING:
    from edgeattn.bundle.bundle import Bundle
    from edgeattn.deployment.results import DeploymentResult

ROOT = "/var/lib/edgeattn"
UPDATE = "mender.json"
# Answers to Mender's questions about the module.
ANSWERS = {"NeedsArtifactReboot": "No", "SupportsRollback": "Yes"}
# Seconds to wait for the lock of a process that is just ending.
LOCK_TIMEOUT = 10.0


@dataclass(frozen=True)
class ModuleOptions:
    """What the device allows and where it keeps bundles.

    Attributes:
        root: The folder of the folders of all bundles.
        allowed_signers: The file of those who may sign bundles; None accepts unsigned ones.
        allow_older: Whether a bundle may be older than the one that serves.
        keep: The number of versions that stay, including the one that serves.
    """

    root: Path = Path(ROOT)
    allowed_signers: Path | None = None
    allow_older: bool = False
    keep: int = 3


@dataclass(frozen=True)
class Payload:
    """The header of a Mender Artifact: which bundle it is, and which artifacts are validated."""

    name: str
    formats: tuple[str, ...]
    schemes: tuple[str, ...]

    @classmethod
    def read(cls, tree: Path) -> Payload:
        """Read ``header/meta-data``; raises :class:`BundleError` if it is malformed."""
        path = tree / "header" / "meta-data"
        try:
            document = json.loads(path.read_text("utf-8"))
            if set(document) != set(META_DATA_KEYS):
                raise ValueError
            lists = [document["formats"], document["schemes"]]
            if any(
                type(item) is not list or not all(type(x) is str for x in item) for item in lists
            ):
                raise TypeError
            return cls(check_bundle_name(document["name"]), *map(tuple, lists))
        except (*MALFORMED, OSError) as error:
            raise BundleError(
                "The Mender Artifact has no valid meta-data of edgeattn.",
                hint="Write it again: edgeattn fleet mender-artifact BUNDLE",
            ) from error


@dataclass(frozen=True)
class Update:
    """An update that Mender has not finished: the version that served before, and the new one."""

    before: str | None
    after: str

    @classmethod
    def read(cls, versions: Versions) -> Update | None:
        """The update of a bundle; None if there is none, or its file cannot be read."""
        try:
            document = json.loads((versions.root / UPDATE).read_text("utf-8"))
            before, after = document["before"], document["after"]
            for version in (after, *([] if before is None else [before])):
                versions.folder(version)
            return cls(before, after)
        except (*MALFORMED, OSError, DeviceError):
            return None

    def write(self, versions: Versions) -> None:
        write_json(versions.root / UPDATE, {"before": self.before, "after": self.after})


def artifact_install(tree: Path, payload: Payload, options: ModuleOptions) -> None:
    """Add the bundle as a version, validate it, and serve it.

    Raises an error, and leaves the version that serves, if the bundle is refused or its verdict is
    not a pass.
    """
    bundle = _open_payload(tree, options)
    with _locked(payload, options) as versions:
        _check_newer(bundle, versions, options)
        version = _add_version(bundle, versions)
        current = versions.current()
        result = _validated(versions, version, payload)
        if result.verdict != PASS:
            raise ArtifactError(
                f"The verdict on {version} is {result.verdict}: {_reason(result)} "
                f"{current or 'No version'} still serves."
            )
        earlier = Update.read(versions)
        if earlier is not None and earlier.after == version == current:
            # Interrupted after the rename: the same update continues.
            return
        Update(current, version).write(versions)
        if version != current:
            versions.switch(version)


def artifact_commit(tree: Path, payload: Payload, options: ModuleOptions) -> None:
    """Raise an error unless the bundle of the payload serves, is intact and has passed."""
    from edgeattn.bundle.bundle import Bundle

    installed = _open_payload(tree, options).file_hashes()
    with _locked(payload, options) as versions:
        current = versions.current()
        serving = None if current is None else Bundle.open(versions.bundle(current)).file_hashes()
        if current is None or serving != installed:
            raise BundleError(f"Not the new version serves in {versions.root}, but {current}.")
        try:
            report = json.loads((versions.folder(current) / REPORT).read_text("utf-8"))
            verdict = str(report["verdict"])
        except (*MALFORMED, OSError) as error:
            raise BundleError(f"The report on {current} cannot be read.") from error
        if verdict != PASS:
            raise ArtifactError(f"The verdict on {current} is {verdict}.")


def artifact_rollback(tree: Path, payload: Payload, options: ModuleOptions) -> None:
    """Serve the version that served before the update, if the new one serves."""
    from edgeattn.bundle.bundle import Bundle

    with _locked(payload, options) as versions:
        update = Update.read(versions)
        if update is None or versions.current() != update.after or update.before == update.after:
            return
        if update.before is None:
            versions.remove_current()
        else:
            Bundle.open(versions.bundle(update.before))
            versions.switch(update.before)


def cleanup(tree: Path, payload: Payload, options: ModuleOptions) -> None:
    """Remove old versions and what an interrupted update left."""
    with _locked(payload, options) as versions:
        # The hidden files are of writes that were interrupted before their rename.
        for name in (UPDATE, f".{UPDATE}", f".{CURRENT}"):
            (versions.root / name).unlink(missing_ok=True)
        sync(versions.root)
        versions.prune(options.keep)


STATES: dict[str, Callable[[Path, Payload, ModuleOptions], None]] = {
    "ArtifactInstall": artifact_install,
    "ArtifactVerifyReboot": artifact_commit,
    "ArtifactCommit": artifact_commit,
    "ArtifactRollback": artifact_rollback,
    "Cleanup": cleanup,
}


@contextlib.contextmanager
def _locked(payload: Payload, options: ModuleOptions) -> Iterator[Versions]:
    versions = Versions(options.root / payload.name)
    with versions.lock(LOCK_TIMEOUT):
        yield versions


def _open_payload(tree: Path, options: ModuleOptions) -> Bundle:
    """The bundle that Mender downloaded, verified, and signed if the device requires it."""
    from edgeattn.bundle.bundle import Bundle
    from edgeattn.bundle.signing import open_signed

    # It is unpacked beside the payload, where Mender removes it.
    os.environ["XDG_CACHE_HOME"] = str(tree / "tmp")
    path, allowed = tree / "files" / PAYLOAD, options.allowed_signers
    return Bundle.open(path) if allowed is None else open_signed(path, allowed)


def _check_newer(bundle: Bundle, versions: Versions, options: ModuleOptions) -> None:
    created = versions.created()
    if options.allow_older or created is None or (bundle.manifest.created or 0) >= created:
        return
    raise BundleError(
        f"The bundle was converted before the one that serves in {versions.root}.",
        hint="To accept it nevertheless, write the module with --allow-older.",
    )


def _add_version(bundle: Bundle, versions: Versions) -> str:
    """Copy the files of ``bundle`` into the store, and create a version of them."""
    files = bundle.file_hashes()
    paths = {digest: bundle.path / relative for relative, digest in files.items()}
    sizes = {digest: path.stat().st_size for digest, path in paths.items()}
    for digest, offset in versions.store.missing(sizes).items():
        with paths[digest].open("rb") as file:
            file.seek(offset)
            complete = False
            # At least once: an empty file is one empty piece.
            while not complete:
                piece = file.read(PIECE_SIZE)
                if not piece and offset < sizes[digest]:
                    raise BundleError(f"{paths[digest].name} changed while it was copied.")
                complete = versions.store.add_piece(digest, offset, piece, sizes[digest])
                offset += len(piece)
    return versions.add(files)


def _validated(versions: Versions, version: str, payload: Payload) -> DeploymentResult:
    """The result of the validation on this device, saved as the report of the version."""
    from edgeattn.bundle.bundle import Bundle
    from edgeattn.deployment.results import REFUSED, SWITCHED, DeploymentResult
    from edgeattn.validation import validate

    bundle = Bundle.open(versions.bundle(version))
    report = validate.validate_isolated(bundle, bundle.select(payload.formats, payload.schemes))
    result = DeploymentResult(
        platform.node() or "this device",
        SWITCHED,
        folder=str(versions.root),
        version=version,
        previous=versions.current(),
        report=report,
    )
    # JSON has no infinity and no NaN: they become strings.
    document = json.loads(json.dumps(result.to_json()), parse_constant=str)
    document["state"] = SWITCHED if result.verdict == PASS else REFUSED
    write_json(versions.folder(version) / REPORT, document)
    return result


def _reason(result: DeploymentResult) -> str:
    reasons = []
    for artifact in () if result.report is None else result.report.artifacts:
        check = next(iter((*artifact.failed, *(check for _, check in artifact.open_limits))), None)
        if artifact.reason:
            reasons.append(f"{artifact.artifact.label}: {artifact.reason}")
        elif check is not None:
            reasons.append(f"{artifact.artifact.label}: {check.metric} is {check.value:.3g}.")
    return " ".join(reasons)


def run_state(state: str, tree: Path, options: ModuleOptions) -> None:
    """Run one state of the protocol; a state that needs no work, or an unknown one, does nothing.

    Raises :class:`EdgeattnError` if it fails, whereupon Mender rolls back.
    """
    function = STATES.get(state)
    if function is None:
        return
    if state == "Cleanup" and not (tree / "header" / "meta-data").is_file():
        # The download failed before the header was read, so there is nothing to clean up.
        return
    function(tree, Payload.read(tree), options)


def main(arguments: Sequence[str] | None = None) -> int:
    """The module's process: print the answer to a question, or run a state."""
    parser = argparse.ArgumentParser(prog="edgeattn update module")
    parser.add_argument("--root", type=Path, default=Path(ROOT))
    parser.add_argument("--require-signature", dest="allowed_signers", type=Path)
    parser.add_argument("--allow-older", action="store_true")
    parser.add_argument("--keep", type=int, default=ModuleOptions.keep)
    parser.add_argument("state")
    parser.add_argument("tree", type=Path, nargs="?", default=Path())
    values: dict[str, Any] = vars(parser.parse_args(arguments))
    state, tree = values.pop("state"), values.pop("tree")
    if state in ANSWERS:
        print(ANSWERS[state])
        return 0
    try:
        run_state(state, tree, ModuleOptions(**values))
    except EdgeattnError as error:
        print(f"edgeattn: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"edgeattn: {error.hint}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"edgeattn: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
