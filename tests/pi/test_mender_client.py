"""Bundles that Debian's Mender client installs without a server, here and in an emulated Pi."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import artifacts
import numpy as np
import pytest
from emulated import BOOKWORM, PI4, PROJECT, CannotEmulateError, debian_packages, run_command

from edgeattn.bundle.bundle import Bundle
from edgeattn.bundle.manifest import MANIFEST, sha256
from edgeattn.deployment.mender import ArtifactOptions, module_script, write_mender_artifact

pytestmark = pytest.mark.long

MODULES, SETTINGS = "usr/share/mender/modules/v3", "etc/mender"
# Debian's default is a link to a partition that the root does not have.
DATA = "var/lib/mender-data"
ROOT = "/var/lib/edgeattn"
# All that Mender calls for a module that needs no reboot.
INSTALLING = ("Download", "SupportsRollback", "ArtifactInstall", "NeedsArtifactReboot")
COMMITTING = ("ArtifactCommit", "Cleanup")
ROLLING_BACK = ("ArtifactRollback", "ArtifactFailure", "Cleanup")
# Exit status of `mender commit` and `mender rollback` if no update is in progress.
NOTHING_IN_PROGRESS = 2
PI = replace(
    BOOKWORM,
    packages=(*BOOKWORM.packages, "dash", "coreutils", "mender-client"),
    links={"usr/bin/sh": "dash"},
)
# A state of the module that ends the client, as a power failure does.
POWER_CUT = """\
#!/bin/sh
echo "$1" >> {root}/states
cut=$(cat {root}/cut 2>/dev/null)
[ "$cut" = "before $1" ] && {{ rm {root}/cut; kill -9 $PPID $$; }}
{root}/module "$@"
code=$?
[ "$cut" = "after $1" ] && {{ rm {root}/cut; kill -9 $PPID $$; }}
exit $code
"""
# In a namespace of its own, folders of the test lie over those of this machine.
NATIVE = """
set -e
for folder in usr/share etc var/lib; do
    upper=$1/$folder work=$1/work/$folder
    mkdir -p "$work"
    mount -t overlay overlay -o "lowerdir=/$folder,upperdir=$upper,workdir=$work" "/$folder"
done
shift
exec "$@"
"""


def program(path):
    """The program ``path``, if it starts here."""
    try:
        process = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
    except OSError as error:
        raise CannotEmulateError(f"{path.name} does not start: {error}") from error
    if process.returncode:
        raise CannotEmulateError(f"{path.name} does not start: {process.stderr.strip()}")
    return path


@dataclass
class MenderDevice:
    """A device whose folders are below ``folder``; ``prefix`` is the command that enters it."""

    folder: Path
    prefix: list

    def mender(self, *arguments):
        process = subprocess.run(
            [*self.prefix, "--data", f"/{DATA}", "--no-syslog", "--log-level", "info", *arguments],
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        return process.returncode, process.stdout, process.stdout + process.stderr

    def install(self, release, cut=None):
        shutil.copy(release.path, self.folder / DATA / "release.mender")
        return self.run("install", f"/{DATA}/release.mender", cut=cut)

    def run(self, *arguments, cut=None):
        path = self.folder / ROOT.strip("/") / "cut"
        if cut is not None:
            path.write_text(cut)
        code, _, output = self.mender(*arguments)
        if cut is not None:
            assert not path.exists(), output
            assert code < 0 or code > 128, output
        return code

    @property
    def states(self):
        """The states of the module that have been called."""
        return set((self.folder / ROOT.strip("/") / "states").read_text().split())

    @property
    def release(self):
        """What Mender calls the release that is installed."""
        code, name, output = self.mender("show-artifact")
        assert code == 0, output
        return name.strip()

    @property
    def serving(self):
        """The SHA-256 of the manifest of the bundle that serves, whose files are verified."""
        current = self.folder / ROOT.strip("/") / "dense/current"
        return sha256(Bundle.open(current).path / MANIFEST) if current.is_symlink() else None


@dataclass(frozen=True)
class Release:
    path: Path
    manifest: str


@pytest.fixture(scope="module")
def releases(tmp_path_factory):
    """Two bundles, and one whose outputs are wrong."""
    folder = tmp_path_factory.mktemp("releases")
    bias = artifacts.BIAS + np.float32(1e-2)
    bundles = {
        "first": artifacts.write_dense_bundle(folder / "first.edge", count=5),
        "second": artifacts.write_dense_bundle(folder / "second.edge", count=6),
        "wrong": artifacts.write_dense_bundle(folder / "wrong.edge", bias=bias),
    }
    written = {}
    for name, bundle in bundles.items():
        path = folder / f"{name}.mender"
        write_mender_artifact(bundle, path, ArtifactOptions(name, ("pi5", "pi4"), "dense"))
        written[name] = Release(path, sha256(bundle.path / MANIFEST))
    return written


def prepare(folder, python):
    for name in (MODULES, SETTINGS, DATA, ROOT.strip("/")):
        (folder / name).mkdir(parents=True)
    (folder / SETTINGS / "mender.conf").write_text("{}")
    (folder / SETTINGS / "artifact_info").write_text("artifact_name=factory\n")
    (folder / DATA / "device_type").write_text("device_type=pi4\n")
    module = folder / ROOT.strip("/") / "module"
    module.write_text(module_script(python, ["--root", ROOT]))
    (folder / MODULES / "edgeattn").write_text(POWER_CUT.format(root=ROOT))
    for path in (module, folder / MODULES / "edgeattn"):
        path.chmod(0o755)
    return folder


@pytest.fixture
def native(tmp_path):
    """Mender on this machine."""
    if os.geteuid() != 0:
        pytest.skip("mounting folders requires root")
    try:
        client = program(debian_packages("mender-client", "mender-client") / "usr/bin/mender")
        prepare(tmp_path, sys.executable)
        prefix = ["unshare", "-m", "sh", "-c", NATIVE, "mender", str(tmp_path)]
        run_command([*prefix, "true"])
    except (CannotEmulateError, RuntimeError) as reason:
        pytest.skip(str(reason))
    search_path = f"PYTHONPATH={PROJECT}:{':'.join(sys.path)}"
    return MenderDevice(tmp_path, [*prefix, "env", search_path, str(client)])


@pytest.fixture
def emulated(emulate, tmp_path):
    """Mender in the user space of a Pi."""
    pi = emulate(PI, PI4)
    prepare(tmp_path, "/usr/bin/python3")
    for name in (MODULES, SETTINGS, DATA, ROOT.strip("/")):
        pi = pi.mounted(tmp_path / name, f"/{name}")
    return MenderDevice(tmp_path, pi.command("mender"))


@pytest.fixture(params=["native", "emulated"])
def device(request):
    return request.getfixturevalue(request.param)


def test_install_commit_and_rollback(device, releases):
    first, second, wrong = (releases[name] for name in ("first", "second", "wrong"))
    assert device.install(first) == 0
    assert device.serving == first.manifest
    assert device.run("commit") == 0
    assert (device.release, device.serving) == ("first", first.manifest)
    # Mender rolls back what does not pass on the device.
    assert device.install(wrong) == 1
    assert (device.release, device.serving) == ("first", first.manifest)
    assert device.run("commit") == NOTHING_IN_PROGRESS
    # A person rolls back.
    assert device.install(second) == 0
    assert device.serving == second.manifest
    assert device.run("rollback") == 0
    assert (device.release, device.serving) == ("first", first.manifest)
    assert device.run("rollback") == NOTHING_IN_PROGRESS
    assert device.install(second) == 0
    assert device.run("commit") == 0
    assert (device.release, device.serving) == ("second", second.manifest)
    assert device.states == {*INSTALLING, *COMMITTING, *ROLLING_BACK}


def test_the_message_of_a_verdict_is_in_the_log_of_mender(native, releases):
    assert native.install(releases["first"]) == 0
    assert native.run("commit") == 0
    shutil.copy(releases["wrong"].path, native.folder / DATA / "release.mender")
    code, _, output = native.mender("install", f"/{DATA}/release.mender")
    assert code == 1
    assert re.search(r"The verdict on 0002-\w+ is fail: tflite float32: ", output)
    assert "Rolling back" in output


def test_a_version_that_is_damaged_after_its_installation(native, releases):
    """`mender commit` fails, and Mender rolls back."""
    first, second = releases["first"], releases["second"]
    assert native.install(first) == 0
    assert native.run("commit") == 0
    assert native.install(second) == 0
    reference = native.folder / ROOT.strip("/") / "dense/current/reference.npz"
    reference.unlink()
    reference.write_bytes(b"damaged")
    assert native.run("commit") == 1
    assert (native.release, native.serving) == ("first", first.manifest)


@pytest.fixture(scope="module")
def templates():
    """Folders of devices on which the first release was committed, by the kind of the device."""
    return {}


@pytest.fixture
def with_first(request, device, releases, templates, tmp_path_factory):
    """A device on which the first release was committed."""
    kind = request.node.callspec.params["device"]
    if kind in templates:
        subprocess.run(["cp", "-a", f"{templates[kind]}/.", device.folder], check=True)
        return device
    assert device.install(releases["first"]) == 0
    assert device.run("commit") == 0
    shutil.rmtree(device.folder / "work", ignore_errors=True)
    templates[kind] = tmp_path_factory.mktemp(kind)
    subprocess.run(["cp", "-a", f"{device.folder}/.", templates[kind]], check=True)
    return device


# In emulation, "before" a state is "after" the one before it.
CUTS = pytest.mark.parametrize(
    ("device", "place"),
    [("native", "before"), ("native", "after"), ("emulated", "after")],
    indirect=["device"],
)


def install_second(device, second):
    # Mender has not stored that it installed something.
    assert device.run("commit") == NOTHING_IN_PROGRESS
    assert device.install(second) == 0
    assert device.run("commit") == 0
    assert (device.release, device.serving) == ("second", second.manifest)


@CUTS
@pytest.mark.parametrize("state", INSTALLING)
def test_power_failures_during_an_installation(with_first, releases, state, place):
    first, second = releases["first"], releases["second"]
    with_first.install(second, cut=f"{place} {state}")
    assert with_first.serving in (first.manifest, second.manifest)
    install_second(with_first, second)


@CUTS
@pytest.mark.parametrize("state", ROLLING_BACK)
def test_power_failures_while_a_bundle_fails(with_first, releases, state, place):
    with_first.install(releases["wrong"], cut=f"{place} {state}")
    assert with_first.serving == releases["first"].manifest
    install_second(with_first, releases["second"])


@CUTS
@pytest.mark.parametrize("state", [*COMMITTING, "ArtifactRollback"])
def test_power_failures_after_an_installation(with_first, releases, state, place):
    first, second = releases["first"], releases["second"]
    assert with_first.install(second) == 0
    action = "rollback" if state == "ArtifactRollback" else "commit"
    with_first.run(action, cut=f"{place} {state}")
    assert with_first.serving in (first.manifest, second.manifest)
    assert with_first.run(action) == 0
    name = "first" if action == "rollback" else "second"
    assert (with_first.release, with_first.serving) == (name, releases[name].manifest)


def test_the_artifacts_are_read_by_the_tool_of_mender(releases):
    try:
        tool = program(
            debian_packages("mender-artifact", "mender-artifact") / "usr/bin/mender-artifact"
        )
    except CannotEmulateError as reason:
        pytest.skip(str(reason))
    path = releases["first"].path
    done = subprocess.run([tool, "validate", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    done = subprocess.run([tool, "read", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for text in ("Name: first", "Version: 3", "pi5", "pi4", "Type:   edgeattn", "bundle.edge.zip"):
        assert text in done.stdout
