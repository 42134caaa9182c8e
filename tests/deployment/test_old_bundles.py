"""Old bundles, whose signatures are valid too: refused as new ones, and checked at a rollback."""

from __future__ import annotations

import json
from dataclasses import replace

import artifacts
import pytest
from local_device import HOST, OPTIONS, LocalWorker, deploy, end_process, serving

from edgeattn.bundle.bundle import Bundle
from edgeattn.bundle.manifest import MANIFEST, SIGNATURE, Manifest, sha256
from edgeattn.bundle.signing import sign
from edgeattn.deployment import rollback
from edgeattn.deployment.rollback import roll_back_over
from edgeattn.errors import BundleError, DeviceError, SignatureError
from edgeattn.targets.connection import Connection


def created(bundle, seconds):
    """``bundle``, converted at this time."""
    artifacts.edit_manifest(bundle.path, lambda data: data.update(created=seconds))
    return Bundle.open(bundle.path)


def hash_of(bundle):
    return sha256(bundle.path / MANIFEST)


# The time of conversion


def test_the_time_of_conversion_is_stored(old):
    assert old.manifest.created is None
    assert "created" not in old.manifest.to_json()
    manifest = created(old, 1_700_000_000).manifest
    assert manifest.created == 1_700_000_000
    assert Manifest.from_json(manifest.to_json()) == manifest


@pytest.mark.parametrize("value", [-1, 1.5, "1700000000", True, 10**12, [1]])
def test_malformed_times_are_refused(old, value):
    with pytest.raises(BundleError, match="created"):
        created(old, value)


def test_an_older_bundle_is_refused(home, old, new):
    created(old, 1_700_000_000)
    new = created(new, 1_700_000_001)
    old = Bundle.open(old.path)
    assert deploy(new).state == "serves now"
    worker = LocalWorker()
    result = deploy(old, worker)
    assert (result.state, result.exit_code) == ("failed", 2)
    assert "old.edge was converted 2023-11-14 22:13:20 UTC" in result.error.message
    assert "2023-11-14 22:13:21 UTC" in result.error.message
    assert "--allow-older" in result.error.hint
    # Before anything is copied.
    assert worker.calls == ["open_folder"]
    assert serving(home) == hash_of(new)
    result = deploy(old, options=replace(OPTIONS, allow_older=True))
    assert (result.state, serving(home)) == ("serves now", hash_of(old))


@pytest.mark.parametrize(
    ("serves", "deployed", "accepted"),
    [
        *((None, None, True), (None, 5, True), (5, None, False)),
        *((5, 5, True), (5, 4, False), (5, 6, True)),
    ],
)
def test_bundles_without_a_time_are_the_oldest(home, old, new, serves, deployed, accepted):
    for bundle, seconds in ((old, serves), (new, deployed)):
        if seconds is not None:
            created(bundle, seconds)
    assert deploy(Bundle.open(old.path)).state == "serves now"
    assert (deploy(Bundle.open(new.path)).state == "serves now") == accepted


def test_a_damaged_version_can_be_replaced(home, old, new):
    deploy(created(new, 10))
    file = home / "edgeattn/dense/current" / MANIFEST
    file.unlink()
    file.write_text("damaged")
    assert deploy(created(old, 5)).state == "serves now"


# Signatures


def roll_back(keys, worker=None):
    options = replace(OPTIONS, allowed_signers=keys / "allowed")
    try:
        return roll_back_over(Connection(worker or LocalWorker(), HOST), options)
    finally:
        end_process()


def test_rollback_to_a_signed_version(home, old, new, keys):
    sign(old, keys / "release")
    deploy(old)
    deploy(new)
    result = roll_back(keys)
    assert (result.state, result.version[:4], result.previous[:4]) == (
        "rolled back",
        "0001",
        "0002",
    )
    assert serving(home) == hash_of(old)


@pytest.mark.parametrize(
    ("signer", "message"), [(None, "is not signed"), ("stranger", "is not in allowed")]
)
def test_rollback_to_a_version_that_nobody_allowed_signed(home, old, new, keys, signer, message):
    if signer is not None:
        sign(old, keys / signer)
    deploy(old)
    deploy(new)
    with pytest.raises(SignatureError, match=message) as error:
        roll_back(keys)
    assert f"0001-{hash_of(old)[:12]} on pi@board" in error.value.message
    assert serving(home) == hash_of(new)


def test_rollback_to_a_version_that_was_changed_with_its_hashes(home, old, new, keys):
    """Its manifest is valid, and its signature is that of another manifest."""
    sign(old, keys / "release")
    deploy(old)
    deploy(new)
    folder = home / f"edgeattn/dense/versions/0001-{hash_of(old)[:12]}/bundle"
    text = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).unlink()
    (folder / MANIFEST).write_text(json.dumps({**text, "made_with": {"edgeattn": "1"}}))
    with pytest.raises((SignatureError, DeviceError)):
        roll_back(keys)
    assert serving(home) == hash_of(new)


def test_the_version_that_was_verified_is_the_one_that_serves(home, old, new, keys, monkeypatch):
    """The manifest and signature are replaced on the device between the check and the switch."""
    sign(old, keys / "release")
    deploy(old)
    deploy(new)
    folder = home / f"edgeattn/dense/versions/0001-{hash_of(old)[:12]}/bundle"

    class Swapping(LocalWorker):
        def call(self, function, arguments=None, tensors=None, *, timeout=None):
            if function.endswith(":roll_back"):
                for name in (MANIFEST, SIGNATURE):
                    (folder / name).unlink()
                artifacts.write_bundle(folder, old.manifest.artifacts, old.reference())
                artifacts.edit_manifest(folder, lambda data: data.update(made_with={}))
            return super().call(function, arguments, tensors, timeout=timeout)

    with pytest.raises(BundleError, match="has changed"):
        roll_back(keys, Swapping())
    assert serving(home) == hash_of(new)


def test_malformed_replies_to_a_rollback(home, old, new, keys):
    deploy(old)
    deploy(new)

    class Hostile(LocalWorker):
        def __init__(self, step, reply):
            super().__init__()
            self._step, self._reply = step, reply

        def call(self, function, *arguments, **keywords):
            if function.endswith(f":{self._step}"):
                return self._reply
            return super().call(function, *arguments, **keywords)

    for reply in ((None, {}), ("0001-000000000000", {}), ({}, {MANIFEST: 3})):
        with pytest.raises(DeviceError, match="malformed reply"):
            roll_back(keys, Hostile("previous_version", reply))
    with pytest.raises(DeviceError, match="malformed reply"):
        roll_back_over(Connection(Hostile("roll_back", ({"from": 1}, {})), HOST), OPTIONS)
    assert serving(home) == hash_of(new)


def test_an_internal_error_is_the_result_of_one_host(monkeypatch):
    monkeypatch.setattr(rollback.ssh, "connect", lambda *_: 3)
    result = rollback.roll_back("pi@board", OPTIONS)
    assert (result.state, result.exit_code) == ("failed", 70)
