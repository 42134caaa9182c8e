"""The entries of the manifest that describe a model."""

import re
from collections.abc import Collection, Sequence
from typing import Any

from edgeattn.printable import enumerated
from edgeattn_converters.lowering.call_replacement import all_layers
from edgeattn_converters.options import ConversionOptions
from edgeattn_converters.quantization.layer_weights import recurrent_layers
from edgeattn_converters.tracing.attention_outputs import PREFIX
from edgeattn_converters.tracing.trace import Interface
from edgeattn_converters.worker import early_checks
from edgeattn_converters.worker.open_model import OpenModel

# Of a further map of a layer, or a further layer of a class.
_NUMBER = re.compile(r"_\d+$")


def description(opened: OpenModel, options: ConversionOptions) -> dict[str, Any]:
    """The entries for a loaded model, and ``notes`` for the user."""
    file, model, interface = opened.loaded.file, opened.model, opened.interface
    recurrent = recurrent_layers(model)
    early_checks.check_lowering(options.lowering, recurrent=bool(recurrent))
    doubtful: list[str] = []
    if options.attention:
        layers = [layer.name for layer in all_layers(model)]
        maps = [spec.name.removeprefix(PREFIX) for spec in interface.attention]
        doubtful = [*_attention_notes(interface), *_numbered_maps(maps, layers)]
    return {
        "name": str(getattr(model, "name", "model")),
        "file": file.path.name,
        "sha256": file.sha256,
        "bytes": file.size,
        "kind": file.kind,
        "keras_version": file.keras_version,
        "era": "keras3",
        "parameters": int(model.count_params()),
        "inputs": [spec.to_json() for spec in interface.inputs],
        "outputs": [spec.to_json() for spec in interface.outputs],
        "attention": [spec.to_json() for spec in interface.attention],
        # Whether the files have these maps as outputs.
        "attention_outputs": options.attention,
        # The inputs at the keys and queries of each map, if the graph shows them.
        "attended": {
            item.map: {"keys": list(item.keys), "queries": list(item.queries)}
            for item in interface.attended
        },
        # By the name of an input, the input of the stored model ahead of removed layers.
        **({"stored_inputs": stored} if (stored := opened.loaded.stored_inputs) else {}),
        # The chosen signature of a SavedModel folder, with which data are computed later.
        **({"signature": file.signature} if file.signature else {}),
        # Layers whose steps --lowering arranges.
        "recurrent": list(recurrent),
        "notes": [*opened.loaded.notes, *_precision_notes(interface), *doubtful],
    }


def _precision_notes(interface: Interface) -> list[str]:
    if not interface.half:
        return []
    names = enumerated(interface.half)
    return [
        f"Parts of the model compute in {names} in Keras. Files compute them in float32, and are "
        "compared with what Keras computes in float32."
    ]


def _attention_notes(interface: Interface) -> list[str]:
    """Notes on the layers that may be attention but whose map is not exported, one a reason.

    A layer that is called several times is named once.
    """
    layers: dict[tuple[str, bool], list[str]] = {}
    for item in interface.doubtful:
        names = layers.setdefault((item.reason, item.exportable), [])
        if item.layer not in names:
            names.append(item.layer)
    return [
        f"{first} may be attention, but its map is not exported: {reason}."
        + (f" To export it, pass --attention {first}." if exportable else "")
        + (f" The same holds for {enumerated(others)}." if others else "")
        for (reason, exportable), (first, *others) in layers.items()
    ]


def _numbered_maps(maps: Sequence[str], layers: Collection[str]) -> list[str]:
    """A note on maps whose names look like those of other layers, empty if there are none.

    Further maps of a layer have a number behind its name, and so have layers of one class.
    """
    owners = {name: _NUMBER.sub("", name) for name in maps if name not in layers}
    further = {name: layer for name, layer in owners.items() if layer in layers}
    alike = {_NUMBER.sub("", name) for name in layers if _NUMBER.search(name)}
    if not any(_NUMBER.sub("", layer) in alike for layer in further.values()):
        return []
    by_layer: dict[str, list[str]] = {}
    for name, layer in further.items():
        by_layer.setdefault(layer, []).append(name)
    listed = [f"{enumerated(names)} of the layer {layer}" for layer, names in by_layer.items()]
    return [f"Further maps of a layer have a number: {'; '.join(listed)}."]
