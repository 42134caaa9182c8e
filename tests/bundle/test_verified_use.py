"""What was verified is what is used, even if files, folders or links are replaced in between."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import zipfile

import artifacts
import numpy as np
import pytest

from edgeattn.bundle import signing
from edgeattn.bundle.bundle import Bundle
from edgeattn.bundle.manifest import MANIFEST, Manifest
from edgeattn.bundle.packing import pack
from edgeattn.bundle.signing import NAMESPACE, open_signed, sign
from edgeattn.errors import BundleError, SignatureError
from edgeattn.inference.load import load
from edgeattn.runners.isolated import IsolatedRunner
from edgeattn.validation.validate import validate_isolated

FORMATS = ("tflite", "onnx")
needs_ssh_keygen = pytest.mark.skipif(
    shutil.which("ssh-keygen") is None, reason="ssh-keygen is not installed"
)


@pytest.fixture(scope="session")
def signer(tmp_path_factory):
    """A folder with a key and the file of allowed signers that lists it."""
    folder = tmp_path_factory.mktemp("signer")
    make = ("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "key"))
    subprocess.run(make, check=True)
    public = (folder / "key.pub").read_text()
    (folder / "allowed").write_text(f'me namespaces="{NAMESPACE}" {public}')
    return folder


@pytest.fixture
def other_bundle(tmp_path):
    """A consistent bundle whose outputs are larger by 1000."""
    return artifacts.write_dense_bundle(
        tmp_path / "other.edge", bias=artifacts.BIAS + np.float32(1000)
    )


def swap(first, second):
    """Exchange two files or folders."""
    aside = first.with_name("aside")
    first.rename(aside)
    second.rename(first)
    aside.rename(second)


def once_after(monkeypatch, owner, name, action):
    """Call ``action`` after the first call of ``owner.name``."""
    original, pending = getattr(owner, name), [action]

    def hooked(*arguments, **keywords):
        result = original(*arguments, **keywords)
        if pending:
            pending.pop()()
        return result

    monkeypatch.setattr(owner, name, hooked)


@needs_ssh_keygen
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("stream", [False, True])
def test_run_of_a_signed_bundle_that_is_replaced(
    dense_bundle, other_bundle, signer, edgeattn, monkeypatch, tmp_path, format, stream
):
    """The replacement is unsigned and consistent; it comes right after the verification."""
    sign(dense_bundle, signer / "key")
    once_after(monkeypatch, Bundle, "verify", lambda: swap(dense_bundle.path, other_bundle.path))
    np.save(tmp_path / "x.npy", artifacts.samples())
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(b"1 2 3\n"))))
    source, target = ("-", ()) if stream else ("x.npy", ("-o", "y.npz"))
    result = edgeattn(
        "run",
        dense_bundle.path,
        *("--input", source, *target, "--format", format),
        *("--require-signature", signer / "allowed"),
    )
    assert result.code == 2
    assert "has changed" in result.err
    assert not result.out
    assert not (tmp_path / "y.npz").exists()


@needs_ssh_keygen
def test_a_replaced_manifest_is_not_parsed(dense_bundle, other_bundle, signer, monkeypatch):
    """The manifest that is parsed consists of the bytes whose signature was checked."""
    sign(dense_bundle, signer / "key")
    once_after(
        monkeypatch, signing, "check_manifest", lambda: swap(dense_bundle.path, other_bundle.path)
    )
    with pytest.raises(BundleError, match="has changed"):
        open_signed(dense_bundle.path, signer / "allowed")


@needs_ssh_keygen
@pytest.mark.parametrize("packed", [False, True])
def test_an_unsigned_manifest_is_not_parsed(dense_bundle, signer, monkeypatch, tmp_path, packed):
    path = dense_bundle.path
    if packed:
        path = tmp_path / "dense.edge.zip"
        pack(dense_bundle, path)
    monkeypatch.setattr(Manifest, "from_json", lambda data: pytest.fail("it was parsed"))
    with pytest.raises(SignatureError, match="not signed"):
        open_signed(path, signer / "allowed")


@needs_ssh_keygen
def test_exit_codes_of_damaged_bundles(dense_bundle, signer, edgeattn, tmp_path):
    """Damaged is 2; without a trusted signature is 4, and comes first."""
    np.save(tmp_path / "x.npy", artifacts.samples())
    command = ("run", dense_bundle.path, "--input", "x.npy", "-o", "y.npz")
    required = ("--require-signature", signer / "allowed")
    sign(dense_bundle, signer / "key")
    (dense_bundle.path / "dense.float32.onnx").write_bytes(b"x")
    for name in ("validate", "bench", "pack"):
        options = ("-o", "z.zip") if name == "pack" else required
        assert edgeattn(name, dense_bundle.path, *options).code == 2
    assert edgeattn(*command).code == 2
    assert edgeattn(*command, *required).code == 2
    (dense_bundle.path / f"{MANIFEST}.sig").unlink()
    assert edgeattn(*command).code == 2
    assert edgeattn(*command, *required).code == 4


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(("owner", "name"), [(Manifest, "from_json"), (Bundle, "verify")])
def test_load_of_a_link_that_is_switched(
    dense_bundle, other_bundle, tmp_path, monkeypatch, format, owner, name
):
    """One version's manifest never comes with another version's weights."""
    link = tmp_path / "current"
    link.symlink_to(dense_bundle.path)

    def switch():
        link.unlink()
        link.symlink_to(other_bundle.path)

    once_after(monkeypatch, owner, name, switch)
    model = load(link, format=format)
    assert model.artifact in dense_bundle.manifest.artifacts
    x = artifacts.samples()[:1]
    np.testing.assert_array_equal(model(x)["score"], artifacts.dense(x))
    x = artifacts.samples()[:1]
    changed = load(link, format=format)(x)["score"]
    np.testing.assert_array_equal(changed, artifacts.dense(x) + 1000)


@pytest.mark.parametrize("format", FORMATS)
def test_load_of_a_folder_that_is_replaced(dense_bundle, other_bundle, monkeypatch, format):
    once_after(monkeypatch, Bundle, "verify", lambda: swap(dense_bundle.path, other_bundle.path))
    with pytest.raises(BundleError, match="has changed"):
        load(dense_bundle.path, format=format)


def test_files_that_are_replaced_after_opening(dense_bundle, other_bundle, worker, tmp_path):
    """Each use of a file verifies it, in this process and in others."""
    swap(dense_bundle.path, other_bundle.path)
    with pytest.raises(BundleError, match="has changed"):
        pack(dense_bundle, tmp_path / "p.zip")
    assert not (tmp_path / "p.zip").exists()
    for artifact in dense_bundle.manifest.artifacts:
        with pytest.raises(BundleError, match="has changed"):
            IsolatedRunner(dense_bundle.path, artifact, worker)
    with (dense_bundle.path / "reference.npz").open("ab") as file:
        file.write(b" ")
    with pytest.raises(BundleError, match="has changed"):
        dense_bundle.reference()
    with pytest.raises(BundleError, match="has changed"):
        validate_isolated(dense_bundle, dense_bundle.manifest.artifacts)


def test_hashes_are_those_of_the_manifest_that_was_opened(dense_bundle):
    before = dense_bundle.file_hashes()
    artifacts.edit_manifest(dense_bundle.path, lambda data: data["model"].update(file="x.h5"))
    assert dense_bundle.file_hashes() == before


def test_a_packed_bundle_that_is_replaced_while_it_is_unpacked(
    dense_bundle, other_bundle, tmp_path, monkeypatch
):
    """A later opening of the same file must not find the replacement in the cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    first, second = tmp_path / "a.zip", tmp_path / "b.zip"
    pack(dense_bundle, first)
    pack(other_bundle, second)
    original = zipfile.ZipFile.__init__
    pending = [True]

    def hooked(*arguments, **keywords):
        if pending:
            pending.pop()
            swap(first, second)
        original(*arguments, **keywords)

    monkeypatch.setattr(zipfile.ZipFile, "__init__", hooked)
    assert Bundle.open(first).manifest == dense_bundle.manifest
    assert Bundle.open(first).manifest == other_bundle.manifest
    assert Bundle.open(second).manifest == dense_bundle.manifest


def test_a_pipe_in_place_of_an_artifact_does_not_block(dense_bundle, worker):
    (entry, *_) = dense_bundle.manifest.artifacts
    file = dense_bundle.path / entry.path
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(BundleError, match="not a regular file"):
        IsolatedRunner(dense_bundle.path, entry, worker)
    file.unlink()
    with pytest.raises(BundleError, match="cannot be read"):
        IsolatedRunner(dense_bundle.path, entry, worker)


def test_inspect_of_a_damaged_bundle(dense_bundle, edgeattn):
    assert edgeattn("inspect", dense_bundle.path).code == 0
    (dense_bundle.path / "dense.float32.onnx").unlink()
    for options in ((), ("--json",)):
        result = edgeattn("inspect", dense_bundle.path, *options)
        assert result.code == 2
        assert "dense.float32.onnx cannot be read" in result.out


def test_a_manifest_without_a_version(dense_bundle, edgeattn):
    (dense_bundle.path / MANIFEST).write_text("{}")
    result = edgeattn("inspect", dense_bundle.path)
    assert result.code == 2
    assert "it has no 'format_version'" in result.err
    assert "KeyError" not in result.err
