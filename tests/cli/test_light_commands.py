"""Commands that need no TensorFlow, on hand-made bundles: JSON, exit codes and messages."""

import importlib.metadata
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import artifacts
import flatbuffers
import numpy as np
import onnx
import pytest
from ai_edge_litert import schema_py_generated as schema
from artifacts import TensorSpec, dense, samples
from long_parameters import only

from edgeattn.bundle.manifest import write_manifest

README = Path(__file__).parents[2] / "README.md"
COMMANDS = [
    *("bench", "convert", "deploy", "doctor", "fleet", "inspect", "pack", "run", "serve", "sign"),
    *("sweep", "tune", "validate"),
]


@pytest.fixture
def source(tmp_path):
    np.save(tmp_path / "x.npy", samples(11))
    return "x.npy"


def listing(folder):
    return sorted(path.name for path in folder.rglob("*"))


# Help and usage


def test_every_command_has_help(edgeattn):
    help_text = edgeattn("--help")
    assert help_text.code == 0
    listed = re.findall(r"^  (\w+) +\w", help_text.out.split("Commands:")[1], flags=re.MULTILINE)
    assert listed == COMMANDS
    for name in COMMANDS:
        result = edgeattn(name, "--help")
        assert (result.code, result.err) == (0, "")
        # A group of commands has only the options of all commands.
        options = result.out.split("\nOptions", 1)[1].strip().splitlines()
        # The help of an option is beside it, or on the next line.
        for line, following in zip(options, [*options[1:], ""], strict=True):
            if re.match(r" {0,6}-", line):
                assert re.search(r"\S  +\S", line.strip()) or following.startswith("    "), line
        short = edgeattn(name, "-h")
        assert (short.code, short.err, short.out) == (0, "", result.out)


def test_version(edgeattn):
    import edgeattn as package

    first, python, *others = edgeattn("--version").out.splitlines()
    assert first == f"edgeattn, version {package.__version__}"
    assert python.split(",")[0] == f"Python {platform.python_version()}"
    versions = dict(line.split(" ") for line in others)
    assert {"numpy"} <= set(versions)
    for name, version in versions.items():
        assert version == importlib.metadata.version(name)


def completion(words, shell="bash_complete", folder=None):
    """What the shell gets for ``words``, the last of which is to be completed."""
    environment = {**os.environ, "_EDGEATTN_COMPLETE": shell, "COMP_WORDS": words}
    process = subprocess.run(
        [sys.executable, "-c", "import sys; sys.argv[0] = 'edgeattn'; "
         "from edgeattn.cli.main import main; main()"],
        env={**environment, "COMP_CWORD": str(len(words.split()) - 1)},
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert process.stderr == ""
    return process.stdout


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("edgeattn val", "plain,validate"),
        ("edgeattn validate --max-d", "plain,--max-drop"),
        ("edgeattn convert --schem", "plain,--scheme"),
        ("edgeattn validate --format o", "plain,onnx"),
        ("edgeattn fleet mender-m", "plain,mender-module"),
        ("edgeattn validate --recipe p", "plain,pi5"),
    ],
)
def test_the_completion_of_the_readme(words, completed, tmp_path):
    lines = re.findall(r"_EDGEATTN_COMPLETE=(\w+)_source edgeattn", README.read_text("utf-8"))
    assert lines == ["bash", "zsh", "fish"]
    config = tmp_path / "edgeattn.toml"
    config.write_text("[recipes.pi5.validate]\n[recipes.zero2.validate]\n")
    assert completion(words, folder=tmp_path).splitlines() == [completed]


def test_completion_beside_a_malformed_config_file(tmp_path):
    (tmp_path / "edgeattn.toml").write_text("[")
    assert completion("edgeattn validate --max-d", folder=tmp_path) == "plain,--max-drop\n"
    assert completion("edgeattn validate --recipe p", folder=tmp_path).strip() == ""


@pytest.mark.parametrize(
    ("shell", "line"),
    [
        ("bash", "complete -o nosort -F _edgeattn_completion edgeattn"),
        ("zsh", "#compdef edgeattn"),
        ("fish", 'complete --no-files --command edgeattn --arguments "(_edgeattn_completion)";'),
    ],
)
def test_completion_scripts(shell, line):
    if shell == "bash" and shutil.which("bash") is None:
        pytest.skip("bash is not installed")
    script = completion("", f"{shell}_source")
    assert line in [text.strip() for text in script.splitlines()]


def test_without_a_command(edgeattn):
    help_text = edgeattn("--help").out
    for arguments in ([], ["--debug"]):
        result = edgeattn(*arguments)
        assert (result.code, result.out, result.err) == (2, "", help_text)


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
    result = edgeattn(*arguments)
    assert result.code == 2
    assert result.out == ""
    assert "Error: " in result.err
    assert "Traceback" not in result.err
    # With --json, the output is one document.
    result = edgeattn(*arguments, "--json")
    assert result.code == 2
    if arguments != ["--nonsense"]:
        assert result.document["error"]["exit_code"] == 2


# inspect


def test_inspect(edgeattn, dense_bundle):
    result = edgeattn("inspect", dense_bundle.path, "--json")
    assert result.code == 0
    document = result.document
    operators = [item.pop("achieved")["operators"] for item in document["artifacts"]]
    assert operators == [{"FULLY_CONNECTED": 1}, {"Gemm": 1}]
    manifest = dense_bundle.manifest.to_json()
    for item in manifest["artifacts"]:
        del item["achieved"]
    assert document == {"kind": "bundle", **manifest}
    text = edgeattn("inspect", dense_bundle.path).out
    assert "Bundle of hand.h5, 8 parameters" in text
    assert "input   x (1, 3) float32" in text


def test_inspect_reports_what_hardware_lacks(edgeattn, tmp_path):
    artifacts.write_counter_tflite(tmp_path / "m.tflite")
    result = edgeattn("inspect", tmp_path / "m.tflite", "--json")
    assert result.document["lacking"] == {"tflite-micro": ["RNN"], "Edge TPU": ["RNN"]}
    assert list(result.document["not_compared"]) == ["Hailo"]
    lines = edgeattn("inspect", tmp_path / "m.tflite").out.splitlines()
    assert "Edge TPU: lacks RNN (by its published list, not tested on hardware)" in lines
    assert any(line.startswith("Hailo: not compared, because") for line in lines)


def test_inspect_names_the_inputs_at_the_keys_of_maps(edgeattn, dense_bundle):
    attended = {
        "attention/both": {"keys": ["x"], "queries": ["x"]},
        "attention/cross": {"keys": ["image", "x"], "queries": ["question"]},
        "attention/pooled": {"keys": ["x"], "queries": []},
    }
    artifacts.edit_manifest(dense_bundle.path, lambda data: data["model"].update(attended=attended))
    lines = edgeattn("inspect", dense_bundle.path).out.splitlines()
    assert [line for line in lines if line.startswith("attention")] == [
        "attention  attention/both (keys and queries from x)",
        "attention  attention/cross (keys from image, x, queries from question)",
        "attention  attention/pooled (keys from x)",
    ]


def test_inspect_an_empty_bundle(edgeattn, tmp_path):
    artifacts.write_bundle(tmp_path, [], {"input/x": samples()})
    assert edgeattn("inspect", tmp_path).code == 0


# run


@pytest.mark.parametrize("format", ["tflite", "onnx"])
def test_run(edgeattn, dense_bundle, source, tmp_path, format):
    result = edgeattn("run", dense_bundle.path, "--input", source, "--format", format, "--json")
    assert (result.code, result.err) == (0, "")
    assert result.document.pop("runtime").split()[0] in ("ai-edge-litert", "onnxruntime")
    document = result.document
    del document["runtime"]
    assert document == {
        "outputs": {"score": {"shape": [11, 2], "dtype": "float32"}},
        "path": "x.outputs.npz",
        "format": format,
        "scheme": "float32",
    }
    with np.load(tmp_path / "x.outputs.npz") as got:
        np.testing.assert_array_equal(got["score"], dense(samples(11)))


def test_run_prints_a_table(edgeattn, dense_bundle, source):
    result = edgeattn("run", dense_bundle.path, "--input", source, "-o", "a.npz")
    assert result.code == 0
    assert "tflite float32 in ai-edge-litert" in result.out
    assert re.search(r"score +11x2 +float32 +-?\d", result.out)
    assert result.out.endswith("Wrote a.npz\n")
    quiet = edgeattn("run", dense_bundle.path, "--input", source, "-o", "b.npz", "--quiet")
    assert "ai-edge-litert" not in quiet.out


def test_run_shows_booleans_and_integers(edgeattn, tmp_path, source):
    folder = tmp_path / "kinds.edge"
    folder.mkdir()
    artifacts.write_kinds_onnx(folder / "m.onnx")
    outputs = (TensorSpec("sign", (None, 3), "bool"), TensorSpec("best", (None,), "int64"))
    x = samples()
    artifacts.write_bundle(
        folder,
        [artifacts.artifact(folder / "m.onnx", outputs=outputs)],
        {"input/x": x, "output/sign": x > 0, "output/best": x.argmax(1)},
    )
    result = edgeattn("run", folder, "--input", source)
    assert (result.code, result.err) == (0, "")
    assert re.search(r"sign +11x3 +bool +(True|False) ", result.out)
    assert re.search(r"best +11 +int64 +\d", result.out)


def test_run_refuses_arrays_that_nothing_uses(edgeattn, dense_bundle, tmp_path):
    """A state under another name, for example, would be zero. Labels are no mistake."""
    np.savez(tmp_path / "x.npz", x=samples(), y=np.zeros(7), score=np.zeros(7), state=np.zeros(7))
    command = ("run", dense_bundle.path, "--input", "x.npz", "-o", "a.npz")
    result = edgeattn(*command)
    assert result.code == 2
    assert "nothing uses: 'state'" in result.err
    assert edgeattn(*command, "--ignore", "state").code == 0
    assert edgeattn(*command, "--ignore", "other").code == 2
    assert edgeattn("run", dense_bundle.path, "--input", "-", "--ignore", "state").code == 2


@pytest.mark.parametrize("name", ["a.csv", "a.txt", "a.npy", "model.edge"])
def test_run_writes_no_file_with_the_suffix_of_another_format(
    edgeattn, dense_bundle, tmp_path, name
):
    np.savez(tmp_path / "x.npz", x=samples())
    result = edgeattn("run", dense_bundle.path, "--input", "x.npz", "-o", name)
    assert result.code == 2
    assert "Choose a name that ends in .npz" in result.err
    assert not (tmp_path / name).exists()
    assert edgeattn("run", dense_bundle.path, "--input", "x.npz", "-o", "answers").code == 0


def test_run_a_csv(edgeattn, dense_bundle, tmp_path):
    (tmp_path / "x.csv").write_text("a,b,c\n2,4,-8\n")
    result = edgeattn("run", dense_bundle.path, "--input", "x.csv")
    assert result.code == 0
    assert "6.125 -53" in result.out


# validate


def test_validate(edgeattn, dense_bundle):
    result = edgeattn("validate", dense_bundle.path, "--json")
    assert (result.code, result.err) == (0, "")
    assert result.document["verdict"] == "pass"
    assert [item["verdict"] for item in result.document["artifacts"]] == ["pass", "pass"]
    for item in result.document["artifacts"]:
        assert set(item) >= {"format", "scheme", "runtime", "verdict", "checks", "task"}
        assert all(set(check) >= {"metric", "value", "limit", "passed"} for check in item["checks"])
    result = edgeattn("validate", dense_bundle.path)
    *_, not_run, right, recommended, verdict = result.out.splitlines()
    assert not_run.endswith("Not run: task, device.")
    assert (right, verdict) == ("Converted right: 2 of 2.", "Verdict: pass")
    smallest = min(dense_bundle.manifest.artifacts, key=lambda item: item.bytes)
    assert recommended.startswith(f"Recommended: {smallest.path} ({smallest.label}), the smallest")


def test_validate_says_that_the_quantization_by_keras_is_not_covered(
    edgeattn, dense_bundle, tmp_path
):
    note = "Keras had quantized layers of this model (1 in int8). The outputs differ by 0.01."
    model = {**dense_bundle.manifest.model, "notes": ["other", note]}
    write_manifest(dense_bundle.path, replace(dense_bundle.manifest, model=model))
    page = tmp_path / "report.html"
    result = edgeattn("validate", dense_bundle.path, "--report", page)
    assert (result.code, result.err) == (0, f"note: {note}\n")
    assert (
        "Keras computed with the float32 values of the weights: the verdicts do not cover the "
        "difference from the quantized model, see the note." in result.out.splitlines()
    )
    assert note in page.read_text("utf-8")


@pytest.mark.parametrize("value", only([1e-2, np.nan, np.inf], 1e-2))
def test_validate_a_wrong_artifact(edgeattn, tmp_path, value):
    bias = artifacts.BIAS + np.array([0, value], np.float32)
    bundle = artifacts.write_dense_bundle(tmp_path / "b.edge", bias=bias)
    result = edgeattn("validate", bundle.path, "--json")
    assert (result.code, result.document["verdict"], result.err) == (1, "fail", "")
    json.loads(result.out, parse_constant=pytest.fail)  # JSON has no NaN and no Infinity
    result = edgeattn("validate", bundle.path)
    assert result.code == 1
    assert "tflite float32: tolerance_ratio of score is" in result.out
    assert result.out.endswith("Verdict: fail\n")
    assert result.err == ""


def test_validate_a_selection(edgeattn, tmp_path):
    bundle = artifacts.write_dense_bundle(tmp_path / "b.edge")
    (bundle.path / "dense.float32.onnx").write_bytes(b"garbage")
    artifacts.rehash(bundle.path)
    assert edgeattn("validate", bundle.path).code == 1
    assert edgeattn("validate", bundle.path, "--format", "tflite").code == 0
    assert edgeattn("validate", bundle.path, "--format", "onnx", "--format", "all").code == 1
    assert edgeattn("validate", bundle.path, "--scheme", "int8").code == 2


def store_weights_outside(path):
    """Move the weights of an artifact to another file."""
    if path.suffix == ".onnx":
        model = onnx.load(path)
        model.graph.initializer[0].data_location = onnx.TensorProto.EXTERNAL
        path.write_bytes(model.SerializeToString())
        return
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    model.subgraphs[0].tensors[1].externalBuffer = 1
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))


@pytest.mark.parametrize("unsafe", only(["onnx", "tflite"], "tflite"))
def test_an_artifact_that_is_refused_as_unsafe_fails_and_the_others_run(
    edgeattn, dense_bundle, source, unsafe
):
    store_weights_outside(dense_bundle.path / f"dense.float32.{unsafe}")
    artifacts.rehash(dense_bundle.path)
    result = edgeattn("validate", dense_bundle.path, "--jobs", 1, "--json")
    assert (result.code, result.document["verdict"]) == (1, "fail")
    for item in result.document["artifacts"]:
        refused = item["format"] == unsafe
        assert item["verdict"] == ("fail" if refused else "pass")
        assert ("in another file" in (item["reason"] or "")) == refused
    result = edgeattn("bench", dense_bundle.path, "--threads", 1, "--seconds", 0, "--json")
    assert result.code == 4
    for item in result.document["artifacts"]:
        assert ("in another file" in (item["reason"] or "")) == (item["format"] == unsafe)
    result = edgeattn("run", dense_bundle.path, "--input", source, "--format", unsafe)
    assert (result.code, "in another file" in result.err) == (4, True)


def test_validate_without_a_runtime(edgeattn_process, dense_bundle, tmp_path):
    blocked = tmp_path / "blocked"
    for name in ("onnxruntime", "ai_edge_litert", "tflite_runtime"):
        (blocked / name).mkdir(parents=True)
        (blocked / name / "__init__.py").write_text("raise ImportError('blocked')\n")
    environment = {**os.environ, "PYTHONPATH": str(blocked)}
    result = edgeattn_process("validate", dense_bundle.path, "--json", env=environment)
    assert (result.code, result.document["verdict"]) == (5, "not run")
    result = edgeattn_process("validate", dense_bundle.path, env=environment)
    assert result.code == 5
    assert "pip install" in result.out or "installed" in result.out
    np.save(tmp_path / "x.npy", samples())
    result = edgeattn_process(
        "run", dense_bundle.path, "--input", "x.npy", "--json", env=environment
    )
    assert (result.code, result.document["error"]["exit_code"]) == (5, 5)
    assert "pip install" in result.document["error"]["hint"]


# Errors


def missing_bundle(folder):
    return ["validate", "nowhere"]


def newer_layout(folder):
    artifacts.edit_manifest(folder / "dense.edge", lambda data: data.update(format_version=9))
    return ["validate", "dense.edge"]


def changed_file(folder):
    (folder / "dense.edge" / "dense.float32.onnx").write_bytes(b"x")
    return ["validate", "dense.edge"]


def manifest_is_a_folder(folder):
    (folder / "dense.edge" / "manifest.json").unlink()
    (folder / "dense.edge" / "manifest.json").mkdir()
    return ["validate", "dense.edge"]


def missing_samples(folder):
    return ["run", "dense.edge", "--input", "nowhere.npy"]


def wrong_shape(folder):
    np.save(folder / "x.npy", np.zeros((7, 5)))
    return ["run", "dense.edge", "--input", "x.npy"]


def non_finite_samples(folder):
    np.save(folder / "x.npy", np.full((7, 3), np.nan))
    return ["run", "dense.edge", "--input", "x.npy"]


def existing_output(folder):
    np.save(folder / "x.npy", samples())
    (folder / "out.npz").write_text("mine")
    return ["run", "dense.edge", "--input", "x.npy", "-o", "out.npz"]


@pytest.mark.parametrize(
    "make",
    [
        missing_bundle,
        newer_layout,
        changed_file,
        manifest_is_a_folder,
        missing_samples,
        wrong_shape,
        non_finite_samples,
        existing_output,
    ],
)
def test_errors_as_text_and_as_json(edgeattn, dense_bundle, tmp_path, make):
    arguments = make(tmp_path)
    before = listing(tmp_path)
    result = edgeattn(*arguments)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("Error: ")
    assert "Traceback" not in result.err
    as_json = edgeattn(*arguments, "--json")
    assert as_json.code == 2
    assert set(as_json.document) == {"error"}
    assert as_json.document["error"]["message"] in result.err
    for words in (["--debug", *arguments], [*arguments, "--debug"]):
        debug = edgeattn(*words)
        assert debug.code == 2
        assert "Traceback" in debug.err
    assert listing(tmp_path) == before


def test_debug_after_two_dashes_is_an_argument(edgeattn):
    result = edgeattn("validate", "--", "--debug")
    assert (result.code, "No such bundle: --debug" in result.err) == (2, True)
    assert "Traceback" not in result.err


def test_an_artifact_that_cannot_run(edgeattn, dense_bundle, source, tmp_path):
    (dense_bundle.path / "dense.float32.tflite").write_bytes(b"garbage")
    artifacts.rehash(dense_bundle.path)
    result = edgeattn("run", dense_bundle.path, "--input", source, "--json")
    assert (result.code, result.document["error"]["exit_code"]) == (3, 3)
    assert "cannot load" in result.document["error"]["message"]


def test_internal_error(edgeattn_process, tmp_path):
    """A numpy that cannot be imported stands for any internal error."""
    (tmp_path / "numpy.py").write_text("raise ValueError('a fault')\n")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    result = edgeattn_process("validate", tmp_path, "--json", env=environment)
    assert result.code == 70
    assert result.document["error"]["message"] == "ValueError: a fault"
    assert "--debug" in result.document["error"]["hint"]
    assert "Traceback" not in result.err


@pytest.mark.parametrize("arguments", [["--help"], ["validate", "{}", "--json"], ["inspect", "{}"]])
def test_a_closed_pipe(dense_bundle, arguments):
    """If the reader has exited, there is no traceback, and the exit code is not a verdict."""
    reader, writer = os.pipe()
    os.close(reader)
    process = subprocess.run(
        [sys.executable, "-m", "edgeattn", *[a.format(dense_bundle.path) for a in arguments]],
        stdout=writer,
        stderr=subprocess.PIPE,
        check=False,
        timeout=1200,
    )
    os.close(writer)
    assert (process.returncode, process.stderr) == (141, b"")


def test_a_reader_of_one_line(dense_bundle):
    command = f"'{sys.executable}' -m edgeattn inspect '{dense_bundle.path}' --json | head -n 1"
    process = subprocess.run(command, shell=True, capture_output=True, check=False, timeout=1200)
    assert (process.returncode, process.stdout, process.stderr) == (0, b"{\n", b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("arguments", [["--help"], ["validate", "{}", "--json"]])
def test_full_device_as_standard_output(dense_bundle, arguments):
    with Path("/dev/full").open("w") as full:
        process = subprocess.run(
            [sys.executable, "-m", "edgeattn", *[a.format(dense_bundle.path) for a in arguments]],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=1200,
        )
    assert process.returncode == 2
    assert "Traceback" not in process.stderr
    assert "No space left" in process.stderr


def test_closed_streams(dense_bundle):
    command = f"'{sys.executable}' -m edgeattn validate '{dense_bundle.path}' >&- 2>&-"
    assert subprocess.run(command, shell=True, check=False, timeout=1200).returncode == 0


# A full disk, Ctrl-C


def test_a_full_disk(edgeattn, edgeattn_process, dense_bundle, tmp_path):
    """Files are limited to 80 blocks of 512 bytes, which has the effect of a full disk."""
    np.save(tmp_path / "x.npy", samples(20_000))
    before = listing(tmp_path)
    limited = ["sh", "-c", 'ulimit -f 80; exec "$@"', "sh"]
    arguments = ["run", dense_bundle.path, "--input", "x.npy", "--json"]
    result = edgeattn_process(*arguments, prefix=limited)
    assert result.code == 2
    assert "Cannot write x.outputs.npz" in result.document["error"]["message"]
    assert listing(tmp_path) == before
    assert edgeattn(*arguments).code == 0


@pytest.fixture
def slow_bundle(tmp_path):
    """A bundle whose artifact never returns."""
    folder = tmp_path / "slow.edge"
    folder.mkdir()
    artifacts.write_slow_onnx(folder / "m.onnx")
    arrays = {"input/x": samples(), "output/score": dense(samples())}
    return artifacts.write_bundle(folder, [artifacts.artifact(folder / "m.onnx")], arrays)


def test_an_artifact_that_never_ends_ends_at_the_time_limit(edgeattn, slow_bundle, source):
    folder = slow_bundle.path
    result = edgeattn("validate", folder, "--timeout", "0.1", "--jobs", 1, "--json")
    assert result.code == 1
    assert "took longer than 0.1 s while" in result.out
    assert "--timeout SECONDS" in result.out
    result = edgeattn("run", folder, "--input", source, "--timeout", "0.1")
    assert (result.code, "took longer than 0.1 s while" in result.err) == (3, True)
    result = edgeattn("bench", folder, "--threads", 1, "--timeout", "0.1", "--seconds", 0)
    assert "took longer than 0.1 s" in result.out + result.err


@pytest.mark.parametrize("option", [("--timeout", "0"), ("--timeout", "-1"), ("--memory", "10")])
def test_limits_that_nothing_can_keep(edgeattn, dense_bundle, option):
    assert edgeattn("validate", dense_bundle.path, *option).code == 2


def members(group):
    """The process ids of a group that have not ended, from /proc."""
    processes = []
    for folder in Path("/proc").glob("[0-9]*"):
        fields = process_stat(folder.name)
        if fields and int(fields[2]) == group and fields[0] != "Z":
            processes.append(int(folder.name))
    return processes


def process_stat(process):
    """The fields of ``/proc/PID/stat`` from the state on; empty if the process has ended."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def wait_until_running(group, count, deadline=600.0):
    """Wait until the group has ``count`` processes and one of them computes."""
    end = time.monotonic() + deadline
    while time.monotonic() < end:
        spent = 0.0
        processes = members(group)
        for process in processes[1:]:
            ticks = sum(map(int, process_stat(process)[11:13]))
            spent += ticks / os.sysconf("SC_CLK_TCK")
        if len(processes) == count and spent > 0.7:  # more than the imports take
            return
        time.sleep(0.02)
    pytest.fail(f"the group is {members(group)}")


def default_signal_handlers():
    """Handle signals as in a terminal, because the process that runs the tests may ignore them."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no /proc")
@pytest.mark.parametrize(
    ("number", "code", "whole_group"),
    [
        (signal.SIGINT, 130, True),
        pytest.param(signal.SIGTERM, 143, False, marks=pytest.mark.long),
        pytest.param(signal.SIGHUP, 129, False, marks=pytest.mark.long),
        pytest.param(signal.SIGKILL, -9, False, marks=pytest.mark.long),
    ],
)
@pytest.mark.parametrize("command", only(["run", "validate"], "validate"))
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
        preexec_fn=default_signal_handlers,
    )
    try:
        wait_until_running(process.pid, 2)
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
    end = time.monotonic() + 600
    while members(process.pid) and time.monotonic() < end:
        time.sleep(0.02)
    assert members(process.pid) == []
    assert listing(tmp_path) == before


# Paths that are no files


@pytest.mark.parametrize("name", ["pipe", "/dev/zero"])
def test_inspect_does_not_read_devices_and_pipes(edgeattn, tmp_path, name):
    os.mkfifo(tmp_path / "pipe")
    result = edgeattn("inspect", name)
    assert (result.code, result.out) == (2, "")
    assert f"{name} is not a regular file." in result.err


def test_inspect_has_a_time_limit(edgeattn, dense_bundle):
    file = dense_bundle.path / "dense.float32.tflite"
    result = edgeattn("inspect", file, "--timeout", "0.001")
    assert (result.code, result.out) == (3, "")
    assert "took longer than 0.001 s while loading dense.float32.tflite" in result.err
    assert "--timeout SECONDS" in result.err
