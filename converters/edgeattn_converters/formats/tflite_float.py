"""The float32 ``.tflite`` file of a model, from which every scheme starts."""

import contextlib
import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from edgeattn.errors import ConversionError, first_line
from edgeattn.file_structure.tflite import read_tflite
from edgeattn_converters.formats.missing_operators import Missing, found_in
from edgeattn_converters.graphs.negated_zeros import keep_negated_zeros
from edgeattn_converters.graphs.scalar_biases import extend_scalar_biases
from edgeattn_converters.graphs.signatures import distinct_functions
from edgeattn_converters.graphs.tflite_file import TFLiteFile
from edgeattn_converters.lowering import (
    missing_operations,
    narrow_integers,
    reciprocal_roots,
    whole_numbers,
)
from edgeattn_converters.lowering.attention import lower_attention, lower_keras_attention
from edgeattn_converters.lowering.broadcast_operands import separate_broadcasts
from edgeattn_converters.lowering.call_replacement import lowered
from edgeattn_converters.lowering.complex_numbers import complex_as_pairs
from edgeattn_converters.lowering.constant_operands import ordered_constants
from edgeattn_converters.lowering.fourier import lower_spectrogram
from edgeattn_converters.lowering.many_axes import few_axes
from edgeattn_converters.lowering.masking import select_by_arithmetic
from edgeattn_converters.lowering.multi_head import lower_multi_head_attention
from edgeattn_converters.lowering.plain_layers import (
    lower_layer_normalization,
    lower_signature,
    lower_single_feature_normalization,
)
from edgeattn_converters.lowering.rnn.fused import FusedLSTM
from edgeattn_converters.lowering.rnn.recurrence import RecurrenceLowering
from edgeattn_converters.lowering.rnn.strategy import (
    FLOAT32_BYTES,
    FUSED,
    FUSED_INTEGERS,
    recurrence_lowering,
)
from edgeattn_converters.lowering.softmax import lower_softmax
from edgeattn_converters.tracing.trace import Interface, Traced, trace

# In errors of the converter: an operation of TensorFlow, and the place of a call in a source file.
_MISSING = re.compile(r"'tf\.(\w+)' op is neither a custom op nor a flex op")
# What its verifier says about a constant that was moved past a broadcast.
_FUSED_WRONG = re.compile(
    r"'tfl.fully_connected' op (expect 'input' num_elements|num_input_elements / z_in)"
    r"|'tfl.mul' op result type \S+ not broadcast compatible"
)
_PLACES = re.compile(r"(<unknown>|/\S+?\.py):\d+(:\d+)?: (error: )?")
_LOWERINGS = (
    partial(lower_attention, select=select_by_arithmetic),
    partial(lower_keras_attention, select=select_by_arithmetic),
    partial(lower_multi_head_attention, select=select_by_arithmetic),
    partial(lower_softmax, select=select_by_arithmetic),
    *(lower_single_feature_normalization, lower_layer_normalization),
    lower_spectrogram,
    lower_signature,
)


# With attention maps and without, for two sizes of weights, or with fused LSTMs.
@functools.lru_cache(maxsize=4)
def float_file(
    model: Any,
    interface: Interface,
    attention: bool,
    lowering: str,
    batch: int,
    weight_bytes: int = FLOAT32_BYTES,
    integer_norms: bool = False,
) -> tuple[Traced, bytes]:
    """The float32 file that a scheme starts from; cached, because it takes seconds.

    ``weight_bytes`` is the size of a recurrent weight in the scheme, which the lowering depends on,
    ``integer_norms`` whether normalization has the form that can be quantized.
    """
    arguments = (model, interface, attention, (lowering, weight_bytes), batch)
    changes = Changes(integer_norms=integer_norms)
    while True:
        try:
            traced, file = _traced_file(*arguments, changes)
            break
        except ConversionError as error:
            further = _further(changes, error)
            if further is None:
                raise
            changes = further
    _name_tensors(file, traced)
    return traced, file.to_bytes()


@dataclass(frozen=True)
class Changes:
    """Changes of a graph that only some models need, and others are slower with.

    ``error_functions`` replaces those that the converter does not fuse as parts of GELU,
    ``broadcasts`` separates the operations of
    :mod:`~edgeattn_converters.lowering.broadcast_operands`, ``integer_norms`` keeps
    L2_NORMALIZATION (:mod:`~edgeattn_converters.lowering.reciprocal_roots`).
    """

    error_functions: bool = False
    broadcasts: bool = False
    integer_norms: bool = False


def _further(changes: Changes, error: ConversionError) -> Changes | None:
    """The changes with which the model may convert, None if no change is left."""
    if isinstance(error, MissingOperatorsError):
        remaining = missing_operations.ERROR_FUNCTIONS & set(error.names)
        needed = bool(remaining) and not changes.error_functions
        return replace(changes, error_functions=True) if needed else None
    needed = _FUSED_WRONG.search(str(error)) is not None and not changes.broadcasts
    return replace(changes, broadcasts=True) if needed else None


def _traced_file(
    model: Any,
    interface: Interface,
    attention: bool,
    lowering: tuple[str, int],
    batch: int,
    changes: Changes,
) -> tuple[Traced, TFLiteFile]:
    erf = changes.error_functions
    replacements = missing_operations.TFLITE_WITH_ERF if erf else missing_operations.TFLITE
    fused = None
    if lowering[0] in (FUSED, FUSED_INTEGERS):
        clearing = lowering[0] == FUSED
        fallback = recurrence_lowering("auto" if clearing else "unrolled")
        fused = FusedLSTM(fallback, clearing=clearing)
    recurrence = recurrence_lowering(*lowering) if fused is None else fused.lower
    if fused is not None:
        # Custom operators are allowed, so the converter does not report others.
        replacements = missing_operations.TFLITE_WITH_ERF
    if changes.integer_norms:
        replacements = {**replacements, **reciprocal_roots.replacements(integers=True)}
    traced = trace(
        model,
        interface,
        batch=batch,
        attention=attention,
        lowering=lambda: _lowered(model, recurrence, replacements, changes),
    )
    file = TFLiteFile(_convert_traced(traced, model, custom=fused is not None))
    extend_scalar_biases(file)
    keep_negated_zeros(file)
    if fused is not None:
        fused.write(file)
    return traced, file


def has_loops(content: bytes) -> bool:
    return "WHILE" in read_tflite(content).operators


def divides_by_roots(content: bytes) -> bool:
    return {"SQRT", "NEG", "DIV"} <= set(read_tflite(content).operators)


@contextlib.contextmanager
def _lowered(
    model: Any,
    recurrence: RecurrenceLowering,
    replacements: missing_operations.Replacements,
    changes: Changes,
) -> Iterator[None]:
    with (
        separate_broadcasts() if changes.broadcasts else contextlib.nullcontext(),
        lowered(model, recurrence, _LOWERINGS),
        ordered_constants(),
        few_axes(),
        missing_operations.replaced_operations(replacements),
        complex_as_pairs(),
        whole_numbers.composed_integers(whole_numbers.TFLITE),
        narrow_integers.wide_integers(narrow_integers.TFLITE),
    ):
        yield


class MissingOperatorsError(ConversionError):
    """The model needs operations of TensorFlow, ``names``, that TFLite does not have."""

    def __init__(self, missing: Missing) -> None:
        super().__init__(f"TFLite has no operator for {missing}.", hint=missing.advice)
        self.names = list(missing.places)


def _convert_traced(traced: Traced, model: Any, *, custom: bool = False) -> bytes:
    import tensorflow as tf

    # Without the Keras model as second argument, with which weights of Keras 3 become NaN.
    converter = tf.lite.TFLiteConverter.from_concrete_functions([traced.function])
    converter.allow_custom_ops = custom
    # By default, an infinite constant becomes the largest number: ``x / 0.0`` would be finite.
    converter.canonicalizing_inf_as_min_max_float = False
    # By default, what a loop writes to a list is joined from slices of computed sizes. XNNPACK
    # computes wrong results of them from the second call on, some times that a file is loaded.
    converter._experimental_enable_dynamic_update_slice = True
    try:
        with distinct_functions():
            return bytes(converter.convert())
    except Exception as error:  # MLIR errors arrive as many classes
        if missing := _missing(error):
            places = found_in(missing, traced.function.graph, model)
            raise MissingOperatorsError(places) from error
        raise ConversionError(f"The TFLite converter failed: {_reason(error)}") from error


def _missing(error: Exception) -> list[str]:
    """The operations of TensorFlow that TFLite lacks, according to an error of the converter."""
    return sorted(set(_MISSING.findall(str(error))))


def _reason(error: Exception) -> str:
    """The first line without the places in source files."""
    return " ".join(_PLACES.sub(" ", first_line(error)).split())


def _name_tensors(file: TFLiteFile, traced: Traced) -> None:
    """Give the inputs and outputs the model's own names, in place, and add a signature.

    The converter names them ``input_0`` and ``Identity_1`` in no documented order; the names of the
    frozen function's tensors identify them.
    """
    graph = file.main
    sides = (
        ("inputs", traced.inputs, traced.function.inputs),
        ("outputs", traced.outputs, traced.function.outputs),
    )
    # All names are read before any is written, because an output may be an unchanged input.
    by_name = {
        side: {file.name(graph.tensors[i]): int(i) for i in getattr(graph, side)}
        for side, _, _ in sides
    }
    used: set[int] = set()
    for side, specs, tensors in sides:
        indices = []
        for position, (spec, tensor) in enumerate(zip(specs, tensors, strict=True)):
            index = by_name[side].get(tensor.name.split(":")[0])
            if index is None and side == "outputs":
                # Two outputs of one value, or an output that is an input, share a tensor.
                index = int(graph.outputs[position])
                index = file.copy_tensor(index) if index in used else None
            if index is None or index in used:
                raise ConversionError(
                    f"The TFLite converter left no tensor of its own for {spec.name!r}."
                )
            used.add(index)
            indices.append(index)
        for spec, index in zip(specs, indices, strict=True):
            graph.tensors[index].name = spec.name
        setattr(graph, side, indices)
    file.set_signature(traced.inputs, traced.outputs)
