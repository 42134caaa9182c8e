"""Deployments to a device that is a folder of this machine, interrupted at every step."""

from __future__ import annotations

import functools
import json
import os
import resource
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import artifacts
import numpy as np
import pytest
from local_device import HOST, OPTIONS, LocalWorker, deploy, end_process, leftovers, serving

from edgeattn.bundle.bundle import Bundle
from edgeattn.bundle.manifest import MANIFEST, sha256
from edgeattn.cli.deploy import as_text
from edgeattn.deployment.deploy import default_folder
from edgeattn.deployment.on_device import steps
from edgeattn.deployment.on_device.versions import Versions
from edgeattn.deployment.parallel import on_each_host
from edgeattn.deployment.results import DeploymentResult, worst_exit_code
from edgeattn.deployment.rollback import roll_back, roll_back_over
from edgeattn.device import runtime_check
from edgeattn.errors import BundleError, DeviceError, UsageError
from edgeattn.targets import ssh
from edgeattn.targets.connection import Connection
from edgeattn.targets.on_device import session
from edgeattn.targets.on_device.file_store import FileStore
from edgeattn.validation import validate as validation

TESTS = Path(__file__).parent


def hash_of(bundle):
    return sha256(bundle.path / MANIFEST)


def root(home):
    return home / "edgeattn/dense"


def test_first_deployment(home, old):
    result = deploy(old)
    assert (result.state, result.exit_code) == ("serves now", 0)
    assert (result.version, result.previous) == (f"0001-{hash_of(old)[:12]}", None)
    assert serving(home) == hash_of(old)
    assert result.sent == sum(p.stat().st_size for p in old.path.iterdir())
    # Both machines compute the same numbers.
    assert {item.stages["device"] for item in result.report.artifacts} == {"pass"}
    report = json.loads((root(home) / "versions" / result.version / "report.json").read_text())
    assert (report["verdict"], report["host"]) == ("pass", "pi@board")
    assert leftovers(home) == []


class Measured:
    """A measurement on the device; the second one of onnx is the fastest."""

    def __init__(self, *_, **__):
        pass

    def to_json(self):
        medians = [("tflite", 1, 2.0), ("onnx", 1, 2.5), ("tflite", 2, 1.75), ("onnx", 2, 1.5)]
        return {
            "artifacts": [
                {"format": format, "scheme": "float32", "threads": threads, "p50_ms": median}
                for format, threads, median in medians
            ]
        }


def test_the_fastest_artifact_on_the_device_is_recommended(home, old, monkeypatch):
    monkeypatch.setattr("edgeattn.benchmark.latency.measure_latency", Measured)
    result = deploy(old, options=replace(OPTIONS, measure=True))
    recommended = result.to_json()["recommended"]
    assert (recommended["format"], recommended["criterion"]) == ("onnx", "latency")
    assert (recommended["p50_ms"], recommended["threads"]) == (1.5, 2)
    assert recommended["device"] == "pi@board"
    report = json.loads((root(home) / "versions" / result.version / "report.json").read_text())
    assert report["recommended"] == recommended
    text = as_text((result,), old.path)
    assert f"pi@board: {result.recommendation.line}" in text.splitlines()
    assert "median 1.5 ms with 2 threads" in text


def test_without_a_measurement_the_smallest_artifact_is_recommended(home, old):
    smallest = min(old.manifest.artifacts, key=lambda item: item.bytes)
    assert deploy(old).recommendation.artifact == smallest


def test_only_changed_files_are_copied(home, old, new):
    deploy(old)
    result = deploy(new)
    # Both bundles have the same artifacts, with another reference and manifest.
    changed = [p for p in new.path.iterdir() if sha256(p) != sha256(old.path / p.name)]
    assert sorted(p.name for p in changed) == [MANIFEST, "reference.npz"]
    assert result.sent == sum(p.stat().st_size for p in changed)
    assert (result.state, result.previous) == ("serves now", f"0001-{hash_of(old)[:12]}")
    assert serving(home) == hash_of(new)


def test_deploying_the_same_bundle_again_changes_nothing(home, old):
    first, second = deploy(old), deploy(old)
    assert (second.state, second.sent, second.version) == ("served already", 0, first.version)
    assert Versions(root(home)).all() == [first.version]


def test_rollback_restores_the_previous_version(home, old, new):
    options = replace(OPTIONS, keep=3)
    versions = Versions(root(home))
    deploy(old, options=options)
    deploy(new, options=options)
    assert versions.roll_back() == ("0002-" + hash_of(new)[:12], "0001-" + hash_of(old)[:12])
    assert serving(home) == hash_of(old)
    with pytest.raises(DeviceError, match="no earlier version"):
        versions.roll_back()
    # The abandoned version serves again if it is deployed again.
    assert deploy(new, options=options).version == "0002-" + hash_of(new)[:12]
    assert versions.roll_back()[1] == "0001-" + hash_of(old)[:12]


def test_returning_to_an_old_bundle_creates_a_version(home, old, new):
    options = replace(OPTIONS, keep=5)
    for bundle in (old, new, old):
        deploy(bundle, options=options)
    history = list(Versions(root(home)).history())
    assert [name[:4] for name in history] == ["0003", "0002", "0001"]


def test_rollback_refuses_a_changed_version(home, old, new):
    deploy(old)
    deploy(new)
    file = root(home) / "versions" / f"0001-{hash_of(old)[:12]}" / "bundle/reference.npz"
    file.unlink()
    file.write_bytes(b"something else")
    with pytest.raises(BundleError, match=r"reference\.npz has changed") as error:
        roll_back_over(Connection(LocalWorker(), HOST), OPTIONS)
    end_process()
    assert error.value.exit_code == 2
    assert serving(home) == hash_of(new)


def test_only_the_last_versions_are_kept(home, tmp_path):
    bundles = [artifacts.write_dense_bundle(tmp_path / f"{n}.edge", count=n) for n in (3, 5, 7, 11)]
    results = [deploy(bundle) for bundle in bundles]
    assert [result.removed for result in results] == [
        (),
        (),
        (results[0].version,),
        (results[1].version,),
    ]
    assert Versions(root(home)).all() == [results[2].version, results[3].version]
    assert leftovers(home) == []


def test_a_failed_validation_does_not_switch(home, old, tmp_path):
    deploy(old)
    # The artifacts are intact, but the reference is not what they compute.
    wrong = artifacts.write_dense_bundle(tmp_path / "wrong.edge", count=7)
    x = artifacts.samples(7)
    artifacts.write_bundle(
        wrong.path,
        wrong.manifest.artifacts,
        {"input/x": x, "output/score": artifacts.dense(x) + np.float32(1e-2)},
    )
    result = deploy(Bundle.open(wrong.path))
    assert (result.state, result.exit_code, result.report.verdict) == ("refused", 1, "fail")
    assert serving(home) == hash_of(old)
    # A second attempt is refused too, and creates no second version.
    assert deploy(Bundle.open(wrong.path)).version == result.version


def test_a_device_that_computes_other_numbers_fails(home, old, monkeypatch):
    """Its outputs meet the limits, but differ from those of the host for the same file."""
    original = validation.validate_isolated
    calls = []

    def validate_isolated(bundle, selected, **keywords):
        report = original(bundle, selected, **keywords)
        calls.append(bundle)
        if len(calls) > 1:  # the first call is the device's
            return report
        return replace(
            report,
            artifacts=tuple(
                replace(item, outputs={n: a + np.float32(0.01) for n, a in item.outputs.items()})
                for item in report.artifacts
            ),
        )

    monkeypatch.setattr(validation, "validate_isolated", validate_isolated)
    result = deploy(old)
    assert (result.state, result.exit_code) == ("refused", 1)
    assert {item.stages["device"] for item in result.report.artifacts} == {"fail"}
    assert serving(home) is None


def test_errors_name_the_host_once():
    named = DeviceError("pi@board: ssh: Connection refused")
    lines = as_text((DeploymentResult("pi@board", "failed", error=named),), Path("m.edge"))
    assert "pi@board: ssh: Connection refused" in lines.splitlines()
    other = DeviceError("No runtime works.")
    lines = as_text((DeploymentResult("pi@board", "failed", error=other),), Path("m.edge"))
    assert "pi@board: No runtime works." in lines.splitlines()


def test_no_runtime_works_on_the_device(home, old, monkeypatch):
    checks = (
        runtime_check.RuntimeCheck("tflite", "fail", reason="its process died of SIGILL"),
        runtime_check.RuntimeCheck("onnx", "not installed"),
    )
    monkeypatch.setattr(runtime_check, "check_runtimes", lambda: checks)
    worker = LocalWorker()
    result = deploy(old, worker)
    assert (result.state, result.exit_code) == ("failed", 5)
    assert "tflite: its process died of SIGILL" in result.error.message
    assert "edgeattn doctor pi@board" in result.error.hint
    assert worker.calls == ["open_folder", "check_runtimes"]


def test_other_version_of_edgeattn_on_the_device(home, old, monkeypatch):
    @functools.wraps(steps.open_folder)
    def open_folder(folder):
        return {"edgeattn": "0.0.1"}

    monkeypatch.setattr(steps, "open_folder", open_folder)
    result = deploy(old)
    assert "has edgeattn 0.0.1" in result.error.message
    assert "--install" in result.error.hint


def test_full_disk(home, old, monkeypatch):
    from collections import namedtuple

    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(session.shutil, "disk_usage", lambda path: usage(10**9, 10**9, 5000))
    result = deploy(old)
    assert result.exit_code == 5
    assert "The disk is too full: 5,000 bytes are free" in result.error.message


# Interruptions


def test_concurrent_deployments_are_refused(home, old, new):
    deploy(old)
    with (root(home) / "lock").open("ab") as other:
        import fcntl

        fcntl.flock(other, fcntl.LOCK_EX)
        result = deploy(new)
    assert (result.state, result.exit_code) == ("failed", 5)
    assert "Another deployment" in result.error.message
    assert deploy(new).state == "serves now"


@pytest.mark.parametrize("executed", [pytest.param(False, marks=pytest.mark.long), True])
def test_connection_lost_at_every_call(home, old, new, tmp_path, executed):
    deploy(old)
    complete = LocalWorker()
    deploy(new, complete)
    Versions(root(home)).roll_back()
    assert complete.calls.count("add_piece") > 3
    assert complete.calls[-3:] == ["save_report", "switch", "prune"]
    for number, name in enumerate(complete.calls, 1):
        device_home = tmp_path / f"{number}-{executed}"
        device_home.mkdir()
        os.environ["HOME"] = str(device_home)
        deploy(old)
        interrupted = LocalWorker(cut_at=number, executed=executed)
        result = deploy(new, interrupted)
        assert interrupted.calls[-1] == name
        assert (result.state, result.exit_code) == ("failed", 5)
        assert "disconnect" in result.error.message
        switched = name == "prune" or (name == "switch" and executed)
        assert serving(device_home) == hash_of(new if switched else old)
        second = LocalWorker()
        result = deploy(new, second)
        assert result.exit_code == 0
        assert serving(device_home) == hash_of(new)
        assert leftovers(device_home) == []
        # Pieces that arrived are not sent again.
        sent = interrupted.calls[:-1].count("add_piece") + (name == "add_piece" and executed)
        assert second.calls.count("add_piece") == complete.calls.count("add_piece") - sent
    os.environ["HOME"] = str(home)


@pytest.mark.parametrize(
    ("mode", "step"),
    [
        ("kill", "4"),
        pytest.param("kill", "1", marks=pytest.mark.long),
        pytest.param("full", "1", marks=pytest.mark.long),
    ],
)
def test_interrupted_at_every_change_of_the_disk(tmp_path, mode, step):
    """Killed, or faced with a full disk, before every file is created, renamed or removed.

    The quick test does so before every fourth.
    """
    process = subprocess.run(
        [sys.executable, str(TESTS / "local_device.py"), str(tmp_path), mode, step],
        env={**os.environ, "PYTHONPATH": str(TESTS.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    result = json.loads(process.stdout)
    assert result["violations"] == []
    assert result["changes"] > result["switch"] > 30


def test_disk_fills_up_in_the_middle_of_a_file(home, old):
    """A file is written in part; the next attempt sends the rest."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        result = deploy(old)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert result.exit_code == 5
    assert "File too large" in result.error.message
    assert serving(home) is None
    second = deploy(old)
    assert second.state == "serves now"
    assert 0 < second.sent < sum(p.stat().st_size for p in old.path.iterdir())


def test_everything_is_synced_before_the_switch(home, old, monkeypatch):
    """If power fails after the switch, every file of the new version and its name are on disk."""
    events = []
    fsync, rename = os.fsync, Path.rename

    def record_fsync(handle):
        events.append(str(Path(f"/proc/self/fd/{handle}").readlink()))
        fsync(handle)

    def record_rename(path, target):
        events.append(("rename", Path(path).name, str(target)))
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(Path, "rename", record_rename)
    version = deploy(old).version
    switch = next(n for n, event in enumerate(events) if event[:2] == ("rename", ".current"))
    before, after = events[:switch], events[switch + 1 :]
    base = root(home)
    # Files are synced under their first name, in partial/; hard links share their content.
    files = {sha256(path) for path in (base / "versions" / version / "bundle").iterdir()}
    assert {str(base / "partial" / digest) for digest in files} <= set(before)
    assert {str(base / "objects"), str(base / "versions"), str(base / "aside/bundle")} <= set(
        before
    )
    assert str(base / "versions" / version / ".report.json") in before
    assert str(base) in after


def test_corrupted_file_is_copied_again(home, old, new):
    deploy(old)
    digest = old.manifest.artifacts[0].sha256
    file = FileStore(root(home)).path(digest)
    file.chmod(0o644)
    data = bytearray(file.read_bytes())
    data[100] ^= 1
    file.write_bytes(data)
    # The current version shares the file as a hard link, so it is replaced by a new version.
    result = deploy(old)
    assert (result.state, result.version[:4]) == ("serves now", "0002")
    assert serving(home) == hash_of(old)


def test_file_damaged_in_transfer_is_removed(tmp_path):
    store = FileStore(tmp_path)
    digest = artifacts.sha256(Path(__file__))
    with pytest.raises(DeviceError, match="damaged in transfer"):
        store.add_piece(digest, 0, b"something else", 14)
    assert store.missing({digest: 14}) == {digest: 0}


def test_incomplete_file_is_resumed(tmp_path):
    import hashlib

    data = bytes(range(256))
    digest = hashlib.sha256(data).hexdigest()
    store = FileStore(tmp_path)
    assert not store.add_piece(digest, 0, data[:100], 256)
    assert store.missing({digest: 256}) == {digest: 100}
    with pytest.raises(DeviceError, match="starts at byte 0, but 100 bytes were received"):
        store.add_piece(digest, 0, data, 256)
    assert store.add_piece(digest, 100, data[100:], 256)
    assert store.missing({digest: 256}) == {}
    assert store.path(digest).read_bytes() == data


@pytest.mark.parametrize("name", ["../../etc/passwd", "a" * 63, "A" * 64, ""])
def test_names_that_are_not_hashes_are_refused(tmp_path, name):
    with pytest.raises(DeviceError, match="Not a SHA-256"):
        FileStore(tmp_path).missing({name: 1})
    with pytest.raises(DeviceError, match="Not a version"):
        Versions(tmp_path).folder(name)


def test_a_folder_named_current_is_not_replaced(home, old):
    (root(home) / "current").mkdir(parents=True)
    (root(home) / "current/mine.txt").write_text("mine")
    result = deploy(old)
    assert "was not created by a deployment" in result.error.message
    assert (root(home) / "current/mine.txt").read_text() == "mine"


# Several hosts


def test_results_keep_the_order_of_the_hosts():
    def action(host, cancellation):
        return DeploymentResult(host, "failed" if host == "b" else "serves now")

    assert [(r.host, r.state) for r in on_each_host(["a", "b", "c"], action)] == [
        ("a", "serves now"),
        ("b", "failed"),
        ("c", "serves now"),
    ]


def test_malformed_data_of_a_device_is_part_of_its_result(home, old, monkeypatch):
    """An exception would end the deployments to other devices."""
    import contextlib

    from edgeattn.deployment import deploy as deployment

    monkeypatch.setattr(ssh, "connect", lambda *_: contextlib.nullcontext(HOST))
    monkeypatch.setattr(ssh, "system_snapshot", lambda *_: {"files": 7})
    result = deployment.deploy(old, "pi@board", OPTIONS)
    assert (result.state, result.exit_code) == ("failed", 5)
    assert "malformed reply: a description of the machine" in result.error.message


def test_after_an_installation_the_advice_is_not_to_install(old, monkeypatch):
    import contextlib

    from edgeattn.deployment import deploy as deployment
    from edgeattn.deployment import install as installation

    monkeypatch.setattr(ssh, "connect", lambda *_: contextlib.nullcontext(HOST))
    monkeypatch.setattr(ssh, "system_snapshot", lambda *_: {})
    monkeypatch.setattr(deployment, "parse_device", lambda _: None)
    monkeypatch.setattr(installation, "install", lambda *_: 0)

    def worker_on(*_):
        raise HOST.error_from("/usr/bin/python3: No module named edgeattn")

    monkeypatch.setattr(ssh, "worker_on", worker_on)
    advice = deployment.deploy(old, "pi@board", OPTIONS).error.hint
    assert "--install" in advice
    error = deployment.deploy(old, "pi@board", replace(OPTIONS, install=True)).error
    assert "No module named" in error.message
    assert "--install" not in error.hint
    assert "~/edge/bin/python" in error.hint


def test_worst_exit_code():
    def result(code):
        error = DeviceError("gone")
        error.exit_code = code
        return DeploymentResult("a", "failed", error=error if code else None)

    assert worst_exit_code([result(0), result(5), result(1)]) == 1
    assert worst_exit_code([result(0), result(6), result(5)]) == 5
    assert worst_exit_code([result(0), result(0)]) == 0


@pytest.mark.parametrize(
    ("path", "folder"),
    [
        ("model.edge", "edgeattn/model"),
        ("there/model.edge.zip", "edgeattn/model"),
        ("my model.edge/", "edgeattn/my model"),
    ],
)
def test_default_folder(path, folder):
    assert default_folder(Path(path)) == folder


def test_names_that_are_not_utf8(home, tmp_path):
    bundle = artifacts.write_dense_bundle(tmp_path / "b\udcff.edge")
    result = deploy(bundle, options=replace(OPTIONS, folder="edgeattn/\udcff"))
    assert result.error is None
    assert result.state == "serves now"
    Bundle.open(home / "edgeattn" / "\udcff" / "current")


@pytest.mark.parametrize("path", ["..edge", "-rf.edge", "$(reboot).edge", "b\udcff.edge"])
def test_bundle_names_without_a_default_folder(path):
    with pytest.raises(UsageError, match="--to"):
        default_folder(Path(path))


def test_rollback_refuses_an_invalid_host():
    with pytest.raises(UsageError, match="Not a host"):
        roll_back("-oProxyCommand=reboot", OPTIONS)
