"""A seeded fuzzer: broken and hostile variants of real files, and what becomes of each.

    python tests/fuzz/fuzz.py --count 10000 --seed 0

Every variant must end in an answer or in an error of edgeattn's own, within the time allowed, with
no file written anywhere. A runtime that dies of a variant does so in a child process, and its death
is one line; a fault of ours (exit code 70) or a hang is a finding, and the variant is kept.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import shutil
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeattn.bundle.bundle import Bundle
from edgeattn.bundle.manifest import MANIFEST
from edgeattn.errors import ConversionError, EdgeattnError
from edgeattn.inspection import kind_of, read_onnx, read_tflite
from edgeattn.process.worker import Worker, WorkerDied
from edgeattn_converters.options import ConversionOptions
from edgeattn_converters.worker.client import ConversionWorker

ROOT = Path(__file__).parents[2]
SECONDS = 60.0
# Numbers that sizes, counts and offsets break at.
EXTREMES = (0, 1, -1, 0x7F, 0xFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 2**31, 2**63 - 1, 1e308)
WORDS = ("", "../../x", "/etc/passwd", "http://127.0.0.1/x", "Lambda", "builtins", "os", "\0", "é")


@dataclass(frozen=True)
class Finding:
    """A variant that did what none may do."""

    seed: int
    source: str
    what: str


def bytes_changed(data: bytes, chance: random.Random) -> bytes:
    """A few random changes to the bytes: flips, cuts, copies, numbers at their limits."""
    result = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 5, 40))):
        if not result:
            break
        at = chance.randrange(len(result))
        match chance.randrange(6):
            case 0:
                result[at] ^= 1 << chance.randrange(8)
            case 1:
                result[at] = chance.randrange(256)
            case 2:
                del result[at : at + chance.choice((1, 4, 100, len(result)))]
            case 3:
                length = chance.choice((1, 8, 200))
                result[at:at] = result[at : at + length]
            case 4:
                value = int(chance.choice(EXTREMES[:-1])) & 0xFFFFFFFF
                result[at : at + 4] = value.to_bytes(4, "little")
            case _:
                length = chance.choice((4, 64, 1000))
                result[at : at + length] = bytes(len(result[at : at + length]))
    return bytes(result)


def json_changed(value: Any, chance: random.Random) -> Any:
    """One random node of a JSON value replaced, removed, nested or renamed."""
    places = list(_places(value))
    if not places:
        return chance.choice((None, [], {}, "x"))
    container, key = chance.choice(places)
    match chance.randrange(7):
        case 0:
            container[key] = chance.choice(EXTREMES)
        case 1:
            container[key] = chance.choice(WORDS)
        case 2:
            container[key] = chance.choice((None, True, [], {}, [[]], {"class_name": "Lambda"}))
        case 3:
            del container[key]
        case 4:
            other, name = chance.choice(places)
            # A copy as text: a node may hold itself otherwise.
            if key in container if isinstance(container, dict) else key < len(container):
                container[key] = json.loads(json.dumps(other[name]))
        case 5:
            deep: Any = 1
            for _ in range(chance.choice((5, 400))):
                deep = [deep] if chance.random() < 0.5 else {"config": deep}
            container[key] = deep
        case _:
            if isinstance(container, dict):
                container[chance.choice(WORDS) or "name"] = container[key]
            else:
                container.append(container[key])
    return value


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(value, dict):
        for key in value:
            yield value, key
            yield from _places(value[key])
    elif isinstance(value, list):
        for index in range(len(value)):
            yield value, index
            yield from _places(value[index])


def hdf5_changed(source: Path, target: Path, chance: random.Random) -> None:
    """An HDF5 model file with another architecture, or with a weight of another shape."""
    import h5py
    import numpy as np

    shutil.copyfile(source, target)
    with h5py.File(target, "r+") as file:
        if chance.random() < 0.75 and "model_config" in file.attrs:
            text = file.attrs["model_config"]
            config = json.loads(text.decode() if isinstance(text, bytes) else text)
            file.attrs["model_config"] = json.dumps(json_changed(config, chance))
            return
        names: list[str] = []
        file.visititems(lambda name, item: names.append(name) if hasattr(item, "shape") else None)
        if names:
            name = chance.choice(names)
            shape = chance.choice(((), (0,), (1,), (3, 5), tuple(file[name].shape[::-1])))
            del file[name]
            if chance.random() < 0.8:
                file[name] = np.zeros(shape, chance.choice(("f4", "f8", "i1", "S3")))


def zip_changed(source: Path, target: Path, chance: random.Random) -> None:
    """A ``.keras`` file with another config, or another member list."""
    with zipfile.ZipFile(source) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = chance.choice(list(members))
    if name.endswith(".json"):
        members[name] = json.dumps(json_changed(json.loads(members[name]), chance)).encode()
    else:
        members[name] = bytes_changed(members[name], chance)
    if chance.random() < 0.1:
        members.pop(chance.choice(list(members)))
    if chance.random() < 0.1:
        members[chance.choice(("../x", "/x", "a" * 300, "assets/x"))] = b"x"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    target.write_bytes(buffer.getvalue())


def variant(source: Path, folder: Path, chance: random.Random) -> Path:
    """A variant of ``source``, which is a file or a bundle, in ``folder``."""
    target = folder / source.name
    if source.is_dir():
        shutil.copytree(source, target)
        if chance.random() < 0.7:
            manifest = json.loads((target / MANIFEST).read_text())
            (target / MANIFEST).write_text(json.dumps(json_changed(manifest, chance)))
        else:
            file = chance.choice(sorted(target.iterdir()))
            file.write_bytes(bytes_changed(file.read_bytes(), chance))
        return target
    structured: dict[str, Callable[[Path, Path, random.Random], None]] = {
        ".h5": hdf5_changed,
        ".keras": zip_changed,
    }
    if source.suffix in structured and chance.random() < 0.6:
        try:
            structured[source.suffix](source, target, chance)
            return target
        except (OSError, ValueError, RuntimeError, KeyError, UnicodeError, zipfile.BadZipFile):
            pass  # what holds it together cannot hold this variant
    target.write_bytes(bytes_changed(source.read_bytes(), chance))
    return target


def examine(path: Path, host: ConversionWorker, light: Worker) -> str:
    """What edgeattn makes of ``path``: ``fine``, the error's class, or ``died``."""
    try:
        kind = kind_of(path)
        if kind == "bundle":
            bundle = Bundle.open(path)
            bundle.verify()
            bundle.reference()
        elif kind == "keras":
            arguments = {"source": {"path": str(path)}, "attempt_conversion": False}
            host.audit(path, None)
            host.call("inspect", arguments, activity=f"loading {path.name}", timeout=SECONDS)
        else:
            assert {read_tflite.__name__, read_onnx.__name__} == {"read_tflite", "read_onnx"}
            light.call(f"edgeattn.inspection:read_{kind}", {"path": str(path)}, timeout=SECONDS)
        return "fine"
    except (WorkerDied, ConversionError) as error:
        # Looking a file through is given up in time; loading what was looked through must end.
        return "hang" if "took longer" in error.message else "died"
    except EdgeattnError as error:
        return type(error).__name__ if error.exit_code != 70 else f"fault: {error.message}"


def fuzz(
    sources: list[Path], count: int, seed: int, *, keep: Path | None = None, budget: float = 1e9
) -> tuple[Counter[str], list[Finding]]:
    """Examine ``count`` variants: how they ended, and the findings.

    ``keep`` is a folder for the variants that are findings; ``budget`` the seconds after which no
    further variant is begun.
    """
    ended: Counter[str] = Counter()
    findings: list[Finding] = []
    start = time.monotonic()
    with (
        ConversionWorker() as host,
        Worker() as light,
        tempfile.TemporaryDirectory() as top,
    ):
        for number in range(seed, seed + count):
            if time.monotonic() - start > budget:
                break
            chance = random.Random(number)
            source = sources[number % len(sources)]
            folder = Path(top) / str(number)
            folder.mkdir()
            path = variant(source, folder, chance)
            before = _listing(Path(top))
            try:
                what = examine(path, host, light)
            except Exception as error:  # the very thing that is looked for
                what = f"fault: {type(error).__name__}: {error}"
            ended[what.split(":")[0]] += 1
            if _listing(Path(top)) != before:
                what = "fault: a file was written"
            if what.startswith(("fault", "hang")):
                findings.append(Finding(number, source.name, what))
                if keep is not None:
                    keep.mkdir(parents=True, exist_ok=True)
                    shutil.move(path, keep / f"{number}-{path.name}")
            shutil.rmtree(folder, ignore_errors=True)
    return ended, findings


def _listing(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


def specimens(folder: Path) -> list[Path]:
    """Real files: Keras models of several eras, the artifacts and the bundle of one of them."""
    from edgeattn_converters import convert

    bank = ROOT / "tests" / "specimens"
    found = sorted(bank.glob("*/*.h5"))[::7] + sorted(bank.glob("*/*.keras"))[::4]
    small = [path for path in found if path.stat().st_size < 60_000]
    digits = ROOT / "sample_models" / "digits" / "model.h5"
    bundle = convert(
        digits, folder / "model.edge", options=ConversionOptions(schemes=("float32",))
    ).bundle
    artifacts = [bundle.artifact_path(item) for item in bundle.manifest.artifacts]
    # Bundles and artifacts as often as Keras files, of which there are many.
    return [*small, *artifacts * 6, *[bundle.path] * 12]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=ROOT / ".out" / "fuzz")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        ended, findings = fuzz(
            specimens(Path(folder)), arguments.count, arguments.seed, keep=arguments.keep
        )
    for what, count in ended.most_common():
        print(f"{count:7}  {what}")
    for finding in findings:
        print(f"seed {finding.seed} of {finding.source}: {finding.what}")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
