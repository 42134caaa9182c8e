"""The commands of the light half on bundles made by hand: documents, exit codes, texts."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import artifacts
import numpy as np
import pytest
from artifacts import TensorSpec, dense, samples

COMMANDS = [
    *("bench", "convert", "deploy", "doctor", "inspect", "pack", "run", "sign", "tune"),
    "validate",
]


@pytest.fixture
def source(tmp_path):
    np.save(tmp_path / "x.npy", samples(11))
    return "x.npy"


def listing(folder):
    return sorted(path.name for path in folder.rglob("*"))


# Help and usage


def test_every_command_has_help(edgeattn):
    whole = edgeattn("--help")
    assert whole.code == 0
    listed = re.findall(r"^  (\w+) +\w", whole.out.split("Commands:")[1], flags=re.MULTILINE)
    assert listed == COMMANDS
    for name in COMMANDS:
        told = edgeattn(name, "--help")
        assert (told.code, told.err) == (0, "")
        options = told.out.split("Options:")[1].strip().splitlines()
        # An option's text stands beside it, or on the next line.
        for line, following in zip(options, [*options[1:], ""], strict=True):
            if re.match(r" {0,6}-", line):
                assert re.search(r"\S  +\S", line.strip()) or following.startswith("    "), line
        assert edgeattn(name, "-h").out == told.out


def test_version(edgeattn):
    import edgeattn as package

    assert edgeattn("--version").out == f"edgeattn, version {package.__version__}\n"


def test_without_a_command(edgeattn):
    told = edgeattn()
    assert told.code == 2
    assert "Usage: edgeattn" in told.out + told.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["--nonsense"],
        *[[name, "x", "--nonsense"] for name in COMMANDS],
        ["validate"],
        ["run", "b.edge"],
        ["run", "b.edge", "--input", "x.npy", "--threads", "0"],
        ["run", "b.edge", "--input", "x.npy", "--threads", "two"],
        ["validate", "b.edge", "--format", "exe"],
        ["validate", "b.edge", "--scheme", "float31"],
    ],
)
def test_usage(edgeattn, arguments):
    told = edgeattn(*arguments)
    assert told.code == 2
    assert told.out == ""
    assert "Error: " in told.err
    assert "Traceback" not in told.err
    # Where one document was promised, there is one.
    told = edgeattn(*arguments, "--json")
    assert told.code == 2
    if arguments != ["--nonsense"]:
        assert told.document["error"]["exit_code"] == 2


# inspect


def test_inspect(edgeattn, dense_bundle):
    told = edgeattn("inspect", dense_bundle.path, "--json")
    assert told.code == 0
    assert told.document == {"kind": "bundle", **dense_bundle.manifest.to_json()}
    text = edgeattn("inspect", dense_bundle.path).out
    assert "Bundle of hand.h5, 8 parameters" in text
    assert "input   x (1, 3) float32" in text


def test_inspect_an_empty_bundle(edgeattn, tmp_path):
    artifacts.write_bundle(tmp_path, [], {"input/x": samples()})
    assert edgeattn("inspect", tmp_path).code == 0


# run


@pytest.mark.parametrize("format", ["tflite", "onnx"])
def test_run(edgeattn, dense_bundle, source, tmp_path, format):
    told = edgeattn("run", dense_bundle.path, "--input", source, "--format", format, "--json")
    assert (told.code, told.err) == (0, "")
    assert told.document.pop("runtime").split()[0] in ("ai-edge-litert", "onnxruntime")
    document = told.document
    del document["runtime"]
    assert document == {
        "outputs": {"score": {"shape": [11, 2], "dtype": "float32"}},
        "path": "x.outputs.npz",
        "format": format,
        "scheme": "float32",
    }
    with np.load(tmp_path / "x.outputs.npz") as got:
        np.testing.assert_array_equal(got["score"], dense(samples(11)))


def test_run_for_people(edgeattn, dense_bundle, source):
    told = edgeattn("run", dense_bundle.path, "--input", source, "-o", "a.npz")
    assert told.code == 0
    assert "tflite float32 in ai-edge-litert" in told.out
    assert re.search(r"score +11x2 +float32 +-?\d", told.out)
    assert told.out.endswith("Wrote a.npz\n")
    quiet = edgeattn("run", dense_bundle.path, "--input", source, "-o", "b.npz", "--quiet")
    assert "ai-edge-litert" not in quiet.out


def test_run_shows_booleans_and_integers(edgeattn, tmp_path, source):
    artifacts.write_kinds_onnx(tmp_path / "m.onnx")
    outputs = (TensorSpec("sign", (None, 3), "bool"), TensorSpec("best", (None,), "int64"))
    x = samples()
    artifacts.write_bundle(
        tmp_path,
        [artifacts.artifact(tmp_path / "m.onnx", outputs=outputs)],
        {"input/x": x, "output/sign": x > 0, "output/best": x.argmax(1)},
    )
    told = edgeattn("run", ".", "--input", source)
    assert (told.code, told.err) == (0, "")
    assert re.search(r"sign +11x3 +bool +(True|False) ", told.out)
    assert re.search(r"best +11 +int64 +\d", told.out)


def test_run_a_csv(edgeattn, dense_bundle, tmp_path):
    (tmp_path / "x.csv").write_text("a,b,c\n2,4,-8\n")
    told = edgeattn("run", dense_bundle.path, "--input", "x.csv")
    assert told.code == 0
    assert "6.125 -53" in told.out


# validate


def test_validate(edgeattn, dense_bundle):
    told = edgeattn("validate", dense_bundle.path, "--json")
    assert (told.code, told.err) == (0, "")
    assert told.document["verdict"] == "pass"
    assert [item["verdict"] for item in told.document["artifacts"]] == ["pass", "pass"]
    for item in told.document["artifacts"]:
        assert set(item) >= {"format", "scheme", "runtime", "verdict", "checks", "task"}
        assert all(set(check) >= {"metric", "value", "limit", "passed"} for check in item["checks"])
    told = edgeattn("validate", dense_bundle.path)
    assert told.out.endswith("Not run: task, device.\nVerdict: pass\n")


@pytest.mark.parametrize("value", [1e-2, np.nan, np.inf])
def test_validate_what_is_wrong(edgeattn, tmp_path, value):
    bias = artifacts.BIAS + np.array([0, value], np.float32)
    made = artifacts.write_dense_bundle(tmp_path / "b.edge", bias=bias)
    told = edgeattn("validate", made.path, "--json")
    assert (told.code, told.document["verdict"], told.err) == (1, "fail", "")
    json.loads(told.out, parse_constant=pytest.fail)  # no NaN and no Infinity: no JSON has them
    told = edgeattn("validate", made.path)
    assert told.code == 1
    assert "tflite float32: tolerance_ratio of score is" in told.out
    assert told.out.endswith("Verdict: fail\n")
    assert told.err == ""


def test_validate_a_selection(edgeattn, tmp_path):
    made = artifacts.write_dense_bundle(tmp_path / "b.edge")
    (made.path / "dense.float32.onnx").write_bytes(b"garbage")
    artifacts.rehash(made.path)
    assert edgeattn("validate", made.path).code == 1
    assert edgeattn("validate", made.path, "--format", "tflite").code == 0
    assert edgeattn("validate", made.path, "--format", "onnx", "--format", "all").code == 1
    assert edgeattn("validate", made.path, "--scheme", "int8").code == 2


def test_validate_without_any_runtime(edgeattn_process, dense_bundle, tmp_path):
    blocked = tmp_path / "blocked"
    for name in ("onnxruntime", "ai_edge_litert", "tflite_runtime"):
        (blocked / name).mkdir(parents=True)
        (blocked / name / "__init__.py").write_text("raise ImportError('blocked')\n")
    environment = {**os.environ, "PYTHONPATH": str(blocked)}
    told = edgeattn_process("validate", dense_bundle.path, "--json", env=environment)
    assert (told.code, told.document["verdict"]) == (5, "not run")
    told = edgeattn_process("validate", dense_bundle.path, env=environment)
    assert told.code == 5
    assert "pip install" in told.out or "installed" in told.out
    np.save(tmp_path / "x.npy", samples())
    told = edgeattn_process("run", dense_bundle.path, "--input", "x.npy", "--json", env=environment)
    assert (told.code, told.document["error"]["exit_code"]) == (5, 5)
    assert "pip install" in told.document["error"]["hint"]


# Errors


def no_bundle(folder):
    return ["validate", "nowhere"]


def newer(folder):
    artifacts.edit_manifest(folder / "dense.edge", lambda data: data.update(format_version=9))
    return ["validate", "dense.edge"]


def changed(folder):
    (folder / "dense.edge" / "dense.float32.onnx").write_bytes(b"x")
    return ["validate", "dense.edge"]


def manifest_is_a_folder(folder):
    (folder / "dense.edge" / "manifest.json").unlink()
    (folder / "dense.edge" / "manifest.json").mkdir()
    return ["validate", "dense.edge"]


def no_samples(folder):
    return ["run", "dense.edge", "--input", "nowhere.npy"]


def wrong_shape(folder):
    np.save(folder / "x.npy", np.zeros((7, 5)))
    return ["run", "dense.edge", "--input", "x.npy"]


def not_finite(folder):
    np.save(folder / "x.npy", np.full((7, 3), np.nan))
    return ["run", "dense.edge", "--input", "x.npy"]


def output_is_there(folder):
    np.save(folder / "x.npy", samples())
    (folder / "out.npz").write_text("mine")
    return ["run", "dense.edge", "--input", "x.npy", "-o", "out.npz"]


@pytest.mark.parametrize(
    "make",
    [
        no_bundle,
        newer,
        changed,
        manifest_is_a_folder,
        no_samples,
        wrong_shape,
        not_finite,
        output_is_there,
    ],
)
def test_errors_are_text_and_one_document(edgeattn, dense_bundle, tmp_path, make):
    arguments = make(tmp_path)
    before = listing(tmp_path)
    told = edgeattn(*arguments)
    assert (told.code, told.out) == (2, "")
    assert told.err.startswith("Error: ")
    assert "Traceback" not in told.err
    as_json = edgeattn(*arguments, "--json")
    assert as_json.code == 2
    assert set(as_json.document) == {"error"}
    assert as_json.document["error"]["message"] in told.err
    debug = edgeattn("--debug", *arguments)
    assert debug.code == 2
    assert "Traceback" in debug.err
    assert listing(tmp_path) == before


def test_an_artifact_that_cannot_run(edgeattn, dense_bundle, source, tmp_path):
    (dense_bundle.path / "dense.float32.tflite").write_bytes(b"garbage")
    artifacts.rehash(dense_bundle.path)
    told = edgeattn("run", dense_bundle.path, "--input", source, "--json")
    assert (told.code, told.document["error"]["exit_code"]) == (5, 5)
    assert "cannot load" in told.document["error"]["message"]


def test_a_fault_of_ours(edgeattn_process, tmp_path):
    """As if a module of numpy's were broken."""
    (tmp_path / "numpy.py").write_text("raise ValueError('a fault')\n")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    told = edgeattn_process("validate", tmp_path, "--json", env=environment)
    assert told.code == 70
    assert told.document["error"]["message"] == "ValueError: a fault"
    assert "--debug" in told.document["error"]["hint"]
    assert "Traceback" not in told.err


@pytest.mark.parametrize("arguments", [["--help"], ["validate", "{}", "--json"], ["inspect", "{}"]])
def test_a_closed_pipe(dense_bundle, arguments):
    """The reader is gone before a line is written: no traceback, and no verdict by accident."""
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "edgeattn", *[a.format(dense_bundle.path) for a in arguments]],
        stdout=writer,
        stderr=subprocess.PIPE,
        check=False,
        timeout=1200,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


def test_a_reader_of_one_line(dense_bundle):
    command = f"'{sys.executable}' -m edgeattn inspect '{dense_bundle.path}' --json | head -n 1"
    done = subprocess.run(command, shell=True, capture_output=True, check=False, timeout=1200)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"{\n", b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("arguments", [["--help"], ["validate", "{}", "--json"]])
def test_nowhere_to_print(dense_bundle, arguments):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "edgeattn", *[a.format(dense_bundle.path) for a in arguments]],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=1200,
        )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "No space left" in done.stderr


def test_closed_streams(dense_bundle):
    command = f"'{sys.executable}' -m edgeattn validate '{dense_bundle.path}' >&- 2>&-"
    assert subprocess.run(command, shell=True, check=False, timeout=1200).returncode == 0


# A full disk, Ctrl-C


def test_a_full_disk(edgeattn, edgeattn_process, dense_bundle, tmp_path):
    """A limit on the size of files, 80 blocks of 512 bytes, which a write meets as a full disk."""
    np.save(tmp_path / "x.npy", samples(20_000))
    before = listing(tmp_path)
    limited = ["sh", "-c", 'ulimit -f 80; exec "$@"', "sh"]
    arguments = ["run", dense_bundle.path, "--input", "x.npy", "--json"]
    told = edgeattn_process(*arguments, prefix=limited)
    assert told.code == 2
    assert "Cannot write x.outputs.npz" in told.document["error"]["message"]
    assert listing(tmp_path) == before
    assert edgeattn(*arguments).code == 0


@pytest.fixture
def slow_bundle(tmp_path):
    """A bundle whose artifact does not come back."""
    folder = tmp_path / "slow.edge"
    folder.mkdir()
    artifacts.write_slow_onnx(folder / "m.onnx")
    arrays = {"input/x": samples(), "output/score": dense(samples())}
    return artifacts.write_bundle(folder, [artifacts.artifact(folder / "m.onnx")], arrays)


def members(group):
    """The processes of a group, by /proc."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        fields = stat(folder.name)
        if fields and int(fields[2]) == group and fields[0] != "Z":
            found.append(int(folder.name))
    return found


def stat(process):
    """What the kernel says of a process, from its state on; nothing where it has gone."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def running(group, count, deadline=20.0):
    """Wait until the group's ``count`` processes are there and one of them is at work."""
    end = time.monotonic() + deadline
    while time.monotonic() < end:
        spent = 0.0
        found = members(group)
        for process in found[1:]:
            ticks = sum(map(int, stat(process)[11:13]))
            spent += ticks / os.sysconf("SC_CLK_TCK")
        if len(found) == count and spent > 0.7:  # more than its imports take
            return
        time.sleep(0.02)
    pytest.fail(f"the group is {members(group)}")


def heeding():
    """Signals as a terminal's programs get them: who runs the tests may have them ignored."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no /proc")
@pytest.mark.parametrize(
    ("number", "code", "whole_group"),
    [
        (signal.SIGINT, 130, True),
        (signal.SIGTERM, 143, False),
        (signal.SIGHUP, 129, False),
        (signal.SIGKILL, -9, False),
    ],
)
@pytest.mark.parametrize("command", ["run", "validate"])
def test_interrupted(slow_bundle, tmp_path, source, command, number, code, whole_group):
    more = ["--input", source] if command == "run" else []
    before = listing(tmp_path)
    process = subprocess.Popen(
        [sys.executable, "-m", "edgeattn", command, slow_bundle.path.name, *more, "--json"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=heeding,
    )
    try:
        running(process.pid, 2)
        (os.killpg if whole_group else os.kill)(process.pid, number)
        out, err = process.communicate(timeout=1200)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == code
    assert "Traceback" not in err
    if number == signal.SIGINT:
        assert json.loads(out)["error"] == {
            "message": "Interrupted.",
            "hint": None,
            "exit_code": 130,
        }
        assert err.strip() == "Error: Interrupted."
    else:
        assert out == ""
    end = time.monotonic() + 5
    while members(process.pid) and time.monotonic() < end:
        time.sleep(0.02)
    assert members(process.pid) == []
    assert listing(tmp_path) == before
