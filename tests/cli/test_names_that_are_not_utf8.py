"""Names of bundles, samples, outputs, keys and folders with bytes that are not UTF-8."""

import json
import os
import shutil
import subprocess
import xml.etree.ElementTree
from pathlib import Path

import artifacts
import numpy as np
import pytest
from artifacts import samples
from long_parameters import only

BAD = os.fsdecode(b"\xff")
BUNDLE, SOURCE, DATA = f"b{BAD}.edge", f"x{BAD}.npy", f"d{BAD}.npz"
PACK, PAGE, JUNIT, OUTPUT = f"p{BAD}.zip", f"r{BAD}.html", f"r{BAD}.xml", f"o{BAD}.npz"
KEY, ALLOWED = f"key{BAD}", f"allowed{BAD}"
# As it is printed.
SHOWN = "\\udcff"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / f"cache{BAD}"))
    artifacts.write_dense_bundle(tmp_path / BUNDLE, formats=("onnx",))
    np.save(tmp_path / SOURCE, samples(11))
    np.savez(tmp_path / DATA, x=samples(40), y=np.zeros(40, int))
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "code", "written"),
    [
        (("inspect", BUNDLE), 0, ()),
        (("validate", BUNDLE, "--jobs", 1, "--report", PAGE, "--junit", JUNIT), 0, (PAGE, JUNIT)),
        # Without a second artifact there is no reference.
        (("validate", BUNDLE, "--jobs", 1, "--data", DATA, "--resume"), 2, ()),
        (("validate", BUNDLE, "--jobs", 1, "--explain"), 0, ()),
        (("run", BUNDLE, "--input", SOURCE, "-o", OUTPUT), 0, (OUTPUT,)),
        (("run", BUNDLE, "--input", SOURCE), 0, (f"x{BAD}.outputs.npz",)),
        (("pack", BUNDLE, "-o", PACK), 0, (PACK,)),
        (("pack", BUNDLE), 0, (f"{BUNDLE}.zip",)),
        (("bench", BUNDLE, "--threads", 1, "--seconds", 0), 0, ()),
        (("validate", f"no{BAD}"), 2, ()),
        (("inspect", f"no{BAD}"), 2, ()),
        (("deploy", BUNDLE, "localhost"), 2, ()),
        (("deploy", BUNDLE, f"host{BAD}"), 2, ()),
        (("doctor", f"host{BAD}"), 2, ()),
    ],
    ids=lambda value: " ".join(map(ascii, value)) if isinstance(value, tuple) else None,
)
@pytest.mark.parametrize("as_json", only([False, True], False), ids=["text", "json"])
def test_commands(edgeattn, folder, arguments, code, written, as_json):
    if as_json and arguments[0] == "validate" and "--report" not in arguments:
        pytest.skip("one validation with --json is enough")
    result = edgeattn(*arguments, *(("--json",) if as_json else ()))
    assert result.code == code, result.out + result.err
    assert "Traceback" not in result.err
    for name in written:
        assert (folder / name).is_file()
    if as_json:
        json.loads(result.out)
    if code == 2:
        assert SHOWN in result.err


def test_reports_name_the_bundle(edgeattn, folder):
    command = ("validate", BUNDLE, "--jobs", 1, "--report", PAGE, "--junit", JUNIT)
    assert edgeattn(*command).code == 0
    assert SHOWN in (folder / PAGE).read_text("utf-8")
    root = xml.etree.ElementTree.parse(folder / JUNIT).getroot()
    assert root.get("name") == f"edgeattn validate b{SHOWN}.edge"


def test_packed_bundles(edgeattn, folder):
    assert edgeattn("pack", BUNDLE, "-o", PACK).code == 0
    assert edgeattn("inspect", PACK).code == 0
    assert edgeattn("run", PACK, "--input", SOURCE, "-o", OUTPUT).code == 0
    assert np.load(folder / OUTPUT)["score"].shape == (11, 2)


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="signing needs ssh-keygen")
def test_keys_and_signers(edgeattn, folder):
    key = folder / KEY
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    kind, public, *_ = Path(f"{key}.pub").read_text("utf-8").split()
    (folder / ALLOWED).write_text(f'me namespaces="edgeattn-bundle" {kind} {public}\n')
    assert edgeattn("sign", BUNDLE, "--key", KEY).code == 0
    command = ("run", BUNDLE, "--input", SOURCE, "--force", "--require-signature")
    assert edgeattn(*command, ALLOWED).code == 0
    (folder / ALLOWED).write_text("")
    result = edgeattn(*command, ALLOWED)
    assert (result.code, SHOWN in result.err) == (4, True)
