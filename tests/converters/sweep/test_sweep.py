"""Sweeps: the table, what is computed again and what is not, failures, and two at a time."""

from __future__ import annotations

import _thread
import importlib.util
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from page_blocks import blocks

import edgeattn
from edgeattn.bundle.bundle import Bundle
from edgeattn.errors import NoRecurrentLayerError, OutputError, UsageError
from sweep.sweeps import LUONG, WORDS, fake_document, object_store, write_plan

pytest.importorskip("fsspec")
pq = pytest.importorskip("pyarrow.parquet")

from edgeattn_converters.sweep import execution, remote, store  # noqa: E402
from edgeattn_converters.sweep.store import Store  # noqa: E402
from edgeattn_converters.sweep.table import COLUMNS, from_parquet, to_parquet  # noqa: E402

PAGE = Path(__file__).parents[3] / "docs" / "sweeps.md"
OPTIONS = 'schemes = ["float32", "float16"]\nformats = ["tflite"]\n'


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """The results of a plan with a good model, one that crashes its worker, and no model."""
    folder = tmp_path_factory.mktemp("swept")
    (folder / "crash.py").write_text("import os\nos.abort()\n")
    (folder / "text.h5").write_text("no model")
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(40, 7, 2)).astype(np.float32)
    np.savez(folder / "good.npz", x=inputs, y=rng.normal(size=(40, 11)))
    np.savez(folder / "other.npz", x=np.zeros((40, 5, 2), np.float32), y=np.zeros((40, 11)))
    plan = write_plan(
        folder,
        f'path = "{LUONG}"\nname = "good"\ndata = ["good.npz", "other.npz"]',
        f'path = "{WORDS}"\nname = "crash"\ncustom_objects = "crash.py"\ntime_steps = 7',
        'path = "text.h5"',
        options=OPTIONS,
    )
    return folder, edgeattn.sweep(plan)


def rows_by(result: Any, **values: Any) -> list[dict[str, Any]]:
    return [row for row in result.rows if all(row.get(k) == v for k, v in values.items())]


def test_every_artifact_and_dataset_has_a_row(swept: tuple[Path, Any]) -> None:
    folder, result = swept
    assert result.exit_code == 1
    assert (result.summary.bundles, result.summary.done, result.summary.remaining) == (3, 3, 0)
    good = rows_by(result, model="good", data="good.npz")
    assert [(row["scheme"], row["status"]) for row in good] == [
        ("float32", "converted"),
        ("float16", "converted"),
    ]
    table = pq.read_table(folder / "results" / "table.parquet")
    assert table.schema.names == [name for name, _, _ in COLUMNS]
    assert len(table) == len(result.rows) == 2 * 2 + 2 + 2
    for row in from_parquet((folder / "results" / "table.parquet").read_bytes())[:2]:
        bundle = Bundle.open(folder / "results" / row["bundle"])
        (artifact,) = [a for a in bundle.manifest.artifacts if a.path == row["path"]]
        assert (artifact.scheme, artifact.bytes, artifact.sha256) == (
            row["scheme"],
            row["bytes"],
            row["sha256"],
        )
        assert json.loads(row["versions"])["edgeattn"] == edgeattn.__version__


@pytest.mark.long
def test_the_rows_are_what_validate_reports(swept: tuple[Path, Any]) -> None:
    folder, result = swept
    rows = rows_by(result, model="good", data="good.npz")
    report = edgeattn.validate(
        folder / "results" / rows[0]["bundle"], data=folder / "good.npz", model=LUONG
    ).to_dict()
    for row, artifact in zip(rows, report["artifacts"], strict=True):
        assert (row["scheme"], row["verdict"]) == (artifact["scheme"], artifact["verdict"])
        assert row["max_abs_error"] == artifact["headline"]["max_abs_error"]
        (task,) = artifact["task"]["outputs"]
        assert (row["samples"], row["metric"]) == (40, "r2")
        assert (row["score"], row["drop_high"]) == (task["artifact"], task["interval"][1])


def test_a_row_says_why_there_is_no_result(swept: tuple[Path, Any]) -> None:
    _, result = swept
    for model, status, reason in (
        ("crash", "failed", "died of SIGABRT"),
        ("text", "failed", "text.h5"),
    ):
        rows = rows_by(result, model=model)
        assert [row["status"] for row in rows] == [status] * 2
        assert all(reason in row["reason"] and row["bundle"] is None for row in rows), rows
    # The artifacts exist, only their validation failed.
    rows = rows_by(result, model="good", data="other.npz")
    assert [row["status"] for row in rows] == ["failed"] * 2
    assert all("7" in row["reason"] and row["bundle"] and not row.get("verdict") for row in rows)


def test_reasons_do_not_name_folders_of_jobs(tmp_path: Path) -> None:
    """They have another name in every run."""
    store = Store(str(tmp_path / "results"))
    workspace = execution._Workspace(tmp_path / "job", {"key": "0" * 64}, store)
    file = tmp_path / "job" / "calibration" / "x.npz"
    error = UsageError(f"{file} has no array 'a'.", hint=f"Name the arrays of {file}.")
    reason = "calibration/x.npz has no array 'a'. Name the arrays of calibration/x.npz."
    assert workspace.failure("0" * 64, error)["reason"] == reason


def test_a_repeated_sweep_does_nothing(
    swept: tuple[Path, Any], edgeattn: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = swept
    monkeypatch.setattr(execution, "run", None)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    result = edgeattn("sweep", folder / "plan.toml", "--json")
    assert result.code == 1
    assert (result.document["done"], result.document["rows"]) == (0, 8)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    text = edgeattn("sweep", folder / "plan.toml").out
    assert "3 bundles: 3 stored before, 0 computed, 0 remaining." in text
    assert "crash: failed: " in text
    dry = edgeattn("sweep", folder / "plan.toml", "--retry", "--dry-run")
    assert dry.code == 0
    assert "3 bundles: 0 stored, 3 would be computed, in about " in dry.out


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Labels of the jobs that run; none of them converts anything."""
    labels: list[str] = []

    def run(job: Mapping[str, Any], results: str) -> list[dict[str, Any]]:
        labels.append(job["label"])
        document = fake_document(job["key"], job)
        Store(results).write_document(document)
        return [document]

    monkeypatch.setattr(execution, "run", run)
    return labels


def models(folder: Path, count: int) -> list[str]:
    for index in range(count):
        (folder / f"m{index}.h5").write_bytes(bytes([index]))
    return [f'path = "m{index}.h5"' for index in range(count)]


def test_limit_where_and_dry_run(
    tmp_path: Path, calls: list[str], edgeattn: Callable[..., Any]
) -> None:
    plan = write_plan(tmp_path, *models(tmp_path, 4))
    dry = edgeattn("sweep", plan, "--dry-run", "--limit", 3)
    assert dry.out.splitlines()[:3] == [f"m{index}: would be computed" for index in range(3)]
    assert "not known" in dry.out
    assert not calls
    assert not (tmp_path / "results").exists()
    assert edgeattn("sweep", plan, "--where", "model=m[23]", "--jobs", 1).code == 0
    assert calls == ["m2", "m3"]
    # 10 s each, two at a time.
    dry = edgeattn("sweep", plan, "--dry-run", "--jobs", 2)
    assert "4 bundles: 2 stored, 2 would be computed, in about 10 s." in dry.out
    limited = edgeattn("sweep", plan, "--limit", 1, "--json").document
    assert (limited["done"], limited["pending"], limited["rows"]) == (1, ["m0", "m1"], 6)
    assert edgeattn("sweep", plan, "--where", "model=m0", "--json").document["rows"] == 6
    assert edgeattn("sweep", plan).code == 0
    assert calls == ["m2", "m3", "m0", "m1"]


def test_a_lowering_without_effect_is_not_applicable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the class of the error: another one with the same words is a failure."""
    options = 'formats = ["tflite"]\nschemes = ["float32"]\nlowerings = ["fused"]'
    plan = write_plan(tmp_path, *models(tmp_path, 2), options=options)

    def convert(model: Path, *_: object, **__: object) -> None:
        kind = NoRecurrentLayerError if model.name == "m0.h5" else UsageError
        raise kind("--lowering fused has no effect")

    monkeypatch.setattr(execution, "convert", convert)
    rows = edgeattn.sweep(plan).rows
    assert [(row["model"], row["status"]) for row in rows] == [
        ("m0", "not applicable"),
        ("m1", "failed"),
    ]


def test_equal_models_are_converted_once(tmp_path: Path, calls: list[str]) -> None:
    (tmp_path / "copy").mkdir()
    tables = models(tmp_path, 1)
    (tmp_path / "copy" / "m0.h5").write_bytes((tmp_path / "m0.h5").read_bytes())
    plan = write_plan(tmp_path, *tables, 'path = "copy/m0.h5"\nname = "copy"')
    result = edgeattn.sweep(plan)
    assert calls == ["copy"]
    assert [row["model"] for row in result.rows] == ["m0"] * 2 + ["copy"] * 2


def test_rows_of_models_that_left_the_plan_leave_the_table(
    tmp_path: Path, calls: list[str]
) -> None:
    tables = models(tmp_path, 2)
    edgeattn.sweep(write_plan(tmp_path, *tables))
    both = (tmp_path / "results" / "table.parquet").read_bytes()
    assert len(edgeattn.sweep(write_plan(tmp_path, *tables[:1])).rows) == 2
    assert len(from_parquet((tmp_path / "results" / "table.parquet").read_bytes())) == 2
    edgeattn.sweep(write_plan(tmp_path, *tables))
    assert (tmp_path / "results" / "table.parquet").read_bytes() == both
    assert sorted(calls) == ["m0", "m1"]


def test_an_error_of_one_job_leaves_the_others(
    tmp_path: Path,
    calls: list[str],
    monkeypatch: pytest.MonkeyPatch,
    edgeattn: Callable[..., Any],
) -> None:
    plan = write_plan(tmp_path, *models(tmp_path, 3))
    run = execution.run

    def fails(job: Mapping[str, Any], results: str) -> list[dict[str, Any]]:
        if job["label"] == "m1":
            raise OutputError("No space left on device")
        return run(job, results)

    monkeypatch.setattr(execution, "run", fails)
    result = edgeattn("sweep", plan)
    assert result.code == OutputError.exit_code == 2
    assert "m1: no result: No space left on device" in result.out
    assert "2 computed, 1 remaining" in result.out
    monkeypatch.setattr(execution, "run", run)
    assert edgeattn("sweep", plan).code == 0
    assert calls.count("m1") == calls.count("m0") == 1


def test_a_part_of_a_document_is_no_result(tmp_path: Path, calls: list[str]) -> None:
    """A sweep was killed while it wrote to a store without renames."""
    plan = write_plan(tmp_path, *models(tmp_path, 1))
    edgeattn.sweep(plan)
    (document,) = (tmp_path / "results" / "results").glob("*.json")
    document.write_bytes(document.read_bytes()[:20])
    assert len(edgeattn.sweep(plan).rows) == 2
    assert calls == ["m0", "m0"]


def test_two_sweeps_into_one_folder(
    tmp_path: Path, calls: list[str], edgeattn: Callable[..., Any]
) -> None:
    plan = write_plan(tmp_path, *models(tmp_path, 1))
    with Store(str(tmp_path / "results")).exclusive():
        result = edgeattn("sweep", plan)
    assert result.code == 2
    assert f"Another sweep is writing to {tmp_path / 'results'}" in result.err
    assert not calls
    assert edgeattn("sweep", plan).code == 0


@pytest.fixture
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "PAUSES_S", (0.01,) * 5)
    monkeypatch.setattr(store, "BEAT_S", 0.1)


@pytest.mark.usefixtures("short_pauses")
def test_results_in_an_object_store(
    tmp_path: Path, calls: list[str], edgeattn: Callable[..., Any]
) -> None:
    plan = write_plan(tmp_path, *models(tmp_path, 2))
    with object_store() as server:
        plan.write_text(plan.read_text().replace('"results"', f'"{server.url}/out"', 1))
        server.failures = 3
        assert edgeattn("sweep", plan, "--limit", 1).code == 0
        assert edgeattn("sweep", plan).code == 0
        assert sorted(calls) == ["m0", "m1"]
        assert len(from_parquet(server.files["/out/table.parquet"])) == 4
        before = dict(server.files)
        assert edgeattn("sweep", plan).code == 0
        assert server.files == before
        # A sweep that was killed leaves a lock that does not change any more.
        server.files["/out/sweep.lock"] = b"killed 7"
        del server.files["/out/table.parquet"]
        assert edgeattn("sweep", plan).code == 0
        server.writable = False
        del server.files["/out/table.parquet"]
        result = edgeattn("sweep", plan)
        assert (result.code, "is denied" in result.err) == (2, True)


@pytest.mark.usefixtures("short_pauses")
def test_two_sweeps_into_one_object_store(
    tmp_path: Path, calls: list[str], edgeattn: Callable[..., Any]
) -> None:
    plan = write_plan(tmp_path, *models(tmp_path, 1))
    with object_store() as server:
        plan.write_text(plan.read_text().replace('"results"', f'"{server.url}/out"', 1))
        with Store(f"{server.url}/out").exclusive():
            result = edgeattn("sweep", plan)
        assert (result.code, "Another sweep is writing" in result.err) == (2, True)
        assert not calls
        assert edgeattn("sweep", plan).code == 0


def test_a_bundle_travels_through_an_object_store(dense_bundle: Bundle, tmp_path: Path) -> None:
    with object_store() as server:
        results = Store(f"{server.url}/out")
        results.write_bundle("k", dense_bundle.path)
        copy = results.read_bundle("k", tmp_path / "copies")
        assert Bundle.open(copy).manifest == dense_bundle.manifest
        for artifact in dense_bundle.manifest.artifacts:
            assert (copy / artifact.path).read_bytes() == (
                dense_bundle.path / artifact.path
            ).read_bytes()


def test_results_where_no_folder_can_be(tmp_path: Path, edgeattn: Callable[..., Any]) -> None:
    plan = write_plan(tmp_path, *models(tmp_path, 1))
    (tmp_path / "results").write_text("a file")
    result = edgeattn("sweep", plan)
    assert result.code == 2
    assert (tmp_path / "results").read_text() == "a file"


def test_an_interrupted_sweep_keeps_what_is_done(
    tmp_path: Path, calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = write_plan(tmp_path, *models(tmp_path, 3))
    run, end = execution.run, threading.Event()

    def interrupt(job: Mapping[str, Any], results: str) -> list[dict[str, Any]]:
        if calls:
            # Ctrl-C, while this job takes long.
            _thread.interrupt_main()
            assert end.wait(60)
            raise OutputError("too late")
        return run(job, results)

    monkeypatch.setattr(execution, "run", interrupt)
    # A shell starts background processes with SIGINT ignored, also the tests.
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            edgeattn.sweep(plan, jobs=1)
    finally:
        end.set()
        signal.signal(signal.SIGINT, handler)
    assert calls == ["m0"]
    monkeypatch.setattr(execution, "run", run)
    assert len(edgeattn.sweep(plan, jobs=1).rows) == 6
    assert calls == ["m0", "m1", "m2"]


def test_compare_and_report(tmp_path: Path, calls: list[str], edgeattn: Callable[..., Any]) -> None:
    tables = models(tmp_path, 3)
    plan = write_plan(tmp_path, *tables[:2], options='formats = ["onnx"]\nschemes = ["float32"]')
    old = tmp_path / "old.parquet"
    assert edgeattn("sweep", plan).code == 0
    rows = from_parquet((tmp_path / "results" / "table.parquet").read_bytes())
    rows[0] |= {"verdict": "fail", "bytes": 7}
    old.write_bytes(to_parquet(rows))
    write_plan(tmp_path, tables[0], tables[2], options='formats = ["onnx"]\nschemes = ["float32"]')
    arguments = ("sweep", plan, "--compare", old, "--report", "page.html")
    result = edgeattn(*arguments)
    assert result.code == 0
    expected = [
        ("m0 onnx float32", "verdict", "fail", "pass"),
        ("m0 onnx float32", "bytes", 7, 1),
        ("m2 onnx float32", "row", None, "pass"),
        ("m1 onnx float32", "row", "pass", None),
    ]
    for label, column, before, now in expected:
        text = " -> ".join("-" if value is None else str(value) for value in (before, now))
        assert f"{label}: {column}: {text}" in result.out
    changes = edgeattn(*arguments, "--json").document["changes"]
    assert [tuple(item.values()) for item in changes] == expected
    page = (tmp_path / "page.html").read_text()
    assert "<title>Sweep: 2 pass</title>" in page
    assert page.count('<th scope="row" role="rowheader">m') == 4 + 2
    same = edgeattn("sweep", plan, "--compare", tmp_path / "results" / "table.parquet")
    assert "0 differences from the earlier table:" in same.out
    for bad in (plan, tmp_path / "none.parquet"):
        refused = edgeattn("sweep", plan, "--compare", bad)
        assert (refused.code, "--compare: " in refused.err) == (2, True)


def test_the_page_names_what_failed(tmp_path: Path, calls: list[str]) -> None:
    from edgeattn.report.sweep_page import render_sweep

    row = dict.fromkeys((name for name, _, _ in COLUMNS), None)
    row |= {"model": "<b>", "format": "onnx", "scheme": "int8", "status": "failed"}
    page = render_sweep([{**row, "reason": "it is <script>"}], results="out")
    assert "&lt;b&gt;: it is &lt;script&gt;" in page
    assert "<script>" not in page
    assert "1 failed" in page


def test_the_page_describes_every_column() -> None:
    page = PAGE.read_text("utf-8")
    kinds = {"string": "text", "int64": "integer", "double": "number", "bool": "boolean"}
    for name, kind, meaning in COLUMNS:
        assert f"| `{name}` | {kinds[str(kind)]} | {meaning} |" in page


def test_the_program_of_the_page_lists_the_smallest_artifacts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        {"model": model, "data": data, "path": path, "bytes": size, "verdict": verdict}
        for model, data, path, size, verdict in (
            ("a", "x.npz", "a.float32", 40, "pass"),
            ("a", "x.npz", "a.int8", 10, "fail"),
            ("a", "x.npz", "a.float16", 20, "pass"),
            ("b", None, "b.int8", 10, "pass"),
            ("a", "y.npz", "a.int8", 10, "pass"),
            ("c", "x.npz", "c.int8", 10, "inconclusive"),
        )
    ]
    (tmp_path / "results").mkdir()
    empty = dict.fromkeys(name for name, _, _ in COLUMNS)
    (tmp_path / "results" / "table.parquet").write_bytes(
        to_parquet([{**empty, **row} for row in rows])
    )
    monkeypatch.chdir(tmp_path)
    (block,) = blocks(PAGE.read_text("utf-8"), "python")
    exec(compile(block, PAGE.name, "exec"), {})
    assert sorted(capsys.readouterr().out.splitlines()) == [
        "a x.npz a.float16 20",
        "a y.npz a.int8 10",
        "b None b.int8 10",
    ]


@pytest.mark.parametrize("missing", ["fsspec", "pyarrow", "distributed"])
def test_packages_that_are_not_installed(
    tmp_path: Path,
    missing: str,
    monkeypatch: pytest.MonkeyPatch,
    edgeattn: Callable[..., Any],
) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == missing else find_spec(name)
    )
    plan = write_plan(tmp_path, *models(tmp_path, 1))
    result = edgeattn("sweep", plan, "--scheduler", "tcp://127.0.0.1:9")
    assert result.code == 2
    assert f"packages that are not installed: {missing}." in result.err
    assert "pip install 'edgeattn[cluster]'" in result.err


@pytest.mark.parametrize(
    "arguments", [["validate", "--help"], ["convert", "missing.h5"], ["doctor", "--help"]]
)
def test_other_commands_import_no_package_of_the_extra(arguments: list[str]) -> None:
    code = (
        "import sys\n"
        f"sys.argv = ['edgeattn', *{arguments!r}]\n"
        "from edgeattn.cli.main import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print({'dask', 'distributed', 'fsspec', 'pyarrow', 'aiohttp'} & set(sys.modules))"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert process.stdout.splitlines()[-1] == "set()"
