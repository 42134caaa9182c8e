"""Kills commands before every change of the disk in turn, and runs them again.

After each kill, every output must be the old one or a complete new one; the same command must then
succeed and leave no other files. Run as a script: ``killed_commands.py FOLDER SCENARIO``, which
prints the numbers of kills and the violations as JSON. Changes of forked workers count, too: a
worker is killed with its command, and alone. With a third argument, ``undisturbed``, the command
only runs once.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import artifacts
import numpy as np
from function_runner import FunctionRunner
from interruption import WORKER, fork_workers, in_process, record_changes

from edgeattn import files
from edgeattn.bundle import signing
from edgeattn.bundle.bundle import Bundle
from edgeattn.bundle.manifest import MANIFEST, Artifact
from edgeattn.bundle.packing import pack
from edgeattn.bundle.writer import new_bundle
from edgeattn.errors import EdgeattnError
from edgeattn.evaluation import checkpoint as checkpoints
from edgeattn.evaluation import dataset as datasets
from edgeattn.validation import validate as validation


class Scenario:
    """A command. ``prepare`` creates what exists before, ``check`` raises for anything half done.

    ``outputs`` are the files and folders that remain besides those of ``prepare``.
    """

    outputs: Sequence[str] = ("a.edge",)

    def prepare(self, folder: Path) -> None:
        pass

    def run(self, folder: Path) -> Any:
        raise NotImplementedError

    def check(self, folder: Path) -> None:
        raise NotImplementedError


class NewBundle(Scenario):
    """The end of a conversion: the bundle appears."""

    old = False
    rows: int | None = 9  # of the new reference, if they are known

    def prepare(self, folder: Path) -> None:
        if self.old:
            artifacts.write_dense_bundle(folder / "a.edge")

    def run(self, folder: Path) -> Any:
        with new_bundle(folder / "a.edge", force=True) as temporary:
            artifacts.write_dense_bundle(temporary, count=9)

    def check(self, folder: Path) -> None:
        target = folder / "a.edge"
        if self.old or target.exists():
            count = len(Bundle.open(target).reference()["input/x"])
            is_old = self.old and count == 7
            assert is_old or self.rows in (None, count), count


class ReplacedBundle(NewBundle):
    old = True


class ReplacedWithoutExchange(ReplacedBundle):
    """On a file system that cannot swap two folders, the next command restores the old one."""

    def run(self, folder: Path) -> Any:
        files._exchange = lambda one, other: False  # type: ignore[assignment]
        super().run(folder)

    def check(self, folder: Path) -> None:
        with files.reserved(folder / "a.edge"):
            super().check(folder)


class Packed(Scenario):
    outputs = ("a.zip",)

    def prepare(self, folder: Path) -> None:
        pack(artifacts.write_dense_bundle(folder / "a.edge"), folder / "a.zip")
        shutil.rmtree(folder / "a.edge")
        artifacts.write_dense_bundle(folder / "a.edge", count=9)

    def run(self, folder: Path) -> Any:
        pack(Bundle.open(folder / "a.edge"), folder / "a.zip", force=True)

    def check(self, folder: Path) -> None:
        os.environ["XDG_CACHE_HOME"] = str(folder.with_name("cache"))
        assert len(Bundle.open(folder / "a.zip").reference()["input/x"]) in (7, 9)


class Unpacked(Scenario):
    outputs = ("cache",)

    def prepare(self, folder: Path) -> None:
        pack(artifacts.write_dense_bundle(folder / "a.edge"), folder / "a.zip")

    def run(self, folder: Path) -> Any:
        os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
        Bundle.open(folder / "a.zip")

    def check(self, folder: Path) -> None:
        for path in folder.glob(f"cache/edgeattn/unpacked/*/a/{MANIFEST}"):
            Bundle.open(path.parent)


class Signed(Scenario):
    outputs = ()

    def prepare(self, folder: Path) -> None:
        bundle = artifacts.write_dense_bundle(folder / "a.edge")
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", folder / "key"]
        subprocess.run(command, check=True)
        public = (folder / "key.pub").read_text()
        (folder / "allowed").write_text(f"me {public}")
        signing.sign(bundle, folder / "key")

    def run(self, folder: Path) -> Any:
        signing.sign(Bundle.open(folder / "a.edge"), folder / "key")

    def check(self, folder: Path) -> None:
        assert signing.check_signature(Bundle.open(folder / "a.edge"), folder / "allowed") == "me"


class Validated(Scenario):
    """``validate --data --resume --junit``: finished batches are not run again."""

    outputs = ("result.xml",)
    sizes: list[int]

    def prepare(self, folder: Path) -> None:
        artifacts.write_dense_bundle(folder / "a.edge")
        x = artifacts.samples(128)
        x[:, 1] += np.arange(128) / 4
        np.savez(folder / "data.npz", x=x, y=artifacts.dense(x).argmax(1))

    def run(self, folder: Path) -> Any:
        from edgeattn.cli.main import cli

        datasets.BATCH_SIZE, checkpoints.SAVE_INTERVAL_S = 32, 0.0
        use_functions(lambda tensors: self._append(folder, len(tensors["x"])))
        command = ["validate", "a.edge", "--data", "data.npz", "--max-drop", "0.3"]
        command += ["--resume", "--junit", "result.xml"]
        os.chdir(folder)
        with contextlib.redirect_stdout(io.StringIO()):
            assert cli.main([*command, "--quiet"], standalone_mode=False) == 0
        batches = folder.with_name("batches")
        # Batches of the data for both artifacts, of both attempts: at most one is run twice.
        run = batches.read_text().split().count("32")
        batches.unlink()
        return run

    @staticmethod
    def _append(folder: Path, count: int) -> None:
        # Outside the folder: these changes do not count.
        with folder.with_name("batches").open("a") as file:
            file.write(f"{count}\n")

    def check(self, folder: Path) -> None:
        result = folder / "result.xml"
        assert not result.exists() or result.read_text().rstrip().endswith("</testsuites>")


class Converted(NewBundle):
    """``convert`` over an old bundle; the tasks of the worker are those of :mod:`fake_tasks`."""

    old = True
    model = "model.h5"

    formats: tuple[str, ...] = ("onnx",)

    def prepare(self, folder: Path) -> None:
        super().prepare(folder)
        (folder / self.model).write_bytes(b"model")

    def replace_keras(self) -> None:
        import edgeattn_converters as converters
        from edgeattn_converters.worker import client

        use_functions()
        client.TASKS = "fake_tasks"
        converters.validate_isolated = validation.validate_isolated

    def run(self, folder: Path) -> Any:
        import edgeattn_converters as converters

        self.replace_keras()
        options = converters.ConversionOptions(formats=self.formats, schemes=("float32", "float16"))
        converters.convert(folder / self.model, folder / "a.edge", options=options, force=True)


class Tuned(Converted):
    """``tune``: stored results are not computed again."""

    def prepare(self, folder: Path) -> None:
        super().prepare(folder)
        x = artifacts.samples(64)
        x[:, 1] += np.arange(64) / 3
        np.savez(folder / "data.npz", x=x, y=artifacts.dense(x).argmax(1))

    def run(self, folder: Path) -> Any:
        from edgeattn_converters.tuning import result, tune

        self.replace_keras()
        result.timed = lambda results, *_, **__: tuple(results)  # type: ignore[assignment]
        options = tune.TuningOptions(0.3, formats=self.formats, schemes=("float16",))
        model, data = folder / self.model, folder / "data.npz"
        tune.tune(model, data, folder / "a.edge", options=options, force=True)


class _WithKeras:
    """With Keras, the converters and the runtimes; everything is imported before the first fork."""

    model = "model.keras"
    formats = ("onnx", "tflite")
    rows = None

    def prepare(self, folder: Path) -> None:
        import_converters()
        super().prepare(folder)  # type: ignore[misc]
        assert in_process(lambda: save_dense_model(folder / self.model))

    def replace_keras(self) -> None:
        pass


class ConvertedByKeras(_WithKeras, Converted):
    """``convert`` of the dense model as a Keras file."""


class TunedByKeras(_WithKeras, Tuned):
    """``tune`` of the dense model as a Keras file."""


def import_converters() -> None:
    """Import what a conversion needs, so that no forked worker has to."""
    from edgeattn_converters.worker import processes

    os.environ.update(processes.ENVIRONMENT)
    modules = ("worker.tasks", "formats.onnx", "formats.tflite", "diagnosis.onnx")
    for name in (
        *("ai_edge_litert.interpreter", "onnxruntime", "tensorflow", "keras", "tf2onnx", "h5py"),
        *(f"edgeattn_converters.{name}" for name in modules),
    ):
        importlib.import_module(name)


def save_dense_model(path: Path) -> bool:
    import keras

    inputs = keras.Input((artifacts.FEATURES,), name="x")
    layer = keras.layers.Dense(artifacts.UNITS, name="score")
    model = keras.Model(inputs, layer(inputs))
    layer.set_weights([artifacts.KERNEL, artifacts.BIAS])
    model.save(path)
    return True


def use_functions(called: Callable[[Any], None] = lambda tensors: None) -> None:
    """Use the NumPy model instead of runtimes, which need processes of their own."""

    def opener(item: Artifact) -> FunctionRunner:
        def run(tensors: Mapping[str, Any]) -> dict[str, Any]:
            called(tensors)
            return {"score": artifacts.dense(tensors["x"])}

        return FunctionRunner(run, item.inputs, item.outputs)

    def validate_isolated(bundle: Bundle, selected: Any, **options: Any) -> Any:
        return validation.validate(bundle, selected, opener, **options)

    validation.validate_isolated = validate_isolated  # type: ignore[assignment]


def listing(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def violations_of(scenario: Scenario, base: Path) -> tuple[dict[str, int], list[str]]:
    """The number of kills by kind of process, and what was wrong after them."""
    pristine = base / "pristine"
    pristine.mkdir()
    scenario.prepare(pristine)
    fork_workers()

    def attempt(folder: Path, stop_at: int | None, mode: str = "kill") -> Any:
        def run() -> Any:
            changes = record_changes(folder, stop_at, mode)
            try:
                value = scenario.run(folder)
            except EdgeattnError as error:
                return {"error": f"{error.exit_code}: {error.message}"}
            return {"value": value, "changes": changes.all()}

        return in_process(run)

    def fresh() -> Path:
        folder = base / "folder"
        for path in (folder, base / "batches"):
            shutil.rmtree(path, ignore_errors=True)
            path.unlink(missing_ok=True)
        shutil.copytree(pristine, folder)
        return folder

    # In this process, which imports what the others need.
    scenario.run(fresh())
    complete = attempt(folder := fresh(), None)
    expected = listing(folder)
    new = sorted({name.split("/")[0] for name in expected if name not in listing(pristine)})
    assert set(new) <= set(scenario.outputs), new
    of_workers = [change.startswith(WORKER) for change in complete["changes"]]
    violations = []
    for number, change in enumerate(complete["changes"], 1):
        # A worker dies with its command, or alone.
        for mode in ("kill", "worker") if of_workers[number - 1] else ("kill",):
            folder = fresh()
            result = attempt(folder, number, mode)
            name = f"{mode} at {change}"
            if mode == "kill" and result is not None:
                violations.append(f"{name}: the process survived")
            if mode == "worker" and (result is None or result.get("error", "").startswith("70")):
                violations.append(f"{name}: {result}")
            try:
                scenario.check(folder)
            except Exception as error:
                violations.append(f"{name}: {error!r}")
            again = attempt(folder, None)
            if again is None or "error" in again:
                violations.append(f"after {name}: the second run failed: {again}")
                continue
            value = complete["value"]
            if value is not None and again["value"] > value + 2:
                violations.append(f"after {name}: {again['value']} batches instead of {value}")
            if listing(folder) != expected:
                violations.append(f"after {name}: {sorted(set(listing(folder)) ^ set(expected))}")
    return {"kills": len(of_workers), "of workers": sum(of_workers)}, violations


SCENARIOS = {
    "new": NewBundle,
    "replace": ReplacedBundle,
    "replace-without-exchange": ReplacedWithoutExchange,
    "pack": Packed,
    "unpack": Unpacked,
    "sign": Signed,
    "validate": Validated,
    "convert": Converted,
    "tune": Tuned,
    # Minutes each, for `make kills`.
    "convert-keras": ConvertedByKeras,
    "tune-keras": TunedByKeras,
}


def main(folder: str, name: str, mode: str | None = None) -> None:
    scenario = SCENARIOS[name]()
    if mode == "undisturbed":
        scenario.prepare(Path(folder))
        fork_workers()
        scenario.run(Path(folder))
        return
    changes, violations = violations_of(scenario, Path(folder))
    print(json.dumps({"command": name, "changes": changes, "violations": violations}))
    sys.exit(bool(violations))


if __name__ == "__main__":
    main(*sys.argv[1:])
