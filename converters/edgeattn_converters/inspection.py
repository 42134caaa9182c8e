"""What a model file holds, and what its conversion will meet."""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgeattn import progress
from edgeattn.errors import EdgeattnError, UnsupportedModelError, UsageError
from edgeattn.schemes import FORMATS
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import LoadedModel, load_model
from edgeattn_converters.lowering.replacement import all_layers
from edgeattn_converters.lowering.rnn.cells import is_recurrent
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.attention_outputs import PREFIX, is_attention
from edgeattn_converters.tracing.trace import dtype_of, interface_of, layer_name


def inspect(
    path: str,
    *,
    custom_objects: str | None = None,
    architecture: str | None = None,
    trust: str | None = None,
    trial: bool = True,
) -> dict[str, Any]:
    """What ``edgeattn inspect`` tells of a Keras file.

    A file that is no model, or is refused as unsafe, raises as it does when it is converted. One
    that is a model but cannot be loaded as it is has ``loads`` false and the reason.
    ``trial`` converts the model to each format in float32: the only way to know whether it can be.
    """
    file = audit_file(Path(path), trust=trust)
    found: dict[str, Any] = {
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
        loaded = load_model(
            file,
            custom_objects=None if custom_objects is None else Path(custom_objects),
            architecture=architecture,
            allow_free_time=True,
        )
    except UsageError as error:
        # Something is to be said with a flag: the error names it.
        return {**found, "loads": False, "reason": error.message, "next": error.hint}
    except EdgeattnError as error:
        if error.exit_code != 3:
            raise
        return {**found, "loads": False, "reason": error.message, "next": error.hint}
    return {**found, **_described(loaded, path, trial=trial)}


def _described(loaded: LoadedModel, path: str, *, trial: bool) -> dict[str, Any]:
    model = loaded.model
    layers = all_layers(model)
    free = [tensor for tensor in model.inputs if None in tuple(tensor.shape)[1:]]
    meets = []
    if free:
        meets.append("a free time axis: fixed with --time-steps N, or by --samples")
    if any(_masks(layer) for layer in layers):
        meets.append("masks: steps of padding are left out, as Keras does it")
    stateful = [layer.name for layer in layers if getattr(layer, "stateful", False)]
    if stateful:
        meets.append(f"stateful layers: {', '.join(stateful)}")
    policies = {str(layer.compute_dtype) for layer in layers} - {"float32", "None"}
    if policies:
        meets.append(f"layers that compute in {', '.join(sorted(policies))}")
    steps = " --time-steps N" if free else ""
    return {
        "era": "keras3",
        "parameters": int(model.count_params()),
        "inputs": [_tensor(tensor) for tensor in model.inputs],
        "outputs": [_tensor(tensor) for tensor in model.outputs],
        "layers": list(_outline(model)),
        **_attention(model, free=bool(free)),
        "recurrent": [layer.name for layer in layers if is_recurrent(layer)],
        "custom_classes": sorted({type(layer).__name__ for layer in layers if _custom(layer)}),
        "notes": list(loaded.notes),
        "meets": meets,
        "converts": _trial(loaded.model) if trial and not free else {},
        "next": f"edgeattn convert {path}{steps}",
    }


def _attention(model: Any, *, free: bool) -> dict[str, Any]:
    """Layers whose maps are told, and those that may have one which is not."""
    known = [layer.name for layer in all_layers(model) if is_attention(layer)]
    if free:
        # Without its length a model cannot be traced: only what layers are called is known.
        return {"attention": known, "attention_doubtful": []}
    interface = interface_of(model)
    named = [spec.name.removeprefix(PREFIX) for spec in interface.attention]
    return {
        "attention": list(dict.fromkeys([*known, *named])),
        "attention_doubtful": [item._asdict() for item in interface.doubtful],
    }


def _trial(model: Any) -> dict[str, str]:
    """Whether each format can be made, found out by making it: ``yes``, or why not."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for format in FORMATS:
            progress.report(f"trying {format}")
            converter = importlib.import_module(f"edgeattn_converters.formats.{format}")
            try:
                path = Path(folder) / f"model.{format}"
                converter.convert(model, interface_of(model), recipe_for("float32"), path)
                found[format] = "yes"
            except UnsupportedModelError as error:
                found[format] = error.message
    return found


def _tensor(tensor: Any) -> dict[str, Any]:
    return {
        "name": layer_name(tensor),
        "shape": list(tensor.shape),
        "dtype": dtype_of(tensor),
    }


def _outline(model: Any, inside: str = "") -> Iterator[dict[str, Any]]:
    """The layers as their author placed them: those of nested models too, no cells and the like."""
    for layer in model.layers:
        name = f"{inside}{layer.name}"
        parameters = int(layer.count_params()) if layer.built else 0
        yield {"name": name, "class": type(layer).__name__, "parameters": parameters}
        if hasattr(layer, "layers"):
            yield from _outline(layer, f"{name}/")


def _masks(layer: Any) -> bool:
    kind = type(layer).__name__
    return kind == "Masking" or bool(kind == "Embedding" and layer.mask_zero)


def _custom(layer: Any) -> bool:
    return type(layer).__module__.split(".")[0] not in (
        "keras",
        "tf_keras",
        "edgeattn",
        "edgeattn_converters",
    )
