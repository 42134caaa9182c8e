"""Tables, numbers, sizes, JSON and progress messages of the commands."""

import json
import re
import shutil
from pathlib import Path

from edgeattn import progress
from edgeattn.cli import output


def test_table():
    rows = [["tflite", "9.5 kB"], ["onnx", "12.0 kB"]]
    assert output.table(["format", "size"], rows, right=(1,)).splitlines() == [
        "format     size",
        "tflite   9.5 kB",
        "onnx    12.0 kB",
    ]
    assert output.table(["a", "b"], []) == "a  b"


def test_size():
    sizes = {0: "0 B", 999: "999 B", 1000: "1.0 kB", 213_840: "213.8 kB", 10**6: "1.0 MB"}
    sizes |= {2_500_000_000: "2.5 GB", 10**13: "10000.0 GB"}
    assert {count: output.size(count) for count in sizes} == sizes


def test_number():
    assert [output.number(v) for v in (None, 0.0, 1.234e-7, float("nan"))] == [
        "-",
        "0",
        "1.2e-07",
        "nan",
    ]


def test_json_replaces_nan_and_infinity_by_text(capsys):
    output.emit_json({"a": [float("nan"), {"b": float("-inf")}, (1.5, None, True)]})
    assert json.loads(capsys.readouterr().out) == {"a": ["nan", {"b": "-inf"}, [1.5, None, True]]}


def test_progress_is_shown_on_terminals_only(capsys, monkeypatch):
    def standard_error(quiet):
        with output.progress(quiet):
            progress.report("loading")
        return capsys.readouterr().err

    assert standard_error(quiet=False) == ""  # stderr is captured, and is not a terminal
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert standard_error(quiet=True) == ""
    assert "loading ..." in standard_error(quiet=False)


def test_verbose_prints_steps_on_lines_and_counts_sparsely(capsys, monkeypatch):
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    monkeypatch.setattr(output, "is_verbose", lambda: True)
    with output.progress(quiet=True):
        for step, seconds in [
            *(("loading a.h5", 0), ("running onnx int8: 1 of 9 runs", 0.5)),
            *(("running onnx int8: 2 of 9 runs", 4), ("running onnx int8: 3 of 9 runs", 1)),
            *(("running onnx int8: 4 of 9 runs", 1), ("writing\n", 0)),
        ]:
            now += seconds
            progress.report(step)
    assert capsys.readouterr().err.splitlines() == [
        "    0.0 s  loading a.h5",
        "    0.5 s  running onnx int8: 1 of 9 runs",
        "    5.5 s  running onnx int8: 3 of 9 runs",
        "    6.5 s  writing\\n",
    ]


def test_verbose_at_any_place(edgeattn, dense_bundle):
    path = dense_bundle.path
    for arguments in (
        ["-v", "inspect", path],
        ["inspect", "--verbose", path],
        ["inspect", path, "-v", "--json"],
    ):
        result = edgeattn(*arguments)
        assert result.code == 0
        assert re.search(r" s  reading dense\.float32\.tflite\n", result.err)
        assert "reading" not in result.out
    assert edgeattn("inspect", path).err == ""


# Clears the screen and the title, moves up, reverses the direction of writing, forges a verdict.
HOSTILE = "a\x1b[2J\x1b]0;title\x07\r\x9b1A\u202e\u2028\udcff\nVerdict: pass"
SPACED = "ö\u00a0é"  # a no-break space is harmless
SHOWN = "a\\x1b[2J\\x1b]0;title\\x07\\r\\x9b1A\\u202e\\u2028\\udcff\\nVerdict: pass"


def test_control_characters_are_printed_as_escapes(capsys, monkeypatch):
    output.echo(f"name: {HOSTILE}", output.table(["x", "y"], [[HOSTILE, "1"], [SPACED, "2"]]))
    lines = capsys.readouterr().out.split("\n")
    assert lines[0] == f"name: {SHOWN}"
    assert lines[1:] == [
        f"x{' ' * len(SHOWN)} y",
        f"{SHOWN}  1",
        SPACED.ljust(len(SHOWN)) + "  2",
        "",
    ]
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with output.progress(False):
        progress.report(HOSTILE)
    assert capsys.readouterr().err == f"\r\x1b[2K{SHOWN} ...\r\x1b[2K"


def test_everything_is_printed_by_one_function():
    """Only the module with :func:`echo` writes to the terminal; JSON escapes its text itself."""
    folder = Path(output.__file__).parent
    calls = {
        (path.name, line.strip())
        for path in folder.glob("*.py")
        if path.name != "output.py"
        for line in path.read_text("utf-8").splitlines()
        if re.search(r"\b(click\.s?echo|print|std(out|err)\.write)\(", line)
    }
    assert calls == {("main.py", 'click.echo(json.dumps({"error": document}, indent=1))')}


def is_clean(text):
    return all(c.isprintable() for line in text.split("\n") for c in line)


def test_hostile_names_in_a_bundle(edgeattn, dense_bundle, tmp_path):
    """Names of the model, tensors and layers, reasons and notes in a manifest."""
    manifest = json.loads((dense_bundle.path / "manifest.json").read_text())
    manifest["model"]["file"] = f"{HOSTILE}.keras"
    manifest["model"]["notes"] = [HOSTILE]
    failure = {"format": "onnx", "scheme": "int8", "reason": HOSTILE, "required": True}
    manifest["failures"] = [failure]
    (dense_bundle.path / "manifest.json").write_text(json.dumps(manifest))
    hostile = tmp_path / HOSTILE.replace("/", "_").replace("\udcff", "")
    shutil.copytree(dense_bundle.path, hostile)
    for command in (["inspect"], ["validate"], ["validate", "--limit", HOSTILE], ["pack"], ["run"]):
        for path in (dense_bundle.path, hostile):
            result = edgeattn(command[0], path, *command[1:])
            assert result.code in (0, 2, 6), result
            assert is_clean(result.out), result.out
            assert is_clean(result.err), result.err
            assert result.out.count("\nVerdict: pass") == (command == ["validate"])
            assert "\nVerdict" not in result.err
    missing = edgeattn("inspect", tmp_path / HOSTILE)
    assert missing.code == 2
    assert is_clean(missing.err)
    assert SHOWN in missing.err
    debug = edgeattn("--debug", "inspect", tmp_path / HOSTILE)
    assert "Traceback" in debug.err
    assert is_clean(debug.err)
    usage = edgeattn("inspect", f"--{HOSTILE}")
    assert usage.code == 2
    assert is_clean(usage.err)
