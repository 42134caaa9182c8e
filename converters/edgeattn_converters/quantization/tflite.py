"""A float ``.tflite`` file and a recipe -> the file in that scheme, and what became of it."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from edgeattn.errors import ConversionError
from edgeattn.tensors import Tensors, TensorSpec
from edgeattn_converters.lowering import all_layers
from edgeattn_converters.lowering.cells import KINDS, is_keras_class
from edgeattn_converters.quantization import attention, ranges, weights, wide
from edgeattn_converters.quantization.flatbuffers import Flatbuffer
from edgeattn_converters.quantization.integers import integer_ends
from edgeattn_converters.quantization.judging import (
    NO_INT16,
    Ends,
    Plan,
    Tried,
    chosen,
    dynamic,
    split,
)
from edgeattn_converters.quantization.tflite_account import account
from edgeattn_converters.recipes import Options, Recipe

CARRYING = ("RESHAPE", "TRANSPOSE", "EXPAND_DIMS", "SQUEEZE")
HEAVY = frozenset({"BATCH_MATMUL", "FULLY_CONNECTED", "SUM", "CONV_2D", "REDUCE_SUM"})


@dataclass(frozen=True)
class Quantized:
    """``told`` says why it became this and not something else, for people."""

    content: bytes
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    told: tuple[str, ...] = ()
    achieved: Mapping[str, Any] = field(default_factory=dict)


def quantize(
    content: bytes, ends: Ends, recipe: Recipe, options: Options, samples: Tensors | None
) -> Quantized:
    """``content`` in the scheme of ``recipe``, and the account of it.

    ``samples`` are real inputs, for the schemes that measure activations. Raises
    :class:`ConversionError` where the scheme cannot be made of this file, or was not reached.
    """
    made = _made(content, ends, recipe, options, samples)
    found = account(made.content)
    if not options.allow_float_fallback:
        found.check(recipe)
    told = {} if recipe.scheme == "float32" else {"summary": found.sentence(recipe, made.told)}
    return replace(made, achieved={**found.to_json(), **told})


def _made(
    content: bytes, ends: Ends, recipe: Recipe, options: Options, samples: Tensors | None
) -> Quantized:
    if recipe.scheme == "float32":
        return Quantized(content, ends.inputs, ends.outputs)
    if recipe.needs_calibration:
        if not samples:
            raise ConversionError(f"{recipe.scheme} needs samples: --calibration FILE")
        return _static(content, ends, recipe, options, samples)
    file = Flatbuffer(content)
    if recipe.scheme == "float16":
        weights.half(file)
        file.strip()
        return Quantized(file.pack(), ends.inputs, ends.outputs)

    def made(write: Callable[..., None]) -> Quantized:
        written = Flatbuffer(content)
        write(written, per_channel_dense=_per_channel_dense(options))
        written.strip()
        return Quantized(written.pack(), ends.inputs, ends.outputs)

    def run(item: Quantized | None, data: Tensors) -> Tensors:
        return _run(item.content if item else content, ends.inputs, ends.outputs, data)

    best, told = dynamic(
        lambda: made(weights.hybrid), lambda: made(weights.only), run, ends, recipe.scheme, samples
    )
    result: Quantized = best
    return replace(result, told=told)


def recurrent_layers(model: Any) -> tuple[str, ...]:
    """The names of Keras' recurrent layers in ``model``."""
    return tuple(str(x.name) for x in all_layers(model) if is_keras_class(x, *KINDS))


def _per_channel_dense(options: Options) -> bool:
    # tflite-runtime 2.14 knows FULLY_CONNECTED up to version 11, and computes wrong numbers for
    # int8 weights with a scale per channel.
    return options.runtime != "tflite-runtime"


def _static(
    content: bytes, ends: Ends, recipe: Recipe, options: Options, samples: Tensors
) -> Quantized:
    file = Flatbuffer(content)
    measuring, judged = split(samples)
    measured, spread = ranges.measure(file, content, measuring, [s.name for s in ends.inputs])
    tried, reasons = [], []
    for plan in _plans(file, ends, recipe, options):
        try:
            made = _quantized(content, measured, ends, recipe, options, plan)
            tried.append(Tried(plan, len(made.content), made))
        except Exception as error:  # the quantizer raises what MLIR gives it, of many classes
            reasons.append(str(error) or type(error).__name__)
    if not tried:
        raise ConversionError(f"TensorFlow's quantizer gave up: {reasons[0]}")

    def run(made: Quantized | None, data: Tensors) -> Tensors:
        if made is None:
            return _run(content, ends.inputs, ends.outputs, data)
        return _run(made.content, made.inputs, made.outputs, data)

    best, told = chosen(tried, run, ends, recipe.scheme, judged)
    result: Quantized = best
    return replace(result, told=(*told, *spread))


def _plans(file: Flatbuffer, ends: Ends, recipe: Recipe, options: Options) -> list[Plan]:
    attended = bool(_attention(file, ends.maps))
    asked = options.attention_precision
    if asked == "int16" and attended and recipe.activations != "int16":
        raise ConversionError(NO_INT16)
    kept = {"auto": (False, True), "int8": (False,), "float32": (True,)}.get(asked, (False, True))
    steps = _recurrent(file, ends.recurrent)
    plans = [
        Plan(attention, recurrence)
        for attention in (kept if attended else (False,))
        for recurrence in ((False, True) if steps else (False,))
    ]
    if attended and True in kept and recipe.activations == "int8":
        plans.append(Plan(attention=True, recurrence=bool(steps), deep=True))
    return plans


def _quantized(
    content: bytes,
    measured: ranges.Ranges,
    ends: Ends,
    recipe: Recipe,
    options: Options,
    plan: Plan,
) -> Quantized:
    file = Flatbuffer(content)
    before = Flatbuffer(content).main
    kept: set[str] = set()
    if plan.attention:
        kept |= _attention(file, ends.maps, deep=plan.deep)
    if plan.recurrence:
        kept |= _recurrent(file, ends.recurrent)
    if recipe.activations == "int16":
        wide.widen(file, measured, kept, per_channel_dense=_per_channel_dense(options))
        made = file
    else:
        made = _integers(file, measured, kept, options)
    weights.hybrid(made, per_channel_dense=_per_channel_dense(options))
    inputs, outputs = ends.inputs, ends.outputs
    made.sign(inputs, outputs)
    if options.integer_io:
        # The same inputs and outputs at the same places, whatever their numbers are now.
        known = dict(
            zip(
                map(int, (*made.main.inputs, *made.main.outputs)),
                map(int, (*before.inputs, *before.outputs)),
                strict=True,
            )
        )
        tokens = {
            int(i)
            for i, spec in zip(before.inputs, ends.inputs, strict=True)
            if spec.name in ends.tokens
        }
        there = {
            new: measured[old]
            for new, old in known.items()
            if old in measured and old not in tokens
        }
        inputs, outputs = integer_ends(made, inputs, outputs, there, recipe.activations)
    made.strip()
    return Quantized(made.pack(), inputs, outputs)


def _integers(
    file: Flatbuffer, measured: ranges.Ranges, kept: set[str], options: Options
) -> Flatbuffer:
    """TensorFlow's quantizer, on ranges measured here, all but the operators called ``kept``."""
    import tensorflow as tf
    from tensorflow.lite.python.convert import mlir_quantize

    ranges.annotate(file, measured)
    names = [file.name(file.main.tensors[int(i)]) for i in file.main.outputs]
    result = mlir_quantize(
        file.pack(),
        input_data_type=tf.float32,
        output_data_type=tf.float32,
        denylisted_nodes=kept or None,
        disable_per_channel_for_dense_layers=not _per_channel_dense(options),
    )
    made = Flatbuffer(bytes(result))
    # It keeps the order of the outputs, and not every name.
    taken = {int(i) for i in made.main.inputs}
    indices = []
    for index, name in zip(map(int, made.main.outputs), names, strict=True):
        # Nor every copy: an output that is an input as it stands has lost its own tensor.
        own = made.copied(index) if index in taken else index
        taken.add(own)
        made.main.tensors[own].name = name
        indices.append(own)
    made.main.outputs = indices
    return made


def _nodes(file: Flatbuffer) -> list[attention.Node]:
    tensors = file.main.tensors
    return [
        attention.Node(
            file.kind(operator),
            tuple(
                str(int(i))
                for i in operator.inputs
                if int(i) >= 0 and file.constant(tensors[int(i)]) is None
            ),
            tuple(str(int(i)) for i in operator.outputs),
        )
        for operator in file.main.operators
    ]


def _attention(file: Flatbuffer, maps: tuple[str, ...], *, deep: bool = False) -> set[str]:
    """The names by which the quantizer knows the operators of attention."""
    names = {file.name(tensor): str(k) for k, tensor in enumerate(file.main.tensors)}
    found = attention.region(
        _nodes(file), "SOFTMAX", HEAVY, [names[name] for name in maps if name in names], deep=deep
    )
    operators = file.main.operators
    return {file.name(file.main.tensors[int(i)]) for k in found for i in operators[k].outputs}


def _recurrent(file: Flatbuffer, layers: tuple[str, ...]) -> set[str]:
    """The same of steps of recurrent layers that are written out: names tell their layer."""
    if not layers:
        return set()
    inside = re.compile(rf"(^|[/;])({'|'.join(map(re.escape, layers))})(_\d+)?/")
    tensors = file.main.tensors
    found: set[str] = set()
    taken: set[int] = set()
    # Backwards, so that what only carries an input to the steps is found with them: rounding the
    # input to int8 on the way would undo what keeping the steps is for.
    for operator in reversed(file.main.operators):
        made = [int(i) for i in operator.outputs]
        names = [file.name(tensors[i]) for i in made]
        carries = file.kind(operator) in CARRYING and taken.issuperset(made)
        if carries or any(inside.search(name) for name in names):
            found.update(names)
            taken.update(int(i) for i in operator.inputs)
    return found


def _run(
    content: bytes, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...], data: Tensors
) -> Tensors:
    from edgeattn.runners.tflite import TFLiteRunner

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.tflite"
        path.write_bytes(content)
        runner = TFLiteRunner(path, inputs, outputs)
        try:
            return runner.run(data)
        finally:
            runner.close()
