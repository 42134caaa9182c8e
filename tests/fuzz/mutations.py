"""Seeded random changes of files: of bytes, JSON documents, zip archives and HDF5 files."""

from __future__ import annotations

import io
import json
import random
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from edgeattn.bundle.manifest import MANIFEST

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


def mutate_in_place(data: bytes, generator: random.Random) -> bytes:
    """Return the bytes with one to three numbers of one, two or four bytes replaced."""
    result = bytearray(data)
    for _ in range(generator.choice((1, 1, 2, 3))):
        position = generator.randrange(len(result))
        size = generator.choice((1, 1, 2, 4))
        old = int.from_bytes(result[position : position + size], "little")
        match generator.randrange(4):
            case 0:
                new = old ^ 1 << generator.randrange(8 * size)
            case 1:
                new = generator.getrandbits(8 * size)
            case 2:
                new = old + generator.choice((-1, 1))
            case _:
                new = int(generator.choice(EXTREMES[:-1]))
        number = (new % 256**size).to_bytes(size, "little")
        result[position : position + size] = number[: len(result) - position]
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
    target.write_bytes(mutate_members(source.read_bytes(), generator))


def mutate_members(data: bytes, generator: random.Random) -> bytes:
    """A zip archive with a mutated member, or another list of members; checksums are right."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        compression = archive.infolist()[0].compress_type
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
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


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
