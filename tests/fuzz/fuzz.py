"""A seeded fuzzer that opens damaged and hostile variants of real files with edgeattn.

    python tests/fuzz/fuzz.py --count 10000 --seed 0

Every variant must open or raise an error of edgeattn other than exit code 70, within the time limit
and without writing a file. Runtimes that crash do so in a worker process. Everything else is a
finding, and its variant is saved.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import shutil
import sys
import tempfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeattn.bundle.bundle import Bundle
from edgeattn.bundle.manifest import MANIFEST
from edgeattn.errors import ConversionError, EdgeattnError
from edgeattn.inspection import file_kind, read_onnx, read_tflite
from edgeattn.process.worker import Worker, WorkerDied
from edgeattn_converters.options import ConversionOptions
from edgeattn_converters.worker.client import ConversionWorker

ROOT = Path(__file__).parents[2]
# Longest time that loading one variant may take; generous, so that busy machines pass.
SECONDS = 600.0
# Boundary values of sizes, counts and offsets.
EXTREMES = (0, 1, -1, 0x7F, 0xFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 2**31, 2**63 - 1, 1e308)
STRINGS = (
    "",
    "../../x",
    "/etc/passwd",
    "http://127.0.0.1/x",
    "Lambda",
    "builtins",
    "os",
    "\0",
    "é",
)


@dataclass(frozen=True)
class Finding:
    """A variant that was not handled as required.

    Attributes:
        seed: seed that creates the variant.
        source: name of the file that it is a variant of.
        outcome: what happened.
    """

    seed: int
    source: str
    outcome: str


def mutate_bytes(data: bytes, generator: random.Random) -> bytes:
    """Return the bytes with a few random changes: flips, cuts, copies, boundary values."""
    result = bytearray(data)
    for _ in range(generator.choice((1, 1, 2, 5, 40))):
        if not result:
            break
        position = generator.randrange(len(result))
        match generator.randrange(6):
            case 0:
                result[position] ^= 1 << generator.randrange(8)
            case 1:
                result[position] = generator.randrange(256)
            case 2:
                del result[position : position + generator.choice((1, 4, 100, len(result)))]
            case 3:
                length = generator.choice((1, 8, 200))
                result[position:position] = result[position : position + length]
            case 4:
                value = int(generator.choice(EXTREMES[:-1])) & 0xFFFFFFFF
                result[position : position + 4] = value.to_bytes(4, "little")
            case _:
                length = generator.choice((4, 64, 1000))
                result[position : position + length] = bytes(
                    len(result[position : position + length])
                )
    return bytes(result)


def mutate_json(value: Any, generator: random.Random) -> Any:
    """Return a JSON value with one random node replaced, removed, nested or renamed."""
    nodes = list(_nodes(value))
    if not nodes:
        return generator.choice((None, [], {}, "x"))
    container, key = generator.choice(nodes)
    match generator.randrange(7):
        case 0:
            container[key] = generator.choice(EXTREMES)
        case 1:
            container[key] = generator.choice(STRINGS)
        case 2:
            container[key] = generator.choice((None, True, [], {}, [[]], {"class_name": "Lambda"}))
        case 3:
            del container[key]
        case 4:
            other, name = generator.choice(nodes)
            # Copied as text, so that no node contains itself.
            if key in container if isinstance(container, dict) else key < len(container):
                container[key] = json.loads(json.dumps(other[name]))
        case 5:
            deep: Any = 1
            for _ in range(generator.choice((5, 400))):
                deep = [deep] if generator.random() < 0.5 else {"config": deep}
            container[key] = deep
        case _:
            if isinstance(container, dict):
                container[generator.choice(STRINGS) or "name"] = container[key]
            else:
                container.append(container[key])
    return value


def _nodes(value: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(value, dict):
        for key in value:
            yield value, key
            yield from _nodes(value[key])
    elif isinstance(value, list):
        for index in range(len(value)):
            yield value, index
            yield from _nodes(value[index])


def mutate_hdf5(source: Path, target: Path, generator: random.Random) -> None:
    """Write an HDF5 model file with a mutated configuration or a weight of another shape."""
    import h5py
    import numpy as np

    shutil.copyfile(source, target)
    with h5py.File(target, "r+") as file:
        if generator.random() < 0.75 and "model_config" in file.attrs:
            text = file.attrs["model_config"]
            config = json.loads(text.decode() if isinstance(text, bytes) else text)
            file.attrs["model_config"] = json.dumps(mutate_json(config, generator))
            return
        names: list[str] = []
        file.visititems(lambda name, item: names.append(name) if hasattr(item, "shape") else None)
        if names:
            name = generator.choice(names)
            shape = generator.choice(((), (0,), (1,), (3, 5), tuple(file[name].shape[::-1])))
            del file[name]
            if generator.random() < 0.8:
                file[name] = np.zeros(shape, generator.choice(("f4", "f8", "i1", "S3")))


def mutate_archive(source: Path, target: Path, generator: random.Random) -> None:
    """Write a ``.keras`` file with a mutated configuration, weights file or list of members."""
    with zipfile.ZipFile(source) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = generator.choice(list(members))
    if name.endswith(".json"):
        members[name] = json.dumps(mutate_json(json.loads(members[name]), generator)).encode()
    else:
        members[name] = mutate_bytes(members[name], generator)
    if generator.random() < 0.1:
        members.pop(generator.choice(list(members)))
    if generator.random() < 0.1:
        members[generator.choice(("../x", "/x", "a" * 300, "assets/x"))] = b"x"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    target.write_bytes(buffer.getvalue())


def write_variant(source: Path, folder: Path, generator: random.Random) -> Path:
    """Write a variant of ``source``, a file or bundle, to ``folder`` and return its path."""
    target = folder / source.name
    if source.is_dir():
        shutil.copytree(source, target)
        if generator.random() < 0.7:
            manifest = json.loads((target / MANIFEST).read_text())
            (target / MANIFEST).write_text(json.dumps(mutate_json(manifest, generator)))
        else:
            file = generator.choice(sorted(target.iterdir()))
            file.write_bytes(mutate_bytes(file.read_bytes(), generator))
        return target
    structured: dict[str, Callable[[Path, Path, random.Random], None]] = {
        ".h5": mutate_hdf5,
        ".keras": mutate_archive,
    }
    if source.suffix in structured and generator.random() < 0.6:
        try:
            structured[source.suffix](source, target, generator)
            return target
        except (OSError, ValueError, RuntimeError, KeyError, UnicodeError, zipfile.BadZipFile):
            pass  # the format cannot represent this variant
    target.write_bytes(mutate_bytes(source.read_bytes(), generator))
    return target


def outcome_of(path: Path, converter: ConversionWorker, worker: Worker) -> str:
    """Open a file: return ``opened``, the class of the error, ``died``, ``hang`` or ``fault``."""
    try:
        kind = file_kind(path)
        if kind == "bundle":
            Bundle.open(path).reference()
        elif kind == "keras":
            arguments = {"source": {"path": str(path)}, "attempt_conversion": False}
            converter.audit(path, None)
            converter.call("inspect", arguments, activity=f"loading {path.name}", timeout=SECONDS)
        else:
            assert {read_tflite.__name__, read_onnx.__name__} == {"read_tflite", "read_onnx"}
            worker.call(f"edgeattn.inspection:read_{kind}", {"path": str(path)}, timeout=SECONDS)
        return "opened"
    except (WorkerDied, ConversionError) as error:
        # The audit has a time limit of its own; a file that passes it must load or fail.
        return "hang" if "took longer" in error.message else "died"
    except EdgeattnError as error:
        return type(error).__name__ if error.exit_code != 70 else f"fault: {error.message}"


def fuzz(
    sources: list[Path], count: int, seed: int, *, findings_folder: Path | None = None
) -> tuple[Counter[str], list[Finding]]:
    """Open ``count`` variants; return the number of each outcome, and the findings.

    Variants that are findings are moved to ``findings_folder``.
    """
    outcomes: Counter[str] = Counter()
    findings: list[Finding] = []
    with (
        ConversionWorker() as converter,
        Worker() as worker,
        tempfile.TemporaryDirectory() as top,
    ):
        for number in range(seed, seed + count):
            generator = random.Random(number)
            source = sources[number % len(sources)]
            folder = Path(top) / str(number)
            folder.mkdir()
            path = write_variant(source, folder, generator)
            before = _listing(Path(top))
            try:
                outcome = outcome_of(path, converter, worker)
            except Exception as error:  # any other exception is a finding
                outcome = f"fault: {type(error).__name__}: {error}"
            outcomes[outcome.split(":")[0]] += 1
            if _listing(Path(top)) != before:
                outcome = "fault: a file was written"
            if outcome.startswith(("fault", "hang")):
                findings.append(Finding(number, source.name, outcome))
                if findings_folder is not None:
                    findings_folder.mkdir(parents=True, exist_ok=True)
                    shutil.move(path, findings_folder / f"{number}-{path.name}")
            shutil.rmtree(folder, ignore_errors=True)
    return outcomes, findings


def _listing(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


def source_files(folder: Path) -> list[Path]:
    """Return Keras files of several versions, and a bundle with its artifacts."""
    from edgeattn_converters import convert

    bank = ROOT / "tests" / "specimens"
    models = sorted(bank.glob("*/*.h5"))[::7] + sorted(bank.glob("*/*.keras"))[::4]
    small = [path for path in models if path.stat().st_size < 60_000]
    digits = ROOT / "sample_models" / "digits" / "model.h5"
    bundle = convert(
        digits, folder / "model.edge", options=ConversionOptions(schemes=("float32",))
    ).bundle
    artifacts = [bundle.artifact_path(item) for item in bundle.manifest.artifacts]
    # Repeated, so that bundles and artifacts are chosen about as often as Keras files.
    return [*small, *artifacts * 6, *[bundle.path] * 12]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=ROOT / ".out" / "fuzz")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        outcomes, findings = fuzz(
            source_files(Path(folder)),
            arguments.count,
            arguments.seed,
            findings_folder=arguments.keep,
        )
    for outcome, count in outcomes.most_common():
        print(f"{count:7}  {outcome}")
    for finding in findings:
        print(f"seed {finding.seed} of {finding.source}: {finding.outcome}")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
