"""Files of another kind than the manifest says, which compute the right outputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from edgeattn.bundle.manifest import Artifact

from .fault import STRUCTURE, Fault
from .onnx_faults import onnx_fault
from .tflite_faults import operators, tflite_fault


def _other_file(name: str, source: str, scheme: str, format: str, **more: Any) -> Fault:
    """The file of the scheme ``source`` in the entry of ``scheme``."""
    return Fault(
        name, "digits", STRUCTURE, format=format, scheme=scheme, source=source, only=True, **more
    )


def _label_as_int8(artifact: Artifact, _: bytes) -> Artifact:
    return replace(artifact, scheme="int8")


def _without_map(artifact: Artifact, _: bytes) -> Artifact:
    maps = artifact.attention
    outputs = tuple(spec for spec in artifact.outputs if spec.name not in maps)
    return replace(artifact, outputs=outputs, attention=())


def _remove_map(graph: Any) -> None:
    kept = [value for value in graph.output if not value.name.startswith("attention/")]
    del graph.output[:]
    graph.output.extend(kept)


def _remove_map_from_tflite(model: Any) -> None:
    graph = model.subgraphs[0]
    names = [graph.tensors[index].name for index in graph.outputs]
    kept = [k for k, name in enumerate(names) if not name.startswith(b"attention/")]
    graph.outputs = [graph.outputs[k] for k in kept]
    for signature in model.signatureDefs or []:
        signature.outputs = [
            entry for entry in signature.outputs if not entry.name.startswith(b"attention/")
        ]


def _fix_batch(graph: Any) -> None:
    """A file for one sample, although the manifest promises any number."""
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1


def _rename_signature(model: Any) -> None:
    """Programs that use the signature would get the outputs of each other."""
    first, second = model.signatureDefs[0].outputs[:2]
    first.name, second.name = second.name, first.name


def _add_variable(model: Any) -> None:
    """Make an intermediate tensor a variable, which a runtime keeps between calls."""
    graph = model.subgraphs[0]
    graph.tensors[int(operators(model, "SOFTMAX")[0].inputs[0])].isVariable = True


def _listed(key: str, name: str, number: int) -> Callable[[Artifact, bytes], Artifact]:
    def entry(artifact: Artifact, _: bytes) -> Artifact:
        counts = {**artifact.achieved[key], name: number}
        return replace(artifact, achieved={**artifact.achieved, key: counts})

    return entry


STRUCTURE_FAULTS = [
    Fault(
        "float32 file labelled int8",
        "digits",
        STRUCTURE,
        lambda c: c,
        format="tflite",
        entry=_label_as_int8,
    ),
    *(
        fault
        for format in ("tflite", "onnx")
        for fault in (
            _other_file(
                "float32 file with name and counts of int8",
                "float32",
                "int8",
                format,
                recounted=False,
            ),
            _other_file("float32 file in place of int16x8", "float32", "int16x8", format),
            _other_file("float32 file in place of float16", "float32", "float16", format),
            _other_file("float32 file in place of dynamic_int8", "float32", "dynamic_int8", format),
            _other_file("float16 file in place of dynamic_int8", "float16", "dynamic_int8", format),
            _other_file("dynamic_int8 file in place of int8", "dynamic_int8", "int8", format),
        )
    ),
    onnx_fault(
        "attention map missing", "watcher", STRUCTURE, _remove_map, entry=_without_map, only=True
    ),
    tflite_fault(
        "attention map missing",
        "watcher",
        STRUCTURE,
        _remove_map_from_tflite,
        entry=_without_map,
        only=True,
    ),
    onnx_fault("batch fixed at 1", "watcher", STRUCTURE, _fix_batch),
    tflite_fault("names swapped in the signature", "pair", STRUCTURE, _rename_signature, only=True),
    tflite_fault("variable tensor", "watcher", STRUCTURE, _add_variable),
    Fault(
        "wrong number of int8 weights in the manifest",
        "digits",
        STRUCTURE,
        format="onnx",
        scheme="int8",
        entry=_listed("weights", "int8", 27_000),
        only=True,
    ),
    Fault(
        "wrong number of operators in the manifest",
        "digits",
        STRUCTURE,
        format="tflite",
        scheme="dynamic_int8",
        entry=_listed("operators", "SOFTMAX", 9),
        only=True,
    ),
]
