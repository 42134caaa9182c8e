"""Signing bundles, and refusal of unsigned and changed ones."""

from __future__ import annotations

import json
import shutil
import subprocess

import artifacts
import numpy as np
import pytest

from edgeattn.bundle.bundle import Bundle
from edgeattn.bundle.manifest import MANIFEST, SIGNATURE
from edgeattn.bundle.packing import pack
from edgeattn.bundle.signing import NAMESPACE, check_signature, sign
from edgeattn.errors import BundleError, SignatureError, UsageError

if shutil.which("ssh-keygen") is None:
    pytest.skip("ssh-keygen is not installed", allow_module_level=True)


@pytest.fixture
def signed(dense_bundle, keys):
    sign(dense_bundle, keys / "release")
    return dense_bundle


def test_the_signer_is_returned(signed, keys):
    assert check_signature(signed, keys / "allowed") == "release@example.org"


def test_ssh_keygen_accepts_the_signature(signed, keys):
    process = subprocess.run(
        [
            *("ssh-keygen", "-Y", "verify", "-f", str(keys / "allowed"), "-n", NAMESPACE),
            *("-I", "release@example.org", "-s", str(signed.path / SIGNATURE)),
        ],
        input=(signed.path / MANIFEST).read_bytes(),
        capture_output=True,
        check=False,
    )
    assert process.returncode == 0
    assert b"Good" in process.stdout


def test_unsigned_bundles_are_refused(dense_bundle, keys):
    with pytest.raises(SignatureError, match="not signed"):
        check_signature(dense_bundle, keys / "allowed")


def test_unknown_signers_are_refused(dense_bundle, keys):
    sign(dense_bundle, keys / "stranger")
    with pytest.raises(SignatureError, match="is not in allowed"):
        check_signature(dense_bundle, keys / "allowed")


def test_signatures_for_another_purpose_are_refused(dense_bundle, keys):
    """Same key and same bytes, but another namespace."""
    command = ("ssh-keygen", "-Y", "sign", "-q", "-n", "file", "-f", str(keys / "release"))
    subprocess.run([*command, str(dense_bundle.path / MANIFEST)], check=True, capture_output=True)
    with pytest.raises(SignatureError):
        check_signature(dense_bundle, keys / "allowed")


def test_a_changed_manifest_is_refused(signed, keys):
    artifacts.edit_manifest(signed.path, lambda data: data["model"].update(file="other.h5"))
    with pytest.raises(SignatureError, match="does not match its manifest"):
        check_signature(Bundle.open(signed.path), keys / "allowed")


def test_a_changed_file_is_refused(signed):
    (signed.path / "reference.npz").write_bytes(b"x")
    with pytest.raises(BundleError, match="has changed"):
        Bundle.open(signed.path)


def test_a_replaced_artifact_is_refused(signed, keys):
    """A new artifact whose hash is in the manifest: only the signature shows the change."""
    artifacts.write_dense_tflite(
        signed.path / "dense.float32.tflite", bias=artifacts.BIAS + np.float32(1)
    )
    artifacts.rehash(signed.path)
    changed = Bundle.open(signed.path)
    with pytest.raises(SignatureError, match="does not match"):
        check_signature(changed, keys / "allowed")


@pytest.mark.parametrize(
    "text", ["", "nonsense", "-----BEGIN SSH SIGNATURE-----\nAAAA\n", "x" * 70000]
)
def test_malformed_signatures_are_refused(dense_bundle, keys, text):
    (dense_bundle.path / SIGNATURE).write_text(text)
    with pytest.raises(SignatureError):
        check_signature(dense_bundle, keys / "allowed")


def test_a_new_signature_replaces_the_old_one(signed, keys):
    sign(signed, keys / "stranger")
    with pytest.raises(SignatureError):
        check_signature(signed, keys / "allowed")
    sign(signed, keys / "release")
    check_signature(signed, keys / "allowed")


def test_keys_that_cannot_sign(dense_bundle, keys, tmp_path):
    with pytest.raises(UsageError, match="No such key"):
        sign(dense_bundle, tmp_path / "none")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(UsageError, match="cannot sign"):
        sign(dense_bundle, tmp_path / "text")
    assert not (dense_bundle.path / SIGNATURE).exists()
    assert {p.name for p in dense_bundle.path.iterdir()} == {
        *("manifest.json", "reference.npz"),
        *("dense.float32.tflite", "dense.float32.onnx"),
    }


def test_a_missing_file_of_allowed_signers(signed, tmp_path):
    with pytest.raises(UsageError, match="No such file of allowed signers"):
        check_signature(signed, tmp_path / "none")


# On the command line


def test_commands_require_the_signature(edgeattn, dense_bundle, keys, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    np.save(tmp_path / "x.npy", artifacts.samples())
    required = ("--require-signature", keys / "allowed")
    commands = (
        ("run", "dense.edge", "--input", "x.npy", "--force"),
        ("validate", "dense.edge"),
        ("bench", "dense.edge", "--runs", "1", "--threads", "1"),
    )
    for command in (*commands, ("deploy", "dense.edge", "pi@host.invalid")):
        result = edgeattn(*command, *required)
        assert result.code == 4
        assert "is not signed" in result.err
        assert "edgeattn sign" in result.err
    assert edgeattn("sign", "dense.edge", "--key", keys / "release").code == 0
    for command in commands:
        assert edgeattn(*command, *required).code == 0
    # Packing includes the signature.
    pack(Bundle.open(dense_bundle.path), tmp_path / "dense.edge.zip")
    assert edgeattn("validate", "dense.edge.zip", *required).code == 0
    result = edgeattn("sign", "dense.edge.zip", "--key", keys / "release")
    assert (result.code, "Sign the folder" in result.err) == (2, True)


def test_json_output(edgeattn, dense_bundle, keys):
    result = edgeattn("validate", "dense.edge", "--require-signature", keys / "allowed", "--json")
    assert (result.code, result.document["error"]["exit_code"]) == (4, 4)
    result = edgeattn("sign", "dense.edge", "--key", keys / "release", "--json")
    assert json.loads(result.out)["path"].endswith(SIGNATURE)
