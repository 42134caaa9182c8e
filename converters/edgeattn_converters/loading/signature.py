"""SavedModels without Keras layers, such as those of ``model.export``: their signature as a model.

The graph is all that such a folder contains, so its functions have to run. They may consist of
operations that compute on tensors only; nothing is loaded before all of them are known to.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgeattn.errors import UnsafeModelError, UnsupportedModelError
from edgeattn.printable import counted
from edgeattn_converters.loading.build import root_cause
from edgeattn_converters.loading.fixed_time_axis import (
    TimeSteps,
    free_axes_error,
    length_of,
    with_sizes,
)
from edgeattn_converters.loading.formats.saved_model import SAVE_AS_FILE
from edgeattn_converters.loading.signature_layer import signature_layer

DEFAULT = "serving_default"
STRING = 7  # DT_STRING of tensorflow.DataType
# Operations with a state that stays in the graph: variables, control flow, and random numbers.
_STATEFUL = re.compile(
    r"(Stateful|Stateless)?PartitionedCall|(Stateless)?(While|If|Case)|VarHandleOp|"
    r"ReadVariableOp|ResourceGather(Nd)?|Assign(Add|Sub)?VariableOp|VarIsInitializedOp|"
    r"NoOp|Placeholder|Assert|CheckNumerics(V2)?|Random\w+|TruncatedNormal|Multinomial|"
    r"Tensor(List|Array)\w*|CudnnRNN\w*"
)
_ASSIGNMENT = re.compile(r"Assign(Add|Sub)?VariableOp")
# They have no state either, but run code, open files, or belong to other devices.
_OUTSIDE = re.compile(
    r"\w*PyFunc\w*|.*(File|Files|Filename)\w*|(Save|Restore)\w*|_\w+|TRTEngineOp|Tpu\w*|TPU\w*|"
    r"Xla\w*|RemoteCall|SymbolicGradient"
)
# Their strings are contents of files, not names. Servers have signatures that decode them.
_OF_CONTENTS = re.compile(
    r"Decode(Raw|PaddedRaw|Jpeg|AndCropJpeg|Png|Bmp|Image|Base64|Wav|CSV|JSONExample)|"
    r"StringToNumber|StringLower|StringUpper|StringStrip|StringLength|Substr|"
    r"ParseExample(V2)?|ParseSingleExample|ParseTensor"
)
# The functions that write and read checkpoints; nothing calls them here.
_SAVER = re.compile(r"__inference__traced_(save|restore)_\d+")
_SAVER_NODES = frozenset({"saver_filename", "StatefulPartitionedCall", "NoOp"})
_REBUILD = "Convert the Keras file that the folder was exported from."


def load_signature(
    path: Path, time_steps: TimeSteps | None, *, allow_free_time: bool
) -> tuple[Any, str]:
    """Return a functional model that calls a signature of a SavedModel, and its name.

    That is ``serving_default``, or the only one that there is. Raises :class:`UnsafeModelError` if
    an operation may do more than compute, :class:`UnsupportedModelError` if the folder has no such
    signature or is damaged, and :class:`UsageError` if the number of time steps is free and not
    given.
    """
    import tensorflow as tf
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    message = SavedModel()
    try:
        message.ParseFromString((path / "saved_model.pb").read_bytes())
    except Exception as error:  # protobuf's exceptions have no public base class
        raise _unsupported(path, f"is damaged: {error}") from error
    _check_operations(path, message)
    try:
        loaded = tf.saved_model.load(str(path))
        functions = dict(getattr(loaded, "signatures", {}))
    except Exception as error:
        raise _unsupported(path, f"cannot be loaded: {str(error)[:200]}") from error
    name = _chosen(path, functions)
    _check_variables(path, name, functions[name])
    _, inputs = functions[name].structured_input_signature
    batch = _batch(path, inputs)
    if batch is not None:
        _check_first_axes(path, functions[name].structured_outputs)
    layer = signature_layer(loaded, functions[name], batch)
    model = _model(path, layer, inputs, time_steps, allow_free_time)
    if any(None in spec.shape.as_list()[1:] for spec in inputs.values()) and time_steps:
        _check_rows(path, layer, inputs, time_steps)
    return model, name


def _check_rows(path: Path, layer: Any, specs: Mapping[str, Any], time_steps: TimeSteps) -> None:
    """Raise an error if a sample alone gives another result than beside another sample.

    A file for a device has one sample a call. Graphs that model.export of Keras 3.15 writes for
    TimeDistributed with a free number of steps compute as many steps as there are samples.
    """
    import tensorflow as tf

    generator = np.random.default_rng(0)
    pair = {}
    for name, spec in specs.items():
        axes = with_sizes(spec.shape.as_list(), length_of(time_steps, name))
        shape = [2, *(axis or 1 for axis in axes[1:])]
        pair[name] = tf.cast(generator.normal(size=shape), spec.dtype)
    try:
        both = layer(pair)
        alone = layer({name: value[:1] for name, value in pair.items()})
    except (ValueError, tf.errors.OpError):
        return  # random values may not be valid inputs
    for name, value in alone.items():
        expected, actual = np.asarray(both[name])[:1], np.asarray(value)
        same = expected.shape == actual.shape and (
            actual.dtype.kind not in "fiu"
            or np.allclose(expected, actual, rtol=1e-3, atol=1e-4, equal_nan=True)
        )
        if not same:
            raise _unsupported(
                path,
                f"computes another output {name!r} for a sample alone than for the same sample "
                "beside another one, as graphs of model.export do that contain TimeDistributed "
                "with a free number of steps: they compute as many steps as there are samples.",
                "Convert the .keras or .h5 file of the model, or export the model with a fixed "
                "number of steps: keras.Input((N, ...)).",
            )


def _check_variables(path: Path, name: str, function: Any) -> None:
    """Raise an error if a signature assigns to a variable: artifacts keep nothing between calls."""
    graph = function.graph.as_graph_def()
    nodes = [*graph.node, *(node for item in graph.library.function for node in item.node_def)]
    assigned = next((node.name for node in nodes if _ASSIGNMENT.fullmatch(node.op)), None)
    if assigned is not None:
        raise _unsupported(
            path,
            f"changes a variable in its signature {name!r} ({assigned!r}), as layers do that count "
            "calls, keep a state or draw random numbers: its outputs may depend on earlier calls.",
            "Export a model whose outputs depend on its inputs only: without that layer, or with "
            "its state as an input and an output.",
        )


def _chosen(path: Path, functions: Mapping[str, Any]) -> str:
    if DEFAULT in functions:
        return DEFAULT
    if len(functions) == 1:
        return next(iter(functions))
    folder = "tf.saved_model.save(module, folder, signatures="
    if not functions:
        raise _unsupported(
            path, "has no signature.", f"Save the module with the function: {folder}module.f)"
        )
    names = sorted(functions)
    raise _unsupported(
        path,
        f"has the signatures {', '.join(map(repr, names))}, but none is named {DEFAULT!r}.",
        "Save one alone: module = tf.saved_model.load(this_folder), then "
        f"{folder}module.signatures[{names[0]!r}])",
    )


def _unsupported(path: Path, problem: str, hint: str = SAVE_AS_FILE) -> UnsupportedModelError:
    return UnsupportedModelError(f"The SavedModel {path.name} {problem}", hint=hint)


def _check_operations(path: Path, message: Any) -> None:
    """Raise an error unless every operation that may run only computes."""
    if len(message.meta_graphs) != 1:
        raise _unsupported(path, f"has {len(message.meta_graphs)} graphs.")
    [meta] = message.meta_graphs
    if not meta.HasField("object_graph_def"):
        raise _unsupported(path, "was written by TensorFlow 1.")
    kinds = {node.WhichOneof("kind") for node in meta.object_graph_def.nodes}
    if kinds & {"asset", "resource"} or meta.asset_file_def:
        raise _unsupported(path, "has tables or other files beside its graph.")
    functions = {item.signature.name: item for item in meta.graph_def.library.function}
    savers = {name for name in functions if _SAVER.fullmatch(name)}
    graph_nodes = [node for node in meta.graph_def.node if node.op not in _SAVER_NODES]
    called = set(_called(graph_nodes)).union(
        *(_called(item.node_def) for name, item in functions.items() if name not in savers)
    )
    for node in meta.object_graph_def.nodes:
        called.update(node.function.concrete_functions)
        called.add(node.bare_concrete_function.concrete_function_name)
    nodes = [*graph_nodes]
    for name, item in functions.items():
        if name not in savers or name in called:
            nodes.extend(item.node_def)
    for node in nodes:
        if not _only_computes(node.op):
            raise UnsafeModelError(
                f"Refused {path.name}: its graph contains the operation {node.op!r} "
                f"({node.name!r}), which may do more than compute.",
                hint=_REBUILD,
            )


def _called(nodes: Any) -> Iterator[str]:
    """Yield the names of the functions that nodes refer to."""
    for node in nodes:
        for value in node.attr.values():
            yield value.func.name
            yield from (item.name for item in value.list.func)


def _only_computes(name: str) -> bool:
    from tensorflow.python.framework import op_def_registry

    if _STATEFUL.fullmatch(name):
        return True
    definition = op_def_registry.get(name)
    if definition is None or definition.is_stateful or _OUTSIDE.fullmatch(name):
        return False
    if _OF_CONTENTS.fullmatch(name):
        return True
    # The names of files and of programs are strings.
    arguments = [*definition.input_arg, *definition.output_arg]
    return all(argument.type != STRING for argument in arguments)


def _model(
    path: Path,
    layer: Any,
    specs: Mapping[str, Any],
    time_steps: TimeSteps | None,
    allow_free_time: bool,
) -> Any:
    import keras
    import tensorflow as tf

    inputs = {}
    for name, spec in specs.items():
        shape = spec.shape.as_list() if spec.shape.rank is not None else None
        if shape is None or not shape:
            raise _unsupported(path, f"has an input {name!r} whose shape is not fixed: {shape}.")
        if spec.dtype == tf.string:
            raise _unsupported(
                path,
                f"has an input {name!r} of strings.",
                "Save a signature that takes the numbers which the graph decodes from them: "
                "tf.saved_model.save(module, folder, signatures=module.f)",
            )
        shape[0] = None  # a fixed batch size is that of the layer
        if not allow_free_time:
            fixed = with_sizes(shape, length_of(time_steps, name))
            if None in fixed[1:]:
                raise free_axes_error({name: shape}, time_steps, several=len(specs) > 1)
            shape = fixed
        inputs[name] = keras.Input(batch_shape=tuple(shape), dtype=spec.dtype.name, name=name)
    try:
        outputs = layer(inputs)
    except (ValueError, TypeError, tf.errors.OpError) as error:
        shapes = ", ".join(f"{name} {tuple(item.shape)}" for name, item in inputs.items())
        raise _unsupported(
            path, f"does not compute inputs of the shapes {shapes}: {root_cause(error)}"
        ) from error
    return keras.Model(inputs, outputs, name="model")


def _batch(path: Path, specs: Mapping[str, Any]) -> int | None:
    """The number of samples that a signature computes: 1, or None for any number."""
    sizes = {name: spec.shape[0] for name, spec in specs.items() if spec.shape.rank}
    if all(size is None for size in sizes.values()):
        return None
    if all(size == 1 for size in sizes.values()):
        return 1
    shapes = ", ".join(f"{name} {tuple(spec.shape)}" for name, spec in specs.items())
    counts = list(dict.fromkeys(sizes.values()))
    problem = "has inputs for different numbers of samples"
    if len(counts) == 1:
        problem = (
            f"computes {counted(counts[0], 'sample')} at a time, and files for devices compute one"
        )
    name, spec = next((name, spec) for name, spec in specs.items() if sizes.get(name) is not None)
    axes = ", ".join(map(str, [None, *spec.shape.as_list()[1:]]))
    raise _unsupported(
        path,
        f"{problem}: {shapes}.",
        "Save it with a signature for any number of samples: "
        f"{name} = tf.TensorSpec(({axes}), tf.{spec.dtype.name}). Or convert the Keras file of the "
        "model, if there is one.",
    )


def _check_first_axes(path: Path, outputs: Mapping[str, Any]) -> None:
    """Raise an error if an output of a signature for one sample does not have one row."""
    for name, spec in outputs.items():
        shape = spec.shape
        if shape.rank is None or (shape.rank and shape[0] in (1, None)):
            continue
        raise _unsupported(
            path,
            f"returns its output {name!r} of the shape {tuple(shape)} for one sample: its first "
            "axis is not that of the samples.",
            f"Save it with a signature that returns tf.expand_dims({name}, 0).",
        )
