"""``edgeattn inspect``"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from edgeattn.cli import options, output


@click.command("inspect")
@click.argument("path", type=options.PATH)
@options.loading_options
@options.json_option
def command(
    path: Path,
    custom_objects: Path | None,
    architecture: str | None,
    trust: str | None,
    as_json: bool,
) -> int:
    """Say what is in PATH: a Keras file, a .tflite or .onnx file, or a bundle.

    Of a Keras file: its era, inputs, outputs, layers and attention, what a conversion will meet,
    and the command to run next. Nothing in the file is executed.
    """
    from edgeattn import inspection

    kind = inspection.kind_of(path)
    if kind == inspection.BUNDLE:
        found, lines = inspection.inspect_bundle(path), _bundle
    elif kind == inspection.KERAS:
        found = inspection.inspect_keras(
            path, custom_objects=custom_objects, architecture=architecture, trust=trust
        )
        lines = _keras
    else:
        found, lines = inspection.inspect_artifact(path, kind), _artifact
    if as_json:
        output.emit_json(found)
    else:
        click.echo("\n".join(lines(found)))
    return 0


def _bundle(found: dict[str, Any]) -> Iterator[str]:
    model = found["model"]
    yield f"Bundle of {model['file']}, {model['parameters']:,} parameters"
    for first in found["artifacts"][:1]:
        yield from _ends(first)
    rows = [
        [item["format"], item["scheme"], output.size(item["bytes"]), item["path"]]
        for item in found["artifacts"]
    ]
    yield output.table(["format", "scheme", "size", "path"], rows, right=(2,))
    yield from (f"{f['format']} {f['scheme']}: {f['reason']}" for f in found["failures"])


def _artifact(found: dict[str, Any]) -> Iterator[str]:
    yield f"{found['file']}: {found['kind']}, {output.size(found['bytes'])}"
    yield from _ends(found)
    if found["operators"]:
        rows = [[name, str(count)] for name, count in found["operators"].items()]
        yield output.table(["operator", "count"], rows, right=(1,))


def _keras(found: dict[str, Any]) -> Iterator[str]:
    version = found["keras_version"] or "of an unknown version"
    yield f"{found['file']}: {found['kind']}, {output.size(found['bytes'])}, Keras {version}"
    yield f"sha256  {found['sha256']}"
    if not found["loads"]:
        yield f"Cannot be loaded as it is: {found['reason']}"
        if found["next"]:
            yield str(found["next"])
        return
    yield from _ends(found)
    rows = [[item["name"], item["class"], f"{item['parameters']:,}"] for item in found["layers"]]
    yield output.table(["layer", "class", "parameters"], rows, right=(2,))
    yield f"{found['parameters']:,} parameters"
    yield f"attention: {', '.join(found['attention']) or 'none found'}"
    for item in found["attention_doubtful"]:
        tell = f" (convert --attention {item['layer']} tells its map)" * item["can_be_told"]
        yield f"may be attention: {item['layer']}: {item['why']}{tell}"
    if found["custom_classes"]:
        yield f"classes of your own: {', '.join(found['custom_classes'])}"
    yield from (f"note: {note}" for note in found["notes"])
    yield from (f"conversion meets {item}" for item in found["meets"])
    yield from (f"converts to {name}: {answer}" for name, answer in found["converts"].items())
    yield f"next: {found['next']}"


def _ends(found: dict[str, Any]) -> Iterator[str]:
    for title in ("input", "output"):
        for spec in found[f"{title}s"]:
            axes = ", ".join("?" if axis is None else str(axis) for axis in spec["shape"])
            yield f"{title:6}  {spec['name']} ({axes}) {spec['dtype']}"
