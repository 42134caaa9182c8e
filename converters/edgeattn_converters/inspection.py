"""The contents of a Keras file, and what to expect of its conversion."""

import functools
import importlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgeattn import progress
from edgeattn.errors import EdgeattnError, UnsupportedModelError, UsageError
from edgeattn.file_structure.tflite import read_tflite
from edgeattn.printable import Text, printable
from edgeattn.runners.accelerators import NOT_COMPARED, missing_operators
from edgeattn.schemes import FORMATS
from edgeattn_converters.keras_classes import creates_mask, derives_from, is_stateful
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.fixed_time_axis import options_for
from edgeattn_converters.loading.load import load_with_free_time
from edgeattn_converters.loading.loaded_model import LoadedModel
from edgeattn_converters.lowering.call_replacement import all_layers, replaced_calls
from edgeattn_converters.lowering.rnn.recurrence import is_recurrent
from edgeattn_converters.options import ModelSource
from edgeattn_converters.quantization.float_only import float_only_operators
from edgeattn_converters.quantization.integer_only import cure_of
from edgeattn_converters.quantization.layer_weights import recurrent_layers
from edgeattn_converters.quantization.micro_rewrites import rewrite
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.reference.edge_cases import SEED
from edgeattn_converters.reference.plausible_inputs import plausible_inputs
from edgeattn_converters.reference.traced_values import check_rows
from edgeattn_converters.tracing import architecture_outputs, joined_batch
from edgeattn_converters.tracing.attention_outputs import PREFIX, is_attention
from edgeattn_converters.tracing.keras_call import dtype_of, layer_name, named_outputs
from edgeattn_converters.tracing.trace import Interface, interface_of, trace


def inspect(source: ModelSource, *, attempt_conversion: bool = True) -> dict[str, Any]:
    """The document of ``edgeattn inspect`` for a Keras file.

    If the model cannot be loaded as it is, ``loads`` is false and ``reason`` says why.
    ``attempt_conversion`` converts it to each format in float32, the only way to know whether that
    works. Raises like a conversion if the file is no model or is refused as unsafe.
    """
    file = audit_file(Path(source.path), trust=source.trust, signature=source.signature)
    document: dict[str, Any] = {
        "kind": file.kind,
        "file": file.path.name,
        "bytes": file.size,
        "sha256": file.sha256,
        "keras_version": file.keras_version,
        "backend": file.backend,
        "loads": True,
        "reason": None,
    }
    try:
        loaded = load_with_free_time(file, source)
    except EdgeattnError as error:
        # A usage error names the option that is missing.
        if not isinstance(error, UsageError) and error.exit_code != 3:
            raise
        message = error.message
        # The only line feeds of the reason are edgeattn's own.
        reason = str(message) if isinstance(message, Text) else printable(message)
        return {**document, "loads": False, "reason": reason, "next": error.hint}
    return {**document, **_description(loaded, source, attempt_conversion)}


def _description(
    loaded: LoadedModel, source: ModelSource, attempt_conversion: bool
) -> dict[str, Any]:
    model = loaded.model
    layers = all_layers(model)
    shapes = {layer_name(tensor): tuple(tensor.shape) for tensor in model.inputs}
    shapes = {name: shape for name, shape in shapes.items() if None in shape[1:]}
    free, sizes = bool(shapes), options_for(shapes) if shapes else ""
    inputs = [_tensor(layer_name(tensor), tensor) for tensor in model.inputs]
    # Without a sequence length the model cannot be traced, so only layer classes are known.
    with architecture_outputs.explained(model, source.architecture):
        interface = None if free else interface_of(model)
    called = _called_layers(model)
    attempts, hints = _attempts(model, interface if attempt_conversion else None)
    return {
        "era": "keras3",
        "parameters": int(model.count_params()),
        "inputs": inputs,
        "outputs": [_tensor(*item) for item in _outputs(model, [i["name"] for i in inputs])],
        "layers": list(_outline(model)),
        **_attention(called, interface),
        "recurrent": [layer.name for layer in called if is_recurrent(layer)],
        "custom_classes": sorted({type(layer).__name__ for layer in layers if _is_custom(layer)}),
        "notes": list(loaded.notes),
        "meets": list(_properties(layers, sizes)),
        **attempts,
        "next": _next_step(source, sizes, attempts["converts"], hints),
    }


def _next_step(
    source: ModelSource, sizes: str, converts: Mapping[str, str], hints: Sequence[str]
) -> str | None:
    """The command that converts the model, or what to change if it converts to no format."""
    possible = [format for format, answer in converts.items() if answer == "yes"]
    if converts and not possible:
        return " ".join(dict.fromkeys(hints)) or None
    formats = f"--format {possible[0]}" if converts and len(possible) < len(converts) else ""
    return " ".join(filter(None, (source.command("convert"), sizes, formats)))


def _properties(layers: list[Any], sizes: str) -> Iterator[str]:
    """Properties of the model that matter to its conversion.

    ``sizes`` are the options that determine free axes, if there are any.
    """
    if sizes:
        kind = "sequence length" if "--time-steps" in sizes else "shape"
        yield f"a free {kind}: pass {sizes} or --samples"
    if any(map(creates_mask, layers)):
        yield "masks: padded steps are skipped, as in Keras"
    stateful = [layer.name for layer in layers if is_stateful(layer)]
    if stateful:
        yield f"stateful layers: {', '.join(stateful)}"
    dtypes = {str(layer.compute_dtype) for layer in layers} - {"float32", "None"}
    if dtypes:
        yield f"layers that compute in {', '.join(sorted(dtypes))}"


def _called_layers(model: Any) -> list[Any]:
    """The attention and recurrent layers that a call of the model uses.

    A class may create others. All of them if Keras cannot call the model with its inputs.
    """
    from keras.src.backend import compute_output_spec

    called: set[int] = set()

    def recording(layer: Any) -> Callable[..., Any] | None:
        original = layer.call if is_attention(layer) or is_recurrent(layer) else None
        if original is None:
            return None

        @functools.wraps(original)
        def call(*args: Any, **kwargs: Any) -> Any:
            called.add(id(layer))
            return original(*args, **kwargs)

        return call

    layers = [layer for layer in all_layers(model) if is_attention(layer) or is_recurrent(layer)]
    try:
        with replaced_calls(model, recording):
            compute_output_spec(model.call, getattr(model, "_inputs_struct", model.inputs))
    except Exception:  # the attempts to convert report why
        return layers
    return [layer for layer in layers if id(layer) in called]


def _attention(called: Sequence[Any], interface: Interface | None) -> dict[str, Any]:
    """Layers whose maps are exported, the inputs of these, and layers that may have another map.

    ``called`` are layers that a call of the model uses.
    """
    known = [layer.name for layer in called if is_attention(layer)]
    if interface is None:
        return {"attention": known, "attended": {}, "attention_doubtful": []}
    exported = [spec.name.removeprefix(PREFIX) for spec in interface.attention]
    return {
        "attention": list(dict.fromkeys([*known, *exported])),
        "attended": {
            item.map.removeprefix(PREFIX): {"keys": list(item.keys), "queries": list(item.queries)}
            for item in interface.attended
        },
        "attention_doubtful": [
            {"layer": item.layer, "reason": item.reason, "exportable": item.exportable}
            for item in interface.doubtful
        ],
    }


def _attempts(model: Any, interface: Interface | None) -> tuple[dict[str, Any], list[str]]:
    """What attempts to convert show, and the hints of those that fail; none without ``interface``.

    ``converts`` is ``yes`` for each format to which the model converts, or the reason why it does
    not. ``lacking`` are the operators that microcontrollers and accelerators lack, and
    ``float_only`` those that have no integer form, with ``remedies``.
    """
    hints: list[str] = []
    results: dict[str, str] = {}
    document: dict[str, Any] = {"converts": results, "lacking": {}, "float_only": []}
    document |= {"remedies": {}, "not_compared": {}}
    if interface is None:
        return document, hints
    with tempfile.TemporaryDirectory() as folder:
        for format in FORMATS:
            progress.report(f"converting to {format} float32")
            converter = importlib.import_module(f"edgeattn_converters.formats.{format}")
            try:
                path = Path(folder) / f"model.{format}"
                _check_rows(model, interface)
                converter.convert(model, interface, recipe_for("float32"), path)
                results[format] = "yes"
                if format == "tflite":
                    file = rewrite(path.read_bytes())
                    document["lacking"] = missing_operators(read_tflite(file).operators)
                    document["not_compared"] = NOT_COMPARED
                    kinds = float_only_operators(file, recurrent_layers(model))
                    document["float_only"] = kinds
                    document["remedies"] = {kind: cure_of(kind) for kind in kinds}
            except UnsupportedModelError as error:
                results[format] = error.message
                hints += [error.hint] if error.hint else []
    return document, hints


def _check_rows(model: Any, interface: Interface) -> None:
    """Raise the error of the reference for values that do not have one row for each sample."""
    traced = trace(model, interface, batch=None, attention=True, freeze=False)
    with joined_batch.explained(model, interface.inputs):
        check_rows(traced, plausible_inputs(model, interface, np.random.default_rng(SEED)))


def _tensor(name: str, tensor: Any) -> dict[str, Any]:
    return {"name": name, "shape": list(tensor.shape), "dtype": dtype_of(tensor)}


def _outputs(model: Any, taken: list[str]) -> Iterator[tuple[str, Any]]:
    """The outputs with the names that they have in a bundle."""
    nested = getattr(model, "_outputs_struct", None)
    return named_outputs(model, model.outputs if nested is None else nested, taken)


def _outline(model: Any, prefix: str = "") -> Iterator[dict[str, Any]]:
    """The layers of the model and of nested models, without cells and other inner layers."""
    for layer in model.layers:
        name = f"{prefix}{layer.name}"
        parameters = int(layer.count_params()) if layer.built else 0
        yield {"name": name, "class": type(layer).__name__, "parameters": parameters}
        if derives_from(layer, "Model"):
            yield from _outline(layer, f"{name}/")


def _is_custom(layer: Any) -> bool:
    package = type(layer).__module__.split(".")[0]
    return package not in ("keras", "tf_keras", "edgeattn", "edgeattn_converters")
