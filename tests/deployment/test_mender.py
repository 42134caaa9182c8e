"""Mender Artifacts, and the states of the Update Module."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import artifacts
import numpy as np
import pytest
from mender_states import NAME, leftovers, serving, write_tree

from edgeattn.bundle.bundle import Bundle
from edgeattn.bundle.manifest import MANIFEST, sha256
from edgeattn.bundle.signing import sign
from edgeattn.deployment.mender import ArtifactOptions, write_mender_artifact
from edgeattn.deployment.names import PAYLOAD
from edgeattn.deployment.on_device.update_module import (
    UPDATE,
    ModuleOptions,
    Payload,
    Update,
    main,
    run_state,
)
from edgeattn.deployment.on_device.versions import Versions
from edgeattn.errors import (
    ArtifactError,
    BundleError,
    EdgeattnError,
    OutputError,
    SignatureError,
    UsageError,
)

PROJECT = Path(__file__).parents[2]
OPTIONS = ArtifactOptions("release 1", ("pi5", "pi4"), "dense", formats=("onnx",))
WHOLE = ("ArtifactInstall", "ArtifactCommit", "Cleanup")


def members(file):
    with tarfile.open(fileobj=io.BytesIO(file), mode="r:") as archive:
        return {entry.name: archive.extractfile(entry).read() for entry in archive}


def test_the_format_of_an_artifact(old, tmp_path):
    write_mender_artifact(old, tmp_path / "a.mender", OPTIONS)
    outer = members((tmp_path / "a.mender").read_bytes())
    assert list(outer) == ["version", "manifest", "header.tar.gz", "data/0000.tar.gz"]
    assert json.loads(outer["version"]) == {"format": "mender", "version": 3}
    header = members(gzip.decompress(outer["header.tar.gz"]))
    assert list(header) == ["header-info", "headers/0000/type-info", "headers/0000/meta-data"]
    assert json.loads(header["header-info"]) == {
        "payloads": [{"type": "edgeattn"}],
        "artifact_provides": {"artifact_name": "release 1"},
        "artifact_depends": {"device_type": ["pi5", "pi4"]},
    }
    assert json.loads(header["headers/0000/type-info"]) == {
        "type": "edgeattn",
        "artifact_provides": {"data-partition.edgeattn.dense.version": "release 1"},
        "clears_artifact_provides": ["data-partition.edgeattn.dense.*"],
    }
    assert json.loads(header["headers/0000/meta-data"]) == {
        "name": "dense",
        "formats": ["onnx"],
        "schemes": [],
    }
    ((name, packed),) = members(gzip.decompress(outer["data/0000.tar.gz"])).items()
    (tmp_path / name).write_bytes(packed)
    assert sha256(Bundle.open(tmp_path / name).path / MANIFEST) == sha256(old.path / MANIFEST)
    sums = {
        f"data/0000/{name}": packed,
        "header.tar.gz": outer["header.tar.gz"],
        "version": outer["version"],
    }
    assert outer["manifest"].decode() == "".join(
        f"{hashlib.sha256(content).hexdigest()}  {path}\n" for path, content in sums.items()
    )


def test_equal_bundles_give_equal_artifacts(old, new, tmp_path):
    def written(bundle, name, options=OPTIONS):
        write_mender_artifact(bundle, tmp_path / name, options)
        return (tmp_path / name).read_bytes()

    first = written(old, "a.mender")
    copy = artifacts.write_dense_bundle(tmp_path / "copy" / "other-name.edge", count=64)
    assert written(copy, "b.mender") == first
    assert written(new, "c.mender") != first
    # Neither times nor owners: those of the gzip header, and of every entry.
    outer = members(first)
    assert outer["header.tar.gz"][4:8] == outer["data/0000.tar.gz"][4:8] == bytes(4)
    with tarfile.open(fileobj=io.BytesIO(first)) as archive:
        assert {(entry.mtime, entry.uid, entry.uname) for entry in archive} == {(0, 0, "")}


def test_artifacts_that_are_not_written(old, tmp_path):
    with pytest.raises(OutputError, match=r"is a \.mender file"):
        write_mender_artifact(old, tmp_path / "a.tar", OPTIONS)
    with pytest.raises(BundleError, match="no artifact for"):
        write_mender_artifact(
            old, tmp_path / "a.mender", ArtifactOptions("r", ("pi5",), "n", schemes=("int8",))
        )
    for name, types, folder in (
        ("", ("pi5",), "n"),
        ("a\nb", ("pi5",), "n"),
        ("r", (), "n"),
        ("r", (" ",), "n"),
        ("r", ("pi5",), "../n"),
        ("r", ("pi5",), ""),
    ):
        with pytest.raises(UsageError):
            ArtifactOptions(name, types, folder)
    taken = tmp_path / "taken.mender"
    taken.write_bytes(b"mine")
    with pytest.raises(OutputError):
        write_mender_artifact(old, taken, OPTIONS)
    assert taken.read_bytes() == b"mine"
    old.artifact_path(old.manifest.artifacts[0]).write_bytes(b"changed")
    with pytest.raises(BundleError):
        write_mender_artifact(old, tmp_path / "b.mender", OPTIONS)
    assert {path.name for path in tmp_path.glob("*.mender")} == {"taken.mender"}


def edgeattn(tmp_path, *arguments):
    return subprocess.run(
        [sys.executable, "-P", "-m", "edgeattn", "fleet", *map(str, arguments)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.long
def test_the_module_as_a_script_with_the_real_runtimes(old, tmp_path):
    """From the commands to the verdict, without Mender."""
    root = tmp_path / "device"
    done = edgeattn(
        tmp_path, "mender-module", "--python", sys.executable, "--root", root, "-o", "module"
    )
    assert done.returncode == 0, done.stderr
    done = edgeattn(
        *(tmp_path, "mender-artifact", old.path, "--artifact-name", "r1", "--device-type", "pi5"),
        *("--name", NAME),
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "r1.mender").is_file()

    def module(*arguments):
        return subprocess.run(
            [tmp_path / "module", *arguments], cwd="/", capture_output=True, text=True, check=False
        )

    assert module("NeedsArtifactReboot").stdout == "No\n"
    assert module("SupportsRollback").stdout == "Yes\n"
    unknown = module("SomeStateOfTheFuture", str(tmp_path))
    assert (unknown.returncode, unknown.stdout, unknown.stderr) == (0, "", "")
    tree = str(write_tree(tmp_path / "tree", old))
    for state in ("Download", "ArtifactInstall", "ArtifactCommit", "Cleanup"):
        done = module(state, tree)
        assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert serving(root) == sha256(old.path / MANIFEST)
    bias = artifacts.BIAS + np.float32(1e-2)
    wrong = artifacts.write_dense_bundle(tmp_path / "wrong.edge", bias=bias)
    done = module("ArtifactInstall", str(write_tree(tmp_path / "wrong", wrong)))
    assert done.returncode == 3
    assert "is fail: tflite float32: " in done.stderr
    assert "still serves" in done.stderr
    assert serving(root) == sha256(old.path / MANIFEST)


@pytest.fixture
def device(home, tmp_path):
    """Runs states of a bundle on a device whose runtimes are the NumPy model."""

    class Device:
        root = tmp_path / "device"

        def run(self, bundle, *states, **options):
            if bundle.path not in self.trees:
                self.trees[bundle.path] = write_tree(tmp_path / f"tree{len(self.trees)}", bundle)
            for state in states:
                run_state(state, self.trees[bundle.path], ModuleOptions(self.root, **options))

        def serves(self, bundle):
            return serving(self.root) == sha256(bundle.path / MANIFEST)

        @property
        def versions(self):
            return Versions(self.root / NAME)

    created = Device()
    created.trees = {}
    return created


def test_install_commit_and_cleanup(device, old, new):
    device.run(old, *WHOLE)
    assert device.serves(old)
    device.run(new, "ArtifactInstall")
    assert device.serves(new)
    assert Update.read(device.versions) == Update(*device.versions.all())
    report = json.loads((device.root / NAME / "current" / "../report.json").read_text())
    assert (report["verdict"], report["state"]) == ("pass", "serves now")
    device.run(new, "ArtifactCommit", "Cleanup")
    assert device.serves(new)
    assert leftovers(device.root) == []
    # Both versions stay, and the older one can be restored.
    assert device.versions.roll_back() == tuple(reversed(device.versions.all()))


def test_rollback(device, old, new):
    device.run(old, *WHOLE)
    device.run(new, "ArtifactInstall", "ArtifactRollback")
    assert device.serves(old)
    device.run(new, "ArtifactRollback", "ArtifactFailure", "Cleanup")
    assert device.serves(old)
    assert (leftovers(device.root), len(device.versions.all())) == ([], 1)
    # Without an update in progress, there is nothing to roll back.
    device.run(new, "ArtifactRollback")
    assert device.serves(old)


def test_the_first_version_is_rolled_back_to_none(device, old):
    device.run(old, "ArtifactInstall", "ArtifactRollback", "ArtifactFailure", "Cleanup")
    assert serving(device.root) is None
    assert device.versions.all() == []
    device.run(old, *WHOLE)
    assert device.serves(old)


def test_the_same_bundle_again(device, old, new):
    device.run(old, *WHOLE)
    device.run(old, "ArtifactInstall", "ArtifactRollback", "Cleanup")
    assert device.serves(old)
    # Installed twice before Mender stored that it was installed.
    device.run(new, "ArtifactInstall", "ArtifactInstall", "ArtifactRollback", "Cleanup")
    assert device.serves(old)


def test_a_damaged_version_is_not_committed(device, old, new):
    device.run(old, *WHOLE)
    device.run(new, "ArtifactInstall")
    path = device.root / NAME / "current" / new.manifest.artifacts[0].path
    # The file of this version only: versions share equal files.
    path.unlink()
    path.write_bytes(b"damaged")
    with pytest.raises(BundleError):
        device.run(new, "ArtifactCommit")
    device.run(new, "ArtifactRollback", "ArtifactFailure", "Cleanup")
    assert device.serves(old)


@pytest.mark.parametrize("report", [{"verdict": "fail"}, {}, []])
def test_a_version_without_a_pass_is_not_committed(device, old, report):
    device.run(old, "ArtifactInstall")
    version = device.versions.current()
    (device.versions.folder(version) / "report.json").write_text(json.dumps(report))
    with pytest.raises(EdgeattnError, match=r"verdict|report"):
        device.run(old, "ArtifactCommit")


def test_nothing_is_committed_that_was_not_installed(device, old, new):
    with pytest.raises(BundleError, match="Not the new version serves"):
        device.run(old, "ArtifactCommit")
    device.run(old, *WHOLE)
    device.run(new, "ArtifactInstall")
    # A deployment switched in the meantime: it stays.
    device.versions.switch(device.versions.all()[0])
    with pytest.raises(BundleError, match="Not the new version serves"):
        device.run(new, "ArtifactCommit")
    device.run(new, "ArtifactRollback", "Cleanup")
    assert device.serves(old)


def created(bundle, seconds):
    artifacts.edit_manifest(bundle.path, lambda manifest: manifest.update(created=seconds))
    return Bundle.open(bundle.path)


def test_older_bundles_are_refused(device, old, new):
    old, new = created(old, 1000), created(new, 2000)
    device.run(new, *WHOLE)
    with pytest.raises(BundleError, match="converted before the one that serves"):
        device.run(old, "ArtifactInstall")
    assert device.serves(new)
    device.run(old, *WHOLE, allow_older=True)
    assert device.serves(old)


def test_signatures(device, old, new, keys, tmp_path):
    key, allowed = keys / "release", keys / "allowed"
    device.run(old, *WHOLE)
    with pytest.raises(SignatureError, match="not signed"):
        device.run(new, "ArtifactInstall", allowed_signers=allowed)
    assert device.serves(old)
    sign(new, key)
    device.trees.clear()
    device.trees[old.path] = tmp_path / "tree0"
    device.trees[new.path] = write_tree(tmp_path / "signed", new)
    device.run(new, *WHOLE, allowed_signers=allowed)
    assert device.serves(new)


def test_a_bundle_that_does_not_pass(device, old, tmp_path):
    device.run(old, *WHOLE)
    wrong = artifacts.write_dense_bundle(tmp_path / "wrong.edge", count=64)
    with np.load(wrong.path / "reference.npz") as arrays:
        changed = {k: a + 1 if k.startswith("output/") else a for k, a in arrays.items()}
    np.savez(wrong.path / "reference.npz", **changed)
    artifacts.rehash(wrong.path)
    wrong = Bundle.open(wrong.path)
    with pytest.raises(ArtifactError, match=r"is fail: .* still serves"):
        device.run(wrong, "ArtifactInstall")
    assert device.serves(old)
    with pytest.raises(BundleError):
        device.run(wrong, "ArtifactCommit")
    device.run(wrong, "ArtifactRollback", "ArtifactFailure", "Cleanup")
    assert device.serves(old)
    assert leftovers(device.root) == []


@pytest.mark.parametrize(
    "document",
    [
        "",
        "[]",
        '{"name": "dense"}',
        '{"name": "../dense", "formats": [], "schemes": []}',
        '{"name": "dense", "formats": "onnx", "schemes": []}',
        '{"name": "dense", "formats": [1], "schemes": []}',
        '{"name": 5, "formats": [], "schemes": []}',
    ],
)
def test_malformed_meta_data(device, old, tmp_path, document, capsys):
    tree = write_tree(tmp_path / "tree", old)
    (tree / "header/meta-data").write_text(document)
    for state in ("ArtifactInstall", "ArtifactRollback"):
        assert main(["--root", str(device.root), state, str(tree)]) == 2
    assert "edgeattn: " in capsys.readouterr().err
    assert not device.root.exists()


def test_a_download_that_failed_before_its_header(device, tmp_path):
    """Mender calls Cleanup then, in a folder that is almost empty."""
    assert main(["--root", str(device.root), "Cleanup", str(tmp_path)]) == 0
    assert not device.root.exists()


def test_a_payload_of_another_kind(device, old, tmp_path, capsys):
    tree = write_tree(tmp_path / "tree", old)
    (tree / "files" / PAYLOAD).write_bytes(b"no zip file")
    assert main(["--root", str(device.root), "ArtifactInstall", str(tree)]) == 2
    assert "Not a bundle" in capsys.readouterr().err
    (tree / "files" / PAYLOAD).unlink()
    assert main(["--root", str(device.root), "ArtifactInstall", str(tree)]) == 2


def test_unselected_artifacts_are_not_validated(device, old, tmp_path):
    tree = write_tree(tmp_path / "tree", old, formats=["onnx"])
    assert Payload.read(tree) == Payload(NAME, ("onnx",), ())
    run_state("ArtifactInstall", tree, ModuleOptions(device.root))
    report = json.loads((device.root / NAME / "current/../report.json").read_text())
    assert [item["format"] for item in report["artifacts"]] == ["onnx"]


@pytest.mark.parametrize(
    ("mode", "step"),
    [
        ("kill", "15"),
        pytest.param("kill", "5", marks=pytest.mark.long),
        pytest.param("kill", "1", marks=pytest.mark.long),
        pytest.param("full", "1", marks=pytest.mark.long),
    ],
)
def test_power_failures_and_full_disks(tmp_path, mode, step):
    """States that are interrupted before changes of the disk; see ``mender_states.py``."""
    process = subprocess.run(
        [sys.executable, "-P", Path(__file__).with_name("mender_states.py"), tmp_path, mode, step],
        capture_output=True,
        text=True,
        check=False,
        env={
            "PYTHONPATH": f"{PROJECT}:{PROJECT}/tests:{Path(__file__).parent}",
            "PATH": "/usr/bin",
        },
    )
    assert process.returncode == 0, process.stderr
    result = json.loads(process.stdout.splitlines()[-1])
    assert result["violations"] == []
    assert all(count > 0 for state, count in result["changes"].items() if state != "ArtifactCommit")


def test_policies_of_the_script(tmp_path):
    done = edgeattn(
        tmp_path, "mender-module", "--require-signature", "/etc/edgeattn/allowed", "--allow-older"
    )
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "edgeattn").read_text()
    assert '--require-signature /etc/edgeattn/allowed --allow-older -- "$@"' in text
    assert text.splitlines()[-1].startswith("exec /opt/edgeattn/bin/python -P -m edgeattn.")
    assert (tmp_path / "edgeattn").stat().st_mode & 0o111
    for arguments in (
        ["--root", "var"],
        ["--python", "python3"],
        ["--require-signature", "allowed"],
    ):
        done = edgeattn(tmp_path, "mender-module", "-o", "other", *arguments)
        assert done.returncode == 2
        assert "absolute path" in done.stderr
    assert not (tmp_path / "other").exists()
    assert edgeattn(tmp_path, "mender-module").returncode == 2


def test_the_update_file(tmp_path):
    versions = Versions(tmp_path)
    assert Update.read(versions) is None
    update = Update(None, "0001-" + "0" * 12)
    update.write(versions)
    assert Update.read(versions) == update
    for text in ("", "{}", '{"before": null, "after": "../x"}', '{"before": 1, "after": "x"}'):
        (tmp_path / UPDATE).write_text(text)
        assert Update.read(versions) is None
