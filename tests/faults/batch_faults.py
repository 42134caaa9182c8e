"""Faults that show only in batches of several samples: a single sample gives the right result."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import helper

from .fault import ATTENTION, NUMBERS
from .onnx_faults import add_constant, nodes, onnx_fault, replace_output


def _take_first(inner: str, name: str, graph: Any) -> list[Any]:
    """Every sample of the batch gets the result of the first."""
    zero = add_constant(graph, f"{name}/row", np.array([0], np.int64))
    none = add_constant(graph, f"{name}/none", np.array(0.0, np.float32))
    return [
        helper.make_node("Gather", [inner, zero], [f"{name}/first"], axis=0),
        helper.make_node("Mul", [inner, none], [f"{name}/zeros"]),
        helper.make_node("Add", [f"{name}/zeros", f"{name}/first"], [name]),
    ]


def _rolled(inner: str, name: str, graph: Any, result: str) -> list[Any]:
    """The results of the previous samples of the batch, as ``result``."""
    begin, last, end = (
        add_constant(graph, f"{name}/{key}", np.array([value], np.int64))
        for key, value in (("begin", 0), ("last", -1), ("end", 2**31))
    )
    return [
        helper.make_node("Slice", [inner, last, end, begin], [f"{name}/tail"]),
        helper.make_node("Slice", [inner, begin, last, begin], [f"{name}/head"]),
        helper.make_node("Concat", [f"{name}/tail", f"{name}/head"], [result], axis=0),
    ]


def _take_previous(inner: str, name: str, graph: Any) -> list[Any]:
    return _rolled(inner, name, graph, name)


def _mix_with_previous(inner: str, name: str, graph: Any) -> list[Any]:
    """80% of the own result and 20% of that of the previous sample of the batch."""
    most = add_constant(graph, f"{name}/most", np.array(0.8, np.float32))
    rest = add_constant(graph, f"{name}/rest", np.array(0.2, np.float32))
    return [
        *_rolled(inner, name, graph, f"{name}/rolled"),
        helper.make_node("Mul", [inner, most], [f"{name}/own"]),
        helper.make_node("Mul", [f"{name}/rolled", rest], [f"{name}/other"]),
        helper.make_node("Add", [f"{name}/own", f"{name}/other"], [name]),
    ]


def _zero_from_sample_32(inner: str, name: str, graph: Any) -> list[Any]:
    """A buffer of 32 samples: the results of those beyond it are zero."""
    start = add_constant(graph, f"{name}/start", np.array(0, np.int64))
    step = add_constant(graph, f"{name}/step", np.array(1, np.int64))
    size = add_constant(graph, f"{name}/size", np.array(32, np.int64))
    axis = add_constant(graph, f"{name}/axis", np.array([1], np.int64))
    return [
        helper.make_node("Shape", [inner], [f"{name}/shape"], end=1),
        helper.make_node("Squeeze", [f"{name}/shape"], [f"{name}/count"]),
        helper.make_node("Range", [start, f"{name}/count", step], [f"{name}/rows"]),
        helper.make_node("Less", [f"{name}/rows", size], [f"{name}/fits"]),
        helper.make_node("Cast", [f"{name}/fits"], [f"{name}/factor"], to=1),
        helper.make_node("Unsqueeze", [f"{name}/factor", axis], [f"{name}/column"]),
        helper.make_node("Mul", [inner, f"{name}/column"], [name]),
    ]


def _single_sample(inner: str, name: str, graph: Any) -> list[Any]:
    """A shape with a batch of one, which the converter took from a single example."""
    shape = add_constant(graph, f"{name}/single", np.array([1, 4], np.int64))
    return [helper.make_node("Reshape", [inner, shape], [name])]


def _take_first_mask(graph: Any) -> None:
    """The padding of the first sequence masks all sequences of the batch."""
    node = nodes(graph, "Equal")[0]
    mask, node.output[0] = node.output[0], "own_mask"
    zero = add_constant(graph, "first_row", np.array([0], np.int64))
    nothing = add_constant(graph, "nothing", np.array(False))
    position = list(graph.node).index(node) + 1
    for inserted in (
        helper.make_node("Or", ["no_mask", "first_mask"], [mask]),
        helper.make_node("And", ["own_mask", nothing], ["no_mask"]),
        helper.make_node("Gather", ["own_mask", zero], ["first_mask"], axis=0),
    ):
        graph.node.insert(position, inserted)


BATCH_FAULTS = [
    onnx_fault(
        "every sample of a batch gets the first one's output",
        "watcher",
        NUMBERS,
        replace_output("answer", _take_first),
        only=True,
    ),
    onnx_fault(
        "20% of the previous sample of a batch",
        "watcher",
        NUMBERS,
        replace_output("answer", _mix_with_previous),
        only=True,
    ),
    onnx_fault(
        "20% of the previous sample of a batch",
        "digits",
        NUMBERS,
        replace_output("dense", _mix_with_previous),
        scheme="dynamic_int8",
        only=True,
    ),
    onnx_fault(
        "outputs of a batch shifted by one sample",
        "counter",
        NUMBERS,
        replace_output("answer", _take_previous),
        only=True,
    ),
    onnx_fault(
        "maps of a batch shifted by one sample",
        "heads",
        ATTENTION,
        replace_output("attention/look", _take_previous),
        only=True,
    ),
    onnx_fault(
        "samples beyond 32 of a batch are zero",
        "reader",
        NUMBERS,
        replace_output("answer", _zero_from_sample_32),
        only=True,
    ),
    onnx_fault(
        "padding of a batch's first sequence masks all", "reader", NUMBERS, _take_first_mask
    ),
    onnx_fault(
        "shape of a single sample", "watcher", NUMBERS, replace_output("answer", _single_sample)
    ),
]
