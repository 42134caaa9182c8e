"""Bundles with a damaged artifact, manifest or file, validated as ``edgeattn validate`` does.

A variant may be opened and pass, be refused with an error that names the cause, be refused by the
runtime, or fail a check. It must not end this process or raise an internal error (``CRASH``), and
it must not pass although it computes something else (``WRONG PASS``): artifacts that pass are
compared with the undamaged ones on other samples, and entries of the manifest with the right ones.
Files whose errors stay within the limits may still change more decisions on other samples than on
those of the reference, which are too few to measure shares of 1 %; they are counted separately.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeattn.bundle import cache
from edgeattn.bundle.bundle import Bundle
from edgeattn.bundle.manifest import MANIFEST, REFERENCE, Artifact, sha256
from edgeattn.bundle.packing import pack
from edgeattn.cli.inspect import _bundle_lines
from edgeattn.errors import EdgeattnError
from edgeattn.inspection import inspect_bundle
from edgeattn.metrics.verdict import PASS
from edgeattn.process.limits import RunLimits, limited_to
from edgeattn.process.worker import Worker
from edgeattn.runners import open_artifact
from edgeattn.runners.isolated import IsolatedRunner
from edgeattn.samples.npz import write_npz
from edgeattn.tensors import Tensors
from edgeattn.validation.report import Report
from edgeattn.validation.validate import validate
from mutations import mutate_bytes, mutate_in_place, mutate_json, mutate_members

SPECIMEN = Path(__file__).parents[1] / "specimens" / "bundle-0.1.0.dev0"
RIGHT, REFUSED, RUNTIME = "opened as right", "refused by name", "refused by the runtime"
FAILED, CRASH, WRONG = "failed a check", "CRASH", "WRONG PASS"
DECISIONS = "passed, but decisions on other samples exceed the limit"
OUTCOMES = (RIGHT, FAILED, REFUSED, RUNTIME, DECISIONS, CRASH, WRONG)
# Samples of the reference, and others with which files that pass are compared. On these, checks may
# exceed their limits by a factor of two: a file may be as wrong as its limits allow.
SAMPLES, OTHERS, EXCESS = 64, 256, 2.0
LIMITS = RunLimits(seconds=60.0, memory=2 * 2**30)
COUNTED = ("operators", "weights", "variables", "cell_clips", "opset")


@dataclass(frozen=True)
class Outcome:
    """One of :data:`OUTCOMES`, and why, of the variant that ``seed`` creates."""

    name: str
    reason: str
    seed: int
    variant: str


class Fuzzer:
    """Creates and validates variants in ``folder``; a crash of a runtime ends its worker only."""

    def __init__(self, folder: Path, worker: Worker) -> None:
        self._folder, self._worker = folder, worker
        self._data = json.loads((SPECIMEN / MANIFEST).read_text("utf-8"))
        self._artifacts = [Artifact.from_json(item) for item in self._data["artifacts"]]
        self.originals = {item.path: item for item in self._artifacts}
        float32 = self.originals["model.float32.onnx"]
        self._reference = self._write_reference(folder / "reference.npz", float32, SAMPLES)
        self._others = {
            item.path: self._write_reference(folder / f"{item.path}.npz", item, OTHERS)
            for item in self._artifacts
        }

    def artifact(self, seed: int) -> Outcome:
        """A bundle of one artifact with changed bytes, whose hash is right."""
        generator = random.Random(seed)
        item = self._artifacts[seed % len(self._artifacts)]
        target = self._bundle([item])
        file = target / item.path
        # Most changes leave every offset as it is: the others are refused as malformed.
        mutate = mutate_in_place if generator.random() < 0.7 else mutate_bytes
        file.write_bytes(mutate(file.read_bytes(), generator))
        _rehash(target)
        return self._outcome(seed, item.path, target, self._passes_on_others)

    def bundle(self, seed: int) -> Outcome:
        """A bundle of two artifacts with a changed manifest, file or list of files."""
        generator = random.Random(seed)
        # A file of each format that is small, and has integers.
        target = self._bundle([self.originals[f"model.int8.{kind}"] for kind in ("onnx", "tflite")])
        changes = (self._manifest, self._manifest, self._manifest, self._entry, self._entry)
        others = (self._manifest_bytes, self._file, self._files, self._packed, self._packed_bytes)
        change = generator.choice((*changes, *others))
        target = change(target, generator) or target
        return self._outcome(seed, change.__name__.strip("_"), target, self._is_consistent)

    def _outcome(
        self,
        seed: int,
        variant: str,
        target: Path,
        check: Callable[[Bundle, Report], tuple[str, str]],
    ) -> Outcome:
        """Validate ``target``; ``check`` returns an outcome that overrides the report, and why."""
        name, reason = CRASH, ""
        before = _listing(self._folder)
        try:
            with limited_to(LIMITS), warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")
                bundle = Bundle.open(target)
                list(_bundle_lines(inspect_bundle(target)))
                report = self._validate(bundle)
                name, reason = check(bundle, report)
                name = name or _result(report)
        except EdgeattnError as error:
            name = REFUSED if error.exit_code != 70 else CRASH
            reason = f"{type(error).__name__}: {error.message}"
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
        if _listing(self._folder) != before:
            name, reason = CRASH, "a file was written"
        return Outcome(name, reason, seed, variant)

    def _validate(self, bundle: Bundle) -> Report:
        def opener(item: Artifact) -> IsolatedRunner:
            return IsolatedRunner(bundle.path, item, self._worker, as_deployed=True)

        return validate(bundle, bundle.manifest.artifacts, opener)

    def _passes_on_others(self, bundle: Bundle, report: Report) -> tuple[str, str]:
        """Files that pass must also pass on other samples, for which the undamaged is right."""
        from edgeattn_converters.tuning.evaluation import excess

        if report.verdict != PASS:
            return "", ""
        shutil.copyfile(self._others[report.artifacts[0].artifact.path], bundle.path / REFERENCE)
        _rehash(bundle.path, samples=OTHERS)
        other = self._validate(Bundle.open(bundle.path)).artifacts[0]
        reason = "; ".join(f"{c.metric} {c.value} (limit {c.limit})" for c in other.failed)
        decided = [c for c in other.checks if c.metric == "top1_agreement"]
        if other.broken or excess([c for c in other.checks if c not in decided]) > EXCESS:
            return WRONG, reason
        # Below one decision, no share can be observed.
        changed = max((1 - check.value for check in decided), default=0.0)
        return (
            (DECISIONS, reason) if changed * OTHERS > 1.5 and excess(decided) > EXCESS else ("", "")
        )

    def _is_consistent(self, bundle: Bundle, report: Report) -> tuple[str, str]:
        """Artifacts that pass must be those of the original, as their entries describe them."""
        for item in report.artifacts:
            if item.verdict == PASS:
                original = self.originals.get(Path(item.artifact.path).name)
                if original is None or item.artifact.sha256 != original.sha256:
                    return WRONG, f"{item.artifact.path} is another file"
                wrong = contradictions(item.artifact, original)
                if wrong:
                    return WRONG, f"{item.artifact.label}: {', '.join(wrong)}"
        return "", ""

    def _bundle(self, artifacts: list[Artifact]) -> Path:
        """A new bundle of these artifacts."""
        for path in [*self._folder.glob("model.edge*"), self._folder / "cache"]:
            shutil.rmtree(path, ignore_errors=True)
            path.unlink(missing_ok=True)
        target = self._folder / "model.edge"
        target.mkdir()
        shutil.copyfile(self._reference, target / REFERENCE)
        names = {item.path for item in artifacts}
        entries = [item for item in self._data["artifacts"] if item["path"] in names]
        for name in names:
            shutil.copyfile(SPECIMEN / name, target / name)
        (target / MANIFEST).write_text(json.dumps({**self._data, "artifacts": entries}))
        _rehash(target, samples=SAMPLES)
        return target

    def _write_reference(self, path: Path, item: Artifact, count: int) -> Path:
        """The outputs of an undamaged artifact for ``count`` samples."""
        shape = (count, *item.inputs[0].shape[1:])
        x = np.random.default_rng(count).normal(size=shape).astype(np.float32)  # type: ignore[arg-type]
        runner = open_artifact(SPECIMEN, item)
        outputs = runner.run({item.inputs[0].name: x})
        runner.close()
        arrays: Tensors = {f"input/{item.inputs[0].name}": x}
        for spec in item.outputs:
            key = spec.name if spec.name in item.attention else f"output/{spec.name}"
            arrays[key] = outputs[spec.name]
        with path.open("wb") as file:
            write_npz(file, arrays)
        return path

    # Changes of a bundle; those that return a path return another one.

    def _manifest(self, target: Path, generator: random.Random) -> None:
        data = json.loads((target / MANIFEST).read_text("utf-8"))
        (target / MANIFEST).write_text(json.dumps(mutate_json(data, generator)))

    def _entry(self, target: Path, generator: random.Random) -> None:
        data = json.loads((target / MANIFEST).read_text("utf-8"))
        part = generator.choice(data["artifacts"])
        if generator.random() < 0.3:
            part = generator.choice([*part["inputs"], *part["outputs"]])
        mutate_json(part, generator)
        (target / MANIFEST).write_text(json.dumps(data))

    def _manifest_bytes(self, target: Path, generator: random.Random) -> None:
        file = target / MANIFEST
        file.write_bytes(mutate_bytes(file.read_bytes(), generator))

    def _file(self, target: Path, generator: random.Random) -> None:
        """Without changing the hash, so that only equal bytes may be opened."""
        file = generator.choice(sorted(target.iterdir()))
        file.write_bytes(mutate_bytes(file.read_bytes(), generator))

    def _files(self, target: Path, generator: random.Random) -> None:
        one, other = generator.sample(sorted(target.iterdir()), 2)
        match generator.randrange(5):
            case 0:
                one.unlink()
            case 1:
                one.rename(other)
            case 2:
                one.rename(target / "x")
                one.mkdir()
            case 3:
                one.rename(target / "x")
                one.symlink_to("x")
            case _:
                (target / "manifest.json.sig").write_bytes(one.read_bytes())

    def _packed(self, target: Path, generator: random.Random) -> Path:
        packed = self._pack(target)
        packed.write_bytes(mutate_members(packed.read_bytes(), generator))
        return packed

    def _packed_bytes(self, target: Path, generator: random.Random) -> Path:
        packed = self._pack(target)
        packed.write_bytes(mutate_bytes(packed.read_bytes(), generator))
        return packed

    def _pack(self, target: Path) -> Path:
        packed = target.with_name("model.edge.zip")
        pack(Bundle.open(target), packed)
        return packed


def _result(report: Report) -> str:
    if report.verdict == PASS:
        return RIGHT
    if any(check.metric == "malformed_file" for item in report.artifacts for check in item.failed):
        return REFUSED
    return RUNTIME if any(item.broken for item in report.artifacts) else FAILED


def contradictions(entry: Artifact, original: Artifact) -> list[str]:
    """What of an entry differs from the right one, apart from what promises less."""
    same = {"bytes": entry.bytes == original.bytes, "map": entry.attention == original.attention}
    wrong = [name for name, equal in same.items() if not equal]
    for side in ("inputs", "outputs"):
        right = {spec.name: spec for spec in getattr(original, side)}
        specs = getattr(entry, side)
        if {spec.name for spec in specs} != set(right):
            wrong.append(side)
            continue
        for spec in specs:
            pairs = list(zip(spec.shape, right[spec.name].shape, strict=False))
            same_rank = len(spec.shape) == len(right[spec.name].shape)
            if spec.dtype != right[spec.name].dtype or spec.scale is not None:
                wrong.append(f"{spec.name} {spec.dtype}")
            if not same_rank or any(axis not in (own, own or axis) for axis, own in pairs):
                wrong.append(f"{spec.name} {spec.shape}")
    wrong += [
        key
        for key in COUNTED
        if key in entry.achieved and entry.achieved[key] != original.achieved.get(key)
    ]
    if entry.scheme in ("int8", "int16x8") and entry.scheme != original.scheme:
        wrong.append(entry.scheme)
    return wrong


def _rehash(target: Path, samples: int | None = None) -> None:
    """Write the hashes and sizes of the files to the manifest, and the number of samples."""
    data = json.loads((target / MANIFEST).read_text("utf-8"))
    for entry in [*data["artifacts"], data["reference"]]:
        entry["sha256"] = sha256(target / entry["path"])
    for entry in data["artifacts"]:
        entry["bytes"] = (target / entry["path"]).stat().st_size
    if samples is not None:
        data["reference"].update(samples=samples, edge_cases=0)
    (target / MANIFEST).write_text(json.dumps(data))


def _listing(folder: Path) -> set[Path]:
    """All files except those of the cache of unpacked bundles."""
    return {path for path in folder.rglob("*") if folder / "cache" not in (path, *path.parents)}


def release_cache() -> None:
    """Release the locks of unpacked bundles, of which every variant has one."""
    for lock in cache._held.values():
        os.close(lock)
    cache._held.clear()


def fuzz(kind: str, count: int, seed: int, folder: Path) -> tuple[Counter[str], list[Outcome]]:
    """Validate ``count`` variants of ``kind``, which is ``artifact`` or ``bundle``.

    Returns the number of each outcome, and the outcomes :data:`CRASH` and :data:`WRONG`.
    ``XDG_CACHE_HOME`` must be ``folder / "cache"``.
    """
    counts: Counter[str] = Counter()
    findings = []
    with Worker() as worker:
        fuzzer = Fuzzer(folder, worker)
        for number in range(seed, seed + count):
            outcome = getattr(fuzzer, kind)(number)
            release_cache()
            counts[outcome.name] += 1
            if outcome.name in (CRASH, WRONG):
                findings.append(outcome)
    return counts, findings


def fuzz_in_memory(kind: str, count: int, seed: int) -> tuple[Counter[str], list[Outcome]]:
    """As :func:`fuzz`, in a folder in memory where the system has such a file system."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as name:
        folder = Path(name)
        previous = os.environ.get("XDG_CACHE_HOME")
        os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
        try:
            return fuzz(kind, count, seed, folder)
        finally:
            del os.environ["XDG_CACHE_HOME"]
            if previous is not None:
                os.environ["XDG_CACHE_HOME"] = previous
