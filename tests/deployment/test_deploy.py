"""Deployments to a device that is a folder, broken off at every step."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import artifacts
import nearby
import numpy as np
import pytest
from nearby import ORDER, Nearby, deploy, hang_up, left_over, serving

from edgeattn.bundle.bundle import Bundle
from edgeattn.bundle.manifest import MANIFEST, sha256
from edgeattn.deployment.deploy import DeploymentResult, default_folder, on_each, roll_back, worst
from edgeattn.deployment.on_device import steps as receiver
from edgeattn.deployment.on_device.versions import Versions
from edgeattn.device import runtime_check
from edgeattn.errors import DeviceError, UsageError
from edgeattn.targets import transfer as sending
from edgeattn.targets.on_device import session as targets_receiver
from edgeattn.targets.on_device.file_store import Store
from edgeattn.validation import validate as validation

TESTS = Path(__file__).parent


@pytest.fixture
def home(tmp_path, monkeypatch):
    """The device's home folder; runtimes are the oracle, files go in pieces of 700 bytes."""
    for module, name in (
        (validation, "validate_isolated"),
        (runtime_check, "check_runtimes"),
        (targets_receiver, "LEASE"),
        (receiver, "PATIENCE"),
        (sending, "PIECE"),
    ):
        monkeypatch.setattr(module, name, getattr(module, name))
    nearby.no_runtimes()
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    yield folder
    hang_up()
    signal.alarm(0)


@pytest.fixture
def old(tmp_path):
    return artifacts.write_dense_bundle(tmp_path / "old.edge", count=64)


@pytest.fixture
def new(tmp_path):
    return artifacts.write_dense_bundle(tmp_path / "new.edge", count=80)


def hash_of(bundle):
    return sha256(bundle.path / MANIFEST)


def root(home):
    return home / "edgeattn/dense"


def test_a_first_deployment(home, old):
    outcome = deploy(old)
    assert (outcome.state, outcome.exit_code) == ("serves now", 0)
    assert (outcome.version, outcome.previous) == (f"0001-{hash_of(old)[:12]}", None)
    assert serving(home) == hash_of(old)
    assert outcome.sent == sum(p.stat().st_size for p in old.path.iterdir())
    # The stage of the device: the same numbers as here.
    assert {item.stages["device"] for item in outcome.report.artifacts} == {"pass"}
    kept = json.loads((root(home) / "versions" / outcome.version / "report.json").read_text())
    assert (kept["verdict"], kept["host"]) == ("pass", "pi@board")
    assert left_over(home) == []


def test_only_what_changed_is_copied(home, old, new):
    deploy(old)
    outcome = deploy(new)
    # The artifacts are the same files: the reference and the manifest are not.
    changed = [p for p in new.path.iterdir() if sha256(p) != sha256(old.path / p.name)]
    assert sorted(p.name for p in changed) == [MANIFEST, "reference.npz"]
    assert outcome.sent == sum(p.stat().st_size for p in changed)
    assert (outcome.state, outcome.previous) == ("serves now", f"0001-{hash_of(old)[:12]}")
    assert serving(home) == hash_of(new)


def test_the_same_again_changes_nothing(home, old):
    first, again = deploy(old), deploy(old)
    assert (again.state, again.sent, again.version) == ("served already", 0, first.version)
    assert Versions(root(home)).all() == [first.version]


def test_roll_back_goes_to_what_served_before(home, old, new):
    order = replace(ORDER, keep=3)
    versions = Versions(root(home))
    deploy(old, order=order)
    deploy(new, order=order)
    assert versions.roll_back() == ("0002-" + hash_of(new)[:12], "0001-" + hash_of(old)[:12])
    assert serving(home) == hash_of(old)
    with pytest.raises(DeviceError, match="no earlier version"):
        versions.roll_back()
    # What was rolled back from is no place to go back to, and serves again when it is deployed.
    assert deploy(new, order=order).version == "0002-" + hash_of(new)[:12]
    assert versions.roll_back()[1] == "0001-" + hash_of(old)[:12]


def test_an_old_bundle_again_is_a_version_of_its_own(home, old, new):
    order = replace(ORDER, keep=5)
    for bundle in (old, new, old):
        deploy(bundle, order=order)
    history = list(Versions(root(home)).history())
    assert [name[:4] for name in history] == ["0003", "0002", "0001"]


def test_roll_back_refuses_a_version_that_was_changed(home, old, new):
    deploy(old)
    deploy(new)
    file = root(home) / "versions" / f"0001-{hash_of(old)[:12]}" / "bundle/reference.npz"
    file.unlink()
    file.write_bytes(b"something else")
    told = roll_back_here()
    assert (told.state, told.exit_code) == ("failed", 2)
    assert "reference.npz has changed" in told.error.message
    assert serving(home) == hash_of(new)


def roll_back_here():
    from edgeattn.errors import EdgeattnError

    caller = Nearby()
    try:
        sending.ask(
            caller, nearby.REMOTE, "edgeattn.deployment.on_device.steps:begin", folder=ORDER.folder
        )
        told = sending.ask(caller, nearby.REMOTE, "edgeattn.deployment.on_device.steps:roll_back")
        return DeploymentResult("pi@board", "rolled back", None, told["to"], told["from"])
    except EdgeattnError as error:
        return DeploymentResult("pi@board", "failed", error=error)
    finally:
        hang_up()


def test_only_the_last_versions_stay(home, tmp_path):
    made = [artifacts.write_dense_bundle(tmp_path / f"{n}.edge", count=n) for n in (3, 5, 7, 11)]
    outcomes = [deploy(bundle) for bundle in made]
    assert [outcome.removed for outcome in outcomes] == [
        (),
        (),
        (outcomes[0].version,),
        (outcomes[1].version,),
    ]
    assert Versions(root(home)).all() == [outcomes[2].version, outcomes[3].version]
    assert left_over(home) == []


def test_a_verdict_of_fail_switches_nothing(home, old, tmp_path):
    deploy(old)
    # The file is right, and what Keras is said to have answered is not what it computes.
    wrong = artifacts.write_dense_bundle(tmp_path / "wrong.edge", count=7)
    x = artifacts.samples(7)
    artifacts.write_bundle(
        wrong.path,
        wrong.manifest.artifacts,
        {"input/x": x, "output/score": artifacts.dense(x) + np.float32(1e-2)},
    )
    outcome = deploy(Bundle.open(wrong.path))
    assert (outcome.state, outcome.exit_code, outcome.report.verdict) == ("refused", 1, "fail")
    assert serving(home) == hash_of(old)
    # Tried again it is refused again, and leaves no second version.
    assert deploy(Bundle.open(wrong.path)).version == outcome.version


def test_a_device_that_computes_something_else_fails(home, old, monkeypatch):
    """Within Keras' limits and still not what the same file computes here."""
    real = validation.validate_isolated

    def shifted(bundle, chosen, **keywords):
        report = real(bundle, chosen, **keywords)
        shifted.calls += 1
        if shifted.calls > 1:  # the device is asked first
            return report
        return replace(
            report,
            artifacts=tuple(
                replace(item, outputs={n: a + np.float32(0.01) for n, a in item.outputs.items()})
                for item in report.artifacts
            ),
        )

    shifted.calls = 0
    monkeypatch.setattr(validation, "validate_isolated", shifted)
    outcome = deploy(old)
    assert (outcome.state, outcome.exit_code) == ("refused", 1)
    assert {item.stages["device"] for item in outcome.report.artifacts} == {"fail"}
    assert serving(home) is None


def test_no_runtime_works_there(home, old, monkeypatch):
    checks = (
        runtime_check.RuntimeCheck("tflite", "fail", reason="its process died of SIGILL"),
        runtime_check.RuntimeCheck("onnx", "not installed"),
    )
    monkeypatch.setattr(runtime_check, "check_runtimes", lambda: checks)
    caller = Nearby()
    outcome = deploy(old, caller)
    assert (outcome.state, outcome.exit_code) == ("failed", 5)
    assert "tflite: its process died of SIGILL" in outcome.error.message
    assert "edgeattn doctor pi@board" in outcome.error.hint
    assert caller.calls == ["begin", "runtimes"]


def test_another_edgeattn_there(home, old, monkeypatch):
    monkeypatch.setattr(receiver, "begin", lambda folder: {"edgeattn": "0.0.1", "current": None})
    outcome = deploy(old)
    assert "has edgeattn 0.0.1" in outcome.error.message
    assert "--install" in outcome.error.hint


def test_the_disk_is_too_full(home, old, monkeypatch):
    from collections import namedtuple

    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(
        targets_receiver.shutil, "disk_usage", lambda path: usage(10**9, 10**9, 5000)
    )
    outcome = deploy(old)
    assert outcome.exit_code == 5
    assert "The disk is too full: 5,000 bytes are free" in outcome.error.message


# Broken off


def test_two_at_a_time(home, old, new):
    deploy(old)
    with (root(home) / "lock").open("ab") as other:
        import fcntl

        fcntl.flock(other, fcntl.LOCK_EX)
        outcome = deploy(new)
    assert (outcome.state, outcome.exit_code) == ("failed", 5)
    assert "Another deployment" in outcome.error.message
    assert deploy(new).state == "serves now"


def test_the_connection_is_cut_at_every_call(home, old, new, tmp_path):
    deploy(old)
    whole = Nearby()
    deploy(new, whole)
    Versions(root(home)).roll_back()
    assert whole.calls.count("put") > 3
    assert whole.calls[-3:] == ["note", "switch", "prune"]
    for number, name in enumerate(whole.calls, 1):
        for answered in (False, True):
            device_home = tmp_path / f"{number}-{answered}"
            device_home.mkdir()
            os.environ["HOME"] = str(device_home)
            deploy(old)
            before = Nearby(cut=number, answered=answered)
            outcome = deploy(new, before)
            assert before.calls[-1] == name
            assert (outcome.state, outcome.exit_code) == ("failed", 5)
            assert "disconnect" in outcome.error.message
            after_switch = name == "prune" or (name == "switch" and answered)
            assert serving(device_home) == hash_of(new if after_switch else old)
            again = Nearby()
            outcome = deploy(new, again)
            assert outcome.exit_code == 0
            assert serving(device_home) == hash_of(new)
            assert left_over(device_home) == []
            # Nothing that came whole, or in part, is sent a second time.
            sent = before.calls[:-1].count("put") + (name == "put" and answered)
            assert again.calls.count("put") == whole.calls.count("put") - sent
    os.environ["HOME"] = str(home)


@pytest.mark.parametrize("mode", ["kill", "full"])
def test_ended_at_every_change_of_the_disk(tmp_path, mode):
    """A kill or a reboot before each file that is made, renamed or removed; a disk that is full."""
    done = subprocess.run(
        [sys.executable, str(TESTS / "nearby.py"), str(tmp_path), mode],
        env={**os.environ, "PYTHONPATH": str(TESTS.parent)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["wrong"] == []
    assert told["steps"] > told["switched"] > 30


def test_a_disk_that_fills_up_in_the_middle_of_a_file(home, old):
    """A file ends where the system lets no more in; the rest comes at the next attempt."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        outcome = deploy(old)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert outcome.exit_code == 5
    assert "File too large" in outcome.error.message
    assert serving(home) is None
    again = deploy(old)
    assert again.state == "serves now"
    assert 0 < again.sent < sum(p.stat().st_size for p in old.path.iterdir())


def test_all_is_on_the_disk_before_the_switch(home, old, monkeypatch):
    """Power that fails after the switch finds every file of the new version, and their names."""
    done = []
    fsync, rename = os.fsync, Path.rename

    def synced(handle):
        done.append(str(Path(f"/proc/self/fd/{handle}").readlink()))
        fsync(handle)

    def renamed(path, target):
        done.append(("rename", Path(path).name, str(target)))
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "rename", renamed)
    version = deploy(old).version
    switch = next(n for n, what in enumerate(done) if what[:2] == ("rename", ".current"))
    before, after = done[:switch], done[switch + 1 :]
    base = root(home)
    # A file's bytes were synced under its first name, in partial/; hard links share them.
    files = {sha256(path) for path in (base / "versions" / version / "bundle").iterdir()}
    assert {str(base / "partial" / digest) for digest in files} <= set(before)
    assert {str(base / "objects"), str(base / "versions"), str(base / "aside/bundle")} <= set(
        before
    )
    assert str(base / "versions" / version / ".report.json") in before
    assert str(base) in after


def test_a_memory_card_that_forgot(home, old, new):
    deploy(old)
    digest = old.manifest.artifacts[0].sha256
    file = Store(root(home)).object(digest)
    file.chmod(0o644)
    data = bytearray(file.read_bytes())
    data[100] ^= 1
    file.write_bytes(data)
    # Shared by a hard link: the version that serves has it too, and is made anew.
    outcome = deploy(old)
    assert (outcome.state, outcome.version[:4]) == ("serves now", "0002")
    assert serving(home) == hash_of(old)


def test_what_arrives_damaged_is_thrown_away(tmp_path):
    store = Store(tmp_path)
    digest = artifacts.sha256(Path(__file__))
    with pytest.raises(DeviceError, match="arrived damaged"):
        store.add(digest, 0, b"something else", 14)
    assert store.lacking({digest: 14}) == {digest: 0}


def test_a_part_that_was_lost_half_way_is_gone_on_with(tmp_path):
    import hashlib

    data = bytes(range(256))
    digest = hashlib.sha256(data).hexdigest()
    store = Store(tmp_path)
    assert not store.add(digest, 0, data[:100], 256)
    assert store.lacking({digest: 256}) == {digest: 100}
    with pytest.raises(DeviceError, match="came for byte 0, and 100 are there"):
        store.add(digest, 0, data, 256)
    assert store.add(digest, 100, data[100:], 256)
    assert store.lacking({digest: 256}) == {}
    assert store.object(digest).read_bytes() == data


@pytest.mark.parametrize("name", ["../../etc/passwd", "a" * 63, "A" * 64, ""])
def test_a_name_that_is_no_hash_reaches_no_file(tmp_path, name):
    with pytest.raises(DeviceError, match="Not a SHA-256"):
        Store(tmp_path).lacking({name: 1})
    with pytest.raises(DeviceError, match="Not a version"):
        Versions(tmp_path).folder(name)


def test_what_stands_in_the_place_of_current_stays(home, old):
    (root(home) / "current").mkdir(parents=True)
    (root(home) / "current/mine.txt").write_text("mine")
    outcome = deploy(old)
    assert "was not made by a deployment" in outcome.error.message
    assert (root(home) / "current/mine.txt").read_text() == "mine"


# Several hosts


def test_side_by_side():
    def action(host, work):
        return DeploymentResult(host, "failed" if host == "b" else "serves now")

    assert [(o.host, o.state) for o in on_each(["a", "b", "c"], action)] == [
        ("a", "serves now"),
        ("b", "failed"),
        ("c", "serves now"),
    ]


def test_a_device_that_answers_nonsense_is_a_failed_one(home, old, monkeypatch):
    """Not the end of what is done on others."""
    import contextlib

    from edgeattn.deployment import deploy as deployment
    from edgeattn.targets import ssh as remote

    monkeypatch.setattr(remote, "connected", lambda *_: contextlib.nullcontext(nearby.REMOTE))
    monkeypatch.setattr(remote, "look", lambda *_: {"files": 7})
    outcome = deployment.deploy(old, "pi@board", ORDER)
    assert (outcome.state, outcome.exit_code) == ("failed", 70)


def test_the_worst_exit_code():
    def ended(code):
        error = DeviceError("gone")
        error.exit_code = code
        return DeploymentResult("a", "failed", error=error if code else None)

    assert worst([ended(0), ended(5), ended(1)]) == 1
    assert worst([ended(0), ended(6), ended(5)]) == 5
    assert worst([ended(0), ended(0)]) == 0


@pytest.mark.parametrize(
    ("given", "folder"),
    [
        ("model.edge", "edgeattn/model"),
        ("there/model.edge.zip", "edgeattn/model"),
        ("my model.edge/", "edgeattn/my model"),
    ],
)
def test_the_folder_is_named_after_the_bundle(given, folder):
    assert default_folder(Path(given)) == folder


@pytest.mark.parametrize("given", ["..edge", "-rf.edge", "$(reboot).edge"])
def test_a_name_that_makes_no_folder(given):
    with pytest.raises(UsageError, match="--to"):
        default_folder(Path(given))


def test_roll_back_of_a_host_that_is_none():
    with pytest.raises(UsageError, match="Not a host"):
        roll_back("-oProxyCommand=reboot", ORDER)
