"""ONNX files: a free batch axis, and recurrences as LSTM, GRU and RNN nodes."""

import contextlib
import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from edgeattn.errors import ConversionError, first_line
from edgeattn.file_structure.onnx import read_onnx
from edgeattn.tensors import Specs, Tensors
from edgeattn_converters.formats import ConvertedFile
from edgeattn_converters.formats.missing_operators import found_in
from edgeattn_converters.graphs.onnx_constants import fold_constants
from edgeattn_converters.graphs.onnx_file import all_nodes, bodies, convert_opset, free_dimensions
from edgeattn_converters.lowering import (
    axis_handlers,
    missing_operations,
    narrow_integers,
    scatter_handlers,
    whole_numbers,
)
from edgeattn_converters.lowering.attention import lower_attention, lower_keras_attention
from edgeattn_converters.lowering.call_replacement import Lowering, all_layers, lowered
from edgeattn_converters.lowering.complex_numbers import complex_as_pairs
from edgeattn_converters.lowering.fourier import lower_spectrogram
from edgeattn_converters.lowering.loop_lists import lists_as_tensors
from edgeattn_converters.lowering.masking import select_by_where
from edgeattn_converters.lowering.multi_head import lower_multi_head_attention
from edgeattn_converters.lowering.placeholders import Placeholders
from edgeattn_converters.lowering.plain_layers import (
    lower_dense,
    lower_embedding,
    lower_signature,
    onnx_layer_normalization,
)
from edgeattn_converters.lowering.rnn.onnx_nodes import ONNXRecurrence
from edgeattn_converters.lowering.softmax import lower_softmax
from edgeattn_converters.lowering.tf2onnx_fixes import (
    bounded_einsum_search,
    own_bfloat16,
    remove_unknown_shapes,
    reproducible_graphs,
    separate_trip_counts,
    sound_casts,
    sound_reshapes,
    sound_rewriters,
    sound_squares,
    without_list_shapes,
)
from edgeattn_converters.lowering.tf2onnx_handlers import operation_handlers
from edgeattn_converters.options import ConversionOptions, QuantizationOptions
from edgeattn_converters.quantization.layer_weights import layer_weights
from edgeattn_converters.quantization.onnx import quantize
from edgeattn_converters.quantization.quantized_model import ModelIO, QuantizationSamples
from edgeattn_converters.recipes import Recipe
from edgeattn_converters.tracing.free_time import FreeModel
from edgeattn_converters.tracing.trace import Interface, Traced, trace

RUNTIMES = {"onnxruntime": ">=1.17"}
# The highest operator set that tf2onnx writes; every onnxruntime since 1.14 reads it.
OPSET = 18
# The first operator set with int16, and the first onnxruntime that reads it.
INT16_OPSET, INT16_RUNTIMES = 21, {"onnxruntime": ">=1.18"}
BATCH_AXIS = "batch"
# The first operator set with the node LayerNormalization.
LAYER_NORMALIZATION_OPSET = 17
_ATTENTION = (lower_attention, lower_keras_attention, lower_multi_head_attention, lower_softmax)


def convert(
    model: Any,
    interface: Interface,
    recipe: Recipe,
    path: Path,
    *,
    options: ConversionOptions = ConversionOptions(),  # noqa: B008 - frozen
    quantization: QuantizationOptions = QuantizationOptions(),  # noqa: B008 - frozen
    samples: Tensors | QuantizationSamples | None = None,
    free: FreeModel | None = None,
) -> ConvertedFile:
    """Write ``model`` to ``path``; ``samples`` are real inputs, for schemes that need calibration.

    With the same model ``free`` with a free time axis, the file accepts any length of its axes; the
    specs have the fixed length.

    ``options.lowering`` and ``options.batch`` have no effect: a recurrence is one node, and the
    batch axis is free. Raises :class:`ConversionError` if the converter fails, or writes a file
    that ``onnx.checker`` rejects.
    """
    opset = quantization.opset or OPSET
    traced, proto = _float_model(model, interface, options.attention, opset, free)
    # Before onnxruntime opens the file to quantize it, whose own error has no layers.
    _check_operators(proto, traced, model)
    model_io = ModelIO(
        traced.inputs,
        traced.outputs,
        traced.attention,
        tuple(interface.vocabulary),
        layers=layer_weights(model),
    )
    quantized = quantize(proto, model_io, recipe, quantization, samples)
    if free is not None:
        free_dimensions(quantized.content, dict(free.axes))
    _check(quantized.content)
    content = quantized.content.SerializeToString()
    path.write_bytes(content)
    achieved = {**quantized.achieved, **read_onnx(content).to_json()}
    return ConvertedFile(quantized.inputs, quantized.outputs, traced.attention, achieved)


@functools.lru_cache(maxsize=2)  # with attention maps and without
def _float_model(
    model: Any, interface: Interface, attention: bool, opset: int, free: FreeModel | None
) -> tuple[Traced, Any]:
    """The float32 model that every scheme starts from; cached, because it takes seconds."""
    arguments = (model, interface, attention, opset, free)
    try:
        return _converted(*arguments, [lower_signature])
    except ConversionError:
        # tf2onnx converts some loops only as they are stored.
        if not any(map(lower_signature, all_layers(model))):
            raise
        return _converted(*arguments, [])


def _converted(
    model: Any,
    interface: Interface,
    attention: bool,
    opset: int,
    free: FreeModel | None,
    more: Sequence[Lowering],
) -> tuple[Traced, Any]:
    """The traced model and the file's content, with ``more`` lowerings."""
    placeholders = Placeholders()
    lowerings: list[Lowering] = [
        *(partial(lowering, select=select_by_where) for lowering in _ATTENTION),
        *(lower_dense, lower_embedding, lower_spectrogram, *more),
    ]
    if opset >= LAYER_NORMALIZATION_OPSET:
        lowerings.append(onnx_layer_normalization(placeholders))
    source = model if free is None else free.model
    traced = trace(
        source,
        interface if free is None else free.interface,
        batch=None,
        attention=attention,
        lowering=lambda: _lowered(source, placeholders, lowerings),
    )
    if free is not None:
        traced = _with_lengths(traced, interface, attention)
    try:
        proto = _to_onnx(traced, placeholders, min(opset, OPSET))
    except ConversionError:
        raise
    except Exception as error:  # tf2onnx raises whatever its handlers do
        raise ConversionError(f"The ONNX converter failed: {first_line(error)}") from error
    if interface.mixes_samples or interface.batch:
        traced = replace(traced, inputs=_single(traced.inputs), outputs=_single(traced.outputs))
    _name_values(proto, traced)
    return traced, proto if opset <= OPSET else convert_opset(proto, opset)


def _single(specs: Specs) -> Specs:
    """``specs`` of one sample."""
    return tuple(replace(spec, shape=(1, *spec.shape[1:])) for spec in specs)


def _with_lengths(traced: Traced, interface: Interface, attention: bool) -> Traced:
    """The function of a free model with the specs of the fixed one."""
    if attention and set(traced.attention) != {spec.name for spec in interface.attention}:
        raise ConversionError("A sequence of any length has other attention maps.")
    specs = {spec.name: spec for spec in interface.all_outputs}
    for spec, tensor in zip(traced.outputs, traced.function.outputs, strict=True):
        if tensor.shape.rank != len(specs[spec.name].shape):
            raise ConversionError(
                f"The map {spec.name!r} of one step has no axis of queries. With more --time-steps "
                "it has one, and the file accepts any length."
            )
    outputs = tuple(specs[spec.name] for spec in traced.outputs)
    return replace(traced, inputs=interface.inputs, outputs=outputs)


@contextlib.contextmanager
def _lowered(
    model: Any, placeholders: Placeholders, lowerings: Sequence[Lowering]
) -> Iterator[None]:
    with (
        lowered(model, ONNXRecurrence(placeholders), lowerings),
        missing_operations.replaced_operations(missing_operations.ONNX),
        complex_as_pairs(),
        whole_numbers.composed_integers(whole_numbers.ONNX),
        narrow_integers.wide_integers(narrow_integers.ONNX),
    ):
        yield


def _check_operators(proto: Any, traced: Traced, model: Any) -> None:
    import onnx

    # tf2onnx leaves operations of TensorFlow that it has no handler for.
    if names := {name for name in _kinds(proto.graph) if not onnx.defs.has(name)}:
        missing = found_in(names, traced.function.graph, model)
        raise ConversionError(f"ONNX has no operator for {missing}.", hint=missing.advice)


def _check(proto: Any) -> None:
    import onnx

    try:
        onnx.checker.check_model(proto, full_check=True)
    except Exception as error:
        raise ConversionError(f"onnx.checker rejects the file: {first_line(error)}") from error


def _kinds(graph: Any) -> set[str]:
    """The operators of ONNX itself in a graph and its bodies."""
    return {node.op_type for node in all_nodes(graph) if node.domain in ("", "ai.onnx")}


def _to_onnx(traced: Traced, placeholders: Placeholders, opset: int) -> Any:
    import onnx
    import onnx.shape_inference
    import tensorflow as tf
    from tf2onnx import optimizer, tf_loader, tfonnx

    inputs = [tensor.name for tensor in traced.function.inputs]
    outputs = [tensor.name for tensor in traced.function.outputs]
    with tf.Graph().as_default():
        definition = tf_loader.tf_optimize(inputs, outputs, traced.function.graph.as_graph_def())
    lists_as_tensors(definition)
    separate_trip_counts(definition)
    remove_unknown_shapes(definition)
    changes = (
        *(sound_rewriters(), sound_reshapes(), sound_casts(), own_bfloat16()),
        *(sound_squares(), reproducible_graphs(), bounded_einsum_search()),
    )
    with tf.Graph().as_default() as graph, contextlib.ExitStack() as stack:
        for change in changes:
            stack.enter_context(change)
        tf.import_graph_def(definition, name="")
        _set_known_shapes(graph, traced.function.graph)
        written = tfonnx.process_tf_graph(
            graph,
            opset=opset,
            custom_op_handlers={
                **operation_handlers(),
                **axis_handlers.handlers(),
                **placeholders.handlers(),
                **scatter_handlers.handlers(opset),
            },
            input_names=inputs,
            output_names=outputs,
        )
        proto = optimizer.optimize_graph(written).make_model("edgeattn")
    fold_constants(proto)
    try:
        onnx.shape_inference.infer_shapes(proto, strict_mode=True)
    except onnx.shape_inference.InferenceError:
        # An optimization has moved a reshape to where its shape does not fit.
        return without_list_shapes(written).make_model("edgeattn")
    return proto


def _set_known_shapes(graph: Any, source: Any) -> None:
    """Give values whose shape is unknown that of the value of this name in ``source``, in place.

    TensorFlow knows the shape of a list's elements, and no longer if the list is a tensor that a
    loop updates. tf2onnx needs the rank of what a convolution reads.
    """
    for operation in graph.get_operations():
        for k, value in enumerate(operation.outputs):
            if value.shape.rank is not None:
                continue
            try:
                original = source.get_tensor_by_name(f"{operation.name}:{k}")
            except (KeyError, ValueError):
                continue  # an operation or an output that was added
            if original.op.type == operation.type and original.dtype == value.dtype:
                value.set_shape(original.shape)


def _name_values(proto: Any, traced: Traced) -> None:
    """Give the inputs and outputs the model's names and name the batch axis, in place."""
    graph = proto.graph
    renamed = {}
    for specs, tensors, values in (
        (traced.inputs, traced.function.inputs, graph.input),
        (traced.outputs, traced.function.outputs, graph.output),
    ):
        by_name = {value.name: value for value in values}
        if len(by_name) != len(specs):
            extra = sorted(set(by_name) - {tensor.name for tensor in tensors})
            raise ConversionError(f"The ONNX converter added inputs: {extra}.")
        for spec, tensor in zip(specs, tensors, strict=True):
            value = by_name[tensor.name]
            renamed[value.name] = spec.name
            shape = value.type.tensor_type.shape
            del shape.dim[:]
            for position, axis in enumerate(spec.shape):
                dim = shape.dim.add()
                if axis is None:
                    dim.dim_param = BATCH_AXIS if position == 0 else f"axis_{position}"
                else:
                    dim.dim_value = axis
    _rename(graph, renamed)
    ordered = {value.name: value for value in graph.output}
    values = [ordered[spec.name] for spec in traced.outputs]
    del graph.output[:]
    graph.output.extend(values)


def _rename(graph: Any, renamed: dict[str, str]) -> None:
    inner = {name for node in graph.node for name in node.output} | {
        item.name for item in graph.initializer
    }
    # An inner value that already has one of the new names is renamed too.
    for name in set(renamed.values()) & inner - set(renamed):
        renamed[name] = f"{name}__inner"
    for node in graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [renamed.get(name, name) for name in node.output]
        for body in bodies(node):
            _rename(body, renamed)
    for values in (graph.input, graph.output, graph.value_info, graph.initializer):
        for value in values:
            value.name = renamed.get(value.name, value.name)


def runtimes(achieved: Mapping[str, Any]) -> dict[str, str]:
    """The lowest version of each runtime that can run a file with these contents."""
    return INT16_RUNTIMES if achieved["opset"].get("ai.onnx", 0) >= INT16_OPSET else RUNTIMES
