"""Plans of sweeps: what they expand to, and mistakes in them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from page_blocks import ROOT, blocks

from edgeattn.errors import UsageError
from sweep.sweeps import LUONG, WORDS, object_store, write_plan

pytest.importorskip("fsspec")
pytest.importorskip("pyarrow")

from edgeattn_converters.sweep import remote
from edgeattn_converters.sweep.jobs import jobs_of, jobs_where
from edgeattn_converters.sweep.plan import read_plan

VERSIONS = {"edgeattn": "1"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('schema = ["float32"]', "plan.toml: unknown key 'schema'"),
        ('schemes = ["float31"]', "schemes: unknown name 'float31'"),
        ('formats = ["tfilte"]', "formats: unknown name 'tfilte'"),
        ('lowerings = ["rolled"]', "lowerings: unknown name 'rolled'"),
        ('targets = ["pi"]', "targets: unknown name 'pi'"),
        ('schemes = "float32"', "plan.toml: schemes: 'float32' is not a list"),
        ('schemes = ["float32", "float32"]', "'float32' occurs more than once"),
        ("lowerings = []", "lowerings must not be empty"),
        ("max_drop = 2", "max_drop is 2.0, not between 0 and 1"),
        ('formats = ["onnx"]\ntargets = ["litert"]', "the target litert needs the format tflite"),
        ('schemes = ["int8"]', "luong_functional: int8: calibration samples are missing"),
        ("schemes = [", "plan.toml is not a TOML file"),
    ],
)
def test_a_mistake_in_the_plan_exits_with_2_and_writes_nothing(
    edgeattn: Callable[..., Any], tmp_path: Path, text: str, message: str
) -> None:
    write_plan(tmp_path, f'path = "{LUONG}"', options=text)
    result = edgeattn("sweep", "plan.toml")
    assert result.code == 2
    assert message in result.err
    assert [path.name for path in tmp_path.iterdir()] == ["plan.toml"]


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ((), "models and lowerings must not be empty"),
        (('path = "m.h5"\nsample = "x.npz"',), "models[0]: unknown key 'sample'"),
        (('name = "m"',), "models[0]: the key 'path' is missing"),
        (('path = "missing.h5"',), "No such file: "),
        (('path = "missing*.h5"',), "No model matches "),
        ((f'path = "{LUONG}"\ndata = ["no.npz"]',), "No such file: "),
        ((f'path = "{LUONG}"', f'path = "{LUONG}"'), "Two models are named "),
        ((f'path = "{WORDS.parent}/*.h5"\nname = "one"',), "which cannot all be named 'one'"),
        (('path = "gopher://x/m.h5"',), "gopher://x/m.h5 cannot be opened"),
    ],
)
def test_a_mistake_in_the_models_exits_with_2_and_writes_nothing(
    edgeattn: Callable[..., Any], tmp_path: Path, tables: tuple[str, ...], message: str
) -> None:
    write_plan(tmp_path, *tables)
    result = edgeattn("sweep", "plan.toml")
    assert result.code == 2
    assert message in result.err
    assert [path.name for path in tmp_path.iterdir()] == ["plan.toml"]


def test_options_without_effect_are_refused(edgeattn: Callable[..., Any], tmp_path: Path) -> None:
    plan = write_plan(tmp_path, f'path = "{LUONG}"')
    for arguments, message in (
        (["--where", "colour=red"], "--where colour: unknown property"),
        (["--where", "scheme=int8"], "are converted together"),
        (["--where", "model"], "expected PROPERTY=PATTERN"),
        (["--scheduler", "tcp://127.0.0.1:9", "--jobs", "2"], "--jobs has no effect"),
    ):
        result = edgeattn("sweep", plan, *arguments)
        assert (result.code, message in result.err) == (2, True), result.err
    assert edgeattn("sweep", tmp_path / "no.toml").code == 2


def bundles(plan: Path) -> list[tuple[str, str | None, str, tuple[str, ...]]]:
    jobs = jobs_of(read_plan(str(plan)), VERSIONS)
    return [(job.model, job.target, job.lowering, job.formats) for job in jobs]


def test_a_lowering_changes_tflite_files_only(tmp_path: Path) -> None:
    both = 'lowerings = ["auto", "fused"]\n'
    plan = write_plan(tmp_path, f'path = "{LUONG}"', options=both)
    assert bundles(plan) == [
        ("luong_functional", None, "auto", ("tflite", "onnx")),
        ("luong_functional", None, "fused", ("tflite",)),
    ]
    write_plan(
        tmp_path, f'path = "{LUONG}"', options=both + 'targets = ["onnxruntime", "tflite-runtime"]'
    )
    assert bundles(plan) == [
        ("luong_functional", "onnxruntime", "auto", ("onnx",)),
        ("luong_functional", "tflite-runtime", "auto", ("tflite",)),
        ("luong_functional", "tflite-runtime", "fused", ("tflite",)),
    ]


def test_patterns_and_placeholders(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.h5").write_bytes(name.encode())
        (tmp_path / name / "model.test.npz").write_bytes(name.encode())
    plan = write_plan(
        tmp_path, 'path = "*/model.h5"\ndata = ["{folder}/{stem}.test.npz", "a/model.test.npz"]'
    )
    jobs = jobs_of(read_plan(str(plan)), VERSIONS)
    assert [job.model for job in jobs] == ["a", "b"]
    assert [Path(job.data[0].url).parent.name for job in jobs] == ["a", "b"]
    assert jobs[0].data[0].sha256 == remote.describe(str(tmp_path / "a" / "model.h5")).sha256
    assert [job.model for job in jobs_where(jobs, {"model": "b*"})] == ["b"]
    assert jobs_where(jobs, {"lowering": "fused"}) == []
    assert jobs_where(jobs, {"data": "other*"}) == []


def test_a_result_is_addressed_by_all_it_depends_on(tmp_path: Path) -> None:
    model, data = tmp_path / "m.h5", tmp_path / "d.npz"
    model.write_bytes(b"model")
    data.write_bytes(b"data")
    plan = write_plan(tmp_path, 'path = "m.h5"\ndata = ["d.npz"]')
    (job,) = jobs_of(read_plan(str(plan)), VERSIONS)
    other = replace(job.files["model"], sha256="0")
    changed = [
        replace(job, files={**job.files, "model": other}),
        replace(job, files={**job.files, "samples": other}),
        replace(job, files={**job.files, "model": replace(other, name="n.h5")}),
        replace(job, formats=("onnx",)),
        replace(job, schemes=("float16",)),
        replace(job, versions={"edgeattn": "2"}),
        *(replace(job, options={**job.options, name: 1}) for name in job.options),
    ]
    keys = [item.key for item in changed]
    assert len({job.key, *keys}) == 1 + len(keys)
    # What is validated on does not change the bundle, and neither does a name in the plan.
    evaluation = job.evaluation_key(job.data[0])
    assert replace(job, max_drop=0.1).key == replace(job, model="x", data=()).key == job.key
    assert replace(job, max_drop=0.1).evaluation_key(job.data[0]) != evaluation
    assert job.evaluation_key(replace(job.data[0], sha256="0")) != evaluation
    data.write_bytes(b"other data")
    (again,) = jobs_of(read_plan(str(plan)), VERSIONS)
    assert (again.key, again.keys[1] == evaluation) == (job.key, False)


def test_a_plan_and_its_models_at_urls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "PAUSES_S", (0.01, 0.01))
    with object_store() as store:
        store.files["/p/plan.toml"] = write_plan(tmp_path, 'path = "w.h5"').read_bytes()
        store.files["/p/w.h5"] = WORDS.read_bytes()
        store.failures = 2
        plan = read_plan(f"{store.url}/p/plan.toml")
        assert plan.results == f"{store.url}/p/results"
        (job,) = jobs_of(plan, VERSIONS)
        assert job.files["model"].sha256 == remote.describe(str(WORDS)).sha256
        copy = remote.download(job.files["model"], tmp_path)
        assert copy.read_bytes() == WORDS.read_bytes()
        store.files["/p/w.h5"] = b"other"
        with pytest.raises(UsageError, match="changed during the sweep"):
            remote.download(job.files["model"], tmp_path)
        store.failures = 100
        with pytest.raises(remote.StoreError, match="does not respond"):
            read_plan(f"{store.url}/p/plan.toml")


def test_a_folder_is_hashed_with_the_names_of_its_files(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name / "variables").mkdir(parents=True)
        (tmp_path / name / "saved_model.pb").write_bytes(b"graph")
        (tmp_path / name / "variables" / name).write_bytes(b"weights")
    one, two = (remote.describe(str(tmp_path / name)) for name in ("one", "two"))
    assert one.sha256 != two.sha256
    copied = remote.download(one, tmp_path / "copies")
    assert (copied / "variables" / "one").read_bytes() == b"weights"


def test_the_plan_of_the_page_is_read(tmp_path: Path) -> None:
    """Its files are those of a reader, so they are made here."""
    for name in ("models/digits.h5", "trained/one/model.keras", "trained/two/model.keras"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    names = ["data/digits.reference.npz", "data/digits.calibration.npz", "data/digits.test.npz"]
    names += [f"trained/{n}/{kind}.npz" for n in ("one", "two") for kind in ("calibration", "test")]
    (tmp_path / "data").mkdir()
    for name in names:
        (tmp_path / name).write_bytes(b"")
    (text,) = blocks((ROOT / "docs" / "sweeps.md").read_text("utf-8"), "toml")
    (tmp_path / "plan.toml").write_text(text)
    jobs = jobs_of(read_plan(str(tmp_path / "plan.toml")), VERSIONS)
    assert sorted({job.model for job in jobs}) == ["digits", "one", "two"]


@pytest.mark.parametrize(
    ("value", "file", "function"),
    [
        ("{stem}.json", "keras-2.0.9/weights_only.json", None),
        ("{folder}/model.py:build", "keras-2.0.9/model.py", "build"),
    ],
)
def test_the_architecture_of_weights(
    tmp_path: Path, value: str, file: str, function: str | None
) -> None:
    """A function is named as in ``--architecture``; results depend on it and on its file."""
    folder = tmp_path / "keras-2.0.9"
    folder.mkdir()
    for name in ("weights_only.h5", "weights_only.json", "model.py"):
        (folder / name).write_text(name)
    plan = f'path = "weights_only.h5"\narchitecture = "{value}"'
    (job,) = jobs_of(read_plan(str(write_plan(folder, plan))), VERSIONS)
    assert (job.files["architecture"].url, job.function) == (str(tmp_path / file), function)
    assert job.to_json()["function"] == function
    keys = {job.key, replace(job, function="other").key}
    (folder / Path(file).name).write_text("changed")
    (changed,) = jobs_of(read_plan(str(folder / "plan.toml")), VERSIONS)
    assert len({*keys, changed.key}) == 3
