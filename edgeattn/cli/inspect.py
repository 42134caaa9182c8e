"""``edgeattn inspect``"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from edgeattn.cli import options, output
from edgeattn.cli.artifact_lines import not_converted_line
from edgeattn.cli.command import Command
from edgeattn.cli.terminal import styled_line
from edgeattn.printable import counted, keras_name


@click.command("inspect", cls=Command)
@click.argument("path", type=options.PATH)
@options.model_loading
@options.limits_options(
    "Time limit for loading and converting the file.", "Memory limit of the process that does so."
)
@options.json_option
def command(path: Path, loading: options.ModelLoading, as_json: bool) -> int:
    """Describe PATH: a Keras file, a .tflite or .onnx file, or a bundle.

    For a Keras file: its version, inputs, outputs, layers and attention, whether it converts, and
    the command to run next. No code in the file is executed. The exit code is 3 if the file cannot
    be loaded.
    """
    from edgeattn.api.inspect import inspect

    with output.progress(as_json):
        result = inspect(
            path,
            custom_objects=loading.custom_objects,
            architecture=loading.architecture,
            signature=loading.signature,
            trust=loading.trust,
        )
    if as_json:
        output.emit_json(result.to_dict())
    else:
        lines = {"bundle": _bundle_lines, "keras": _keras_lines}.get(result.kind, _artifact_lines)
        output.echo(*lines(result.to_dict()))
    return result.exit_code


def _bundle_lines(bundle: dict[str, Any]) -> Iterator[str]:
    from edgeattn.bundle.manifest import Manifest

    model = bundle["model"]
    yield f"Bundle of {model['file']}, {counted(model['parameters'], 'parameter')}"
    for artifact in bundle["artifacts"][:1]:
        yield from _tensor_lines(artifact)
    attended = model.get("attended", {})
    yield from (f"attention  {name}{_inputs_of(inputs)}" for name, inputs in attended.items())
    rows = [
        [item["format"], item["scheme"], output.size(item["bytes"]), item["path"]]
        for item in bundle["artifacts"]
    ]
    yield output.table(["format", "scheme", "size", "path"], rows, right=(2,))
    edge_cases = bundle["reference"]["edge_cases"]
    samples = Manifest.from_json(bundle).reference_samples
    yield f"reference: {samples}, {counted(edge_cases, 'edge case')}"
    if bundle.get("config"):
        yield f"options from {bundle['config']['file']}: {', '.join(bundle['config']['options'])}"
    yield from (item["problem"] for item in bundle["artifacts"] if "problem" in item)
    yield from map(not_converted_line, bundle["failures"])


def _artifact_lines(artifact: dict[str, Any]) -> Iterator[str]:
    yield f"{artifact['file']}: {artifact['kind']}, {output.size(artifact['bytes'])}"
    yield from _tensor_lines(artifact)
    if artifact["operators"]:
        rows = [[name, str(count)] for name, count in artifact["operators"].items()]
        yield output.table(["operator", "count"], rows, right=(1,))
    yield from _lacking_lines(artifact)


def _keras_lines(model: dict[str, Any]) -> Iterator[str]:
    saved_by = keras_name(model["keras_version"] or "version unknown")
    yield f"{model['file']}: {model['kind']}, {output.size(model['bytes'])}, {saved_by}"
    yield f"SHA-256: {model['sha256']}"
    if not model["loads"]:
        yield from f"Cannot be loaded: {model['reason']}".splitlines()
        if model["next"]:
            yield str(model["next"])
        return
    yield from _tensor_lines(model)
    rows = [[item["name"], item["class"], f"{item['parameters']:,}"] for item in model["layers"]]
    yield output.table(["layer", "class", "parameters"], rows, right=(2,))
    yield counted(model["parameters"], "parameter")
    attended = model["attended"]
    maps = (f"{name}{_inputs_of(attended.get(name))}" for name in model["attention"])
    yield f"attention: {', '.join(maps) or 'none'}"
    for item in model["attention_doubtful"]:
        remedy = f" (export it with convert --attention {item['layer']})" * item["exportable"]
        yield f"possible attention: {item['layer']}: {item['reason']}{remedy}"
    if model["custom_classes"]:
        yield f"custom classes: {', '.join(model['custom_classes'])}"
    yield from (styled_line(f"note: {note}") for note in model["notes"])
    yield from (f"conversion: {item}" for item in model["meets"])
    yield from (f"converts to {name}: {answer}" for name, answer in model["converts"].items())
    yield from _lacking_lines(model)
    convertible = not model["converts"] or "yes" in model["converts"].values()
    if convertible:
        yield styled_line(f"next: {model['next']}")
    elif model["next"]:
        yield str(model["next"])


def _lacking_lines(document: dict[str, Any]) -> Iterator[str]:
    """What would keep the model from microcontrollers and accelerators."""
    for name, operators in document.get("lacking", {}).items():
        text = f"lacks {', '.join(operators)}" if operators else "has every operator"
        yield f"{name}: {text} (by its published list, not tested on hardware)"
    for name, reason in document.get("not_compared", {}).items():
        yield f"{name}: not compared, because {reason}"
    for kind in document.get("float_only", ()):
        yield f"--integer-only: {kind} has no integer form: {document['remedies'][kind]}"


def _inputs_of(attended: dict[str, list[str]] | None) -> str:
    """The inputs at the keys and queries of an attention map; empty if they are unknown."""
    if attended is None:
        return ""
    keys, queries = (", ".join(attended[axis]) for axis in ("keys", "queries"))
    if keys == queries:
        return f" (keys and queries from {keys})"
    return f" (keys from {keys}{f', queries from {queries}' * bool(queries)})"


def _tensor_lines(document: dict[str, Any]) -> Iterator[str]:
    for title in ("input", "output"):
        for spec in document[f"{title}s"]:
            axes = ", ".join("?" if axis is None else str(axis) for axis in spec["shape"])
            yield f"{title:6}  {spec['name']} ({axes}) {spec['dtype']}"
