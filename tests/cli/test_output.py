"""Tables, numbers, sizes, JSON and progress messages of the commands."""

import json

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
