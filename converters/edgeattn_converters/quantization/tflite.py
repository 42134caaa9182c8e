"""A float ``.tflite`` file and a recipe -> the file in that scheme, and what became of it."""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from edgeattn.errors import ConversionError
from edgeattn.tensors import Array, Tensors
from edgeattn_converters.graphs.tflite_file import TFLiteFile
from edgeattn_converters.options import QuantizationOptions
from edgeattn_converters.quantization import attention_region as attention
from edgeattn_converters.quantization import tflite_int16 as wide
from edgeattn_converters.quantization import tflite_ranges as ranges
from edgeattn_converters.quantization import tflite_weights as weights
from edgeattn_converters.quantization.candidates import (
    PLAIN,
    Candidate,
    dynamic_stages,
    static_stages,
)
from edgeattn_converters.quantization.layer_weights import PrecisionOf, key_of
from edgeattn_converters.quantization.selection import (
    ModelIO,
    OpenModel,
    QuantizedModel,
    RunFunction,
    candidate_precision,
    select_candidate,
    split_samples,
    with_summary,
)
from edgeattn_converters.quantization.tflite_integer_io import use_integer_io
from edgeattn_converters.quantization.tflite_summary import summarize
from edgeattn_converters.recipes import Recipe

CARRYING = ("RESHAPE", "TRANSPOSE", "EXPAND_DIMS", "SQUEEZE")
HEAVY = frozenset({"BATCH_MATMUL", "FULLY_CONNECTED", "SUM", "CONV_2D", "REDUCE_SUM"})


def quantize(
    content: bytes,
    ends: ModelIO,
    recipe: Recipe,
    options: QuantizationOptions,
    samples: Tensors | None,
) -> QuantizedModel:
    """``content`` in the scheme of ``recipe``, and the account of it.

    ``samples`` are real inputs, for the schemes that measure activations. Raises
    :class:`ConversionError` where the scheme cannot be made of this file, or was not reached.
    """
    made = _made(content, ends, recipe, options, samples)
    return with_summary(made, summarize(made.content), recipe, options)


def _made(
    content: bytes,
    ends: ModelIO,
    recipe: Recipe,
    options: QuantizationOptions,
    samples: Tensors | None,
) -> QuantizedModel:
    if recipe.scheme == "float32":
        return QuantizedModel(content, ends.inputs, ends.outputs)
    if recipe.needs_calibration:
        if not samples:
            raise ConversionError(f"{recipe.scheme} needs samples: --calibration FILE")
        return _static(content, ends, recipe, options, samples)
    usual = {"float16": "float16", "int4": "int4"}.get(recipe.scheme, "int8")
    if usual == "int4" and options.runtime != "litert":
        raise ConversionError(
            f"{options.runtime} has no kernel for int4 weights: they need LiteRT.",
            hint="Make them with --target litert.",
        )
    before = TFLiteFile(content)
    attended, upstream = _upstream(before, ends.maps)

    def make(plan: Candidate) -> QuantizedModel:
        file = TFLiteFile(content)
        how = "int8_weights" if plan.careful else usual
        _store(file, candidate_precision(plan, ends, options, how, upstream), options)
        file.strip()
        return QuantizedModel(file.pack(), ends.inputs, ends.outputs, plan)

    if recipe.scheme in ("float16", "int4"):
        return make(PLAIN)
    steps = dynamic_stages(attended=bool(attended), recurrent=ends.recurs)
    return select_candidate(steps, make, _opener(content, ends), ends, recipe.scheme, samples)


def _store(file: TFLiteFile, precision_of: PrecisionOf, options: QuantizationOptions) -> None:
    """Each large weight in its precision, in place."""

    def stored(how: str) -> Callable[[Array], bool]:
        return lambda value: precision_of(value) == how

    dense = _per_channel_dense(options)
    weights.hybrid(
        file,
        per_channel_dense=dense,
        wanted=lambda value: precision_of(value) in ("int8", "int4"),
        four_bits=stored("int4"),
    )
    weights.only(file, per_channel_dense=dense, wanted=stored("int8_weights"))
    weights.half(file, stored("float16"))


def _per_channel_dense(options: QuantizationOptions) -> bool:
    # tflite-runtime 2.14 knows FULLY_CONNECTED up to version 11, and computes wrong numbers for
    # int8 weights with a scale per channel.
    return options.runtime != "tflite-runtime"


def _static(
    content: bytes, ends: ModelIO, recipe: Recipe, options: QuantizationOptions, samples: Tensors
) -> QuantizedModel:
    file = TFLiteFile(content)
    if any(kind == weights.FUSED for _, _, kind in file.operators()):
        raise ConversionError(
            f"{recipe.scheme} cannot be made of fused LSTMs: their states, whose ranges would be "
            "needed, are never seen from outside.",
            hint="Leave --lowering out; dynamic_int8 can be fused.",
        )
    measuring, judged = split_samples(samples)
    measured, spread = ranges.measure(file, content, measuring, [s.name for s in ends.inputs])
    steps = static_stages(
        recipe,
        options,
        attended=bool(_attention(file, ends.maps)),
        recurrent=ends.recurs,
        written_out=bool(_recurrent(file, ends.recurrent)),
    )
    best = select_candidate(
        steps,
        lambda plan: _quantized(content, measured, ends, recipe, options, plan),
        _opener(content, ends),
        ends,
        recipe.scheme,
        judged,
    )
    return replace(best, told=(*best.told, *spread))


def _quantized(
    content: bytes,
    measured: ranges.Ranges,
    ends: ModelIO,
    recipe: Recipe,
    options: QuantizationOptions,
    plan: Candidate,
) -> QuantizedModel:
    file = TFLiteFile(content)
    before = TFLiteFile(content).main
    made_of, upstream = _upstream(file, ends.maps)
    precision_of = candidate_precision(plan, ends, options, "int8", upstream)
    kept = _with_weights(file, lambda value: precision_of(value) != "int8")
    if plan.attention:
        kept |= _attention(file, ends.maps, deep=plan.deep)
    if plan.upstream:
        kept |= made_of
    if plan.recurrence:
        kept |= _recurrent(file, ends.recurrent)
    if recipe.activations == "int16":
        wide.widen(file, measured, kept, per_channel_dense=_per_channel_dense(options))
        made = file
    else:
        made = _integers(file, measured, kept, options)
    _store(made, precision_of, options)
    inputs, outputs = ends.inputs, ends.outputs
    made.set_signature(inputs, outputs)
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
        inputs, outputs = use_integer_io(made, inputs, outputs, there, recipe.activations)
    made.strip()
    return QuantizedModel(made.pack(), inputs, outputs, plan)


def _integers(
    file: TFLiteFile, measured: ranges.Ranges, kept: set[str], options: QuantizationOptions
) -> TFLiteFile:
    """TensorFlow's quantizer, on ranges measured here, all but the operators called ``kept``."""
    import tensorflow as tf
    from tensorflow.lite.python.convert import mlir_quantize

    meeting = _meeting(file, kept)
    ranges.annotate(file, {k: v for k, v in measured.items() if k in meeting})
    names = [file.name(file.main.tensors[int(i)]) for i in file.main.outputs]
    result = mlir_quantize(
        file.pack(),
        input_data_type=tf.float32,
        output_data_type=tf.float32,
        denylisted_nodes=kept or None,
        disable_per_channel_for_dense_layers=not _per_channel_dense(options),
    )
    made = TFLiteFile(bytes(result))
    # It keeps the order of the outputs, and not every name.
    taken = {int(i) for i in made.main.inputs}
    indices = []
    for index, name in zip(map(int, made.main.outputs), names, strict=True):
        # Nor every copy: an output that is an input as it stands has lost its own tensor.
        own = made.copy_tensor(index) if index in taken else index
        taken.add(own)
        made.main.tensors[own].name = name
        indices.append(own)
    made.main.outputs = indices
    return made


def _meeting(file: TFLiteFile, kept: set[str]) -> set[int]:
    """The tensors that an operator makes or takes that is not ``kept``.

    The quantizer knows operators of several outputs (``SPLIT``, ``UNPACK``) by no name: only where
    it is told no range does it leave those alone.
    """
    found: set[int] = set()
    for operator in file.main.operators:
        made = [int(i) for i in operator.outputs]
        if not kept.issuperset(file.name(file.main.tensors[i]) for i in made):
            found.update((*made, *map(int, operator.inputs)))
    return found


def _nodes(file: TFLiteFile) -> list[attention.Node]:
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


def _attention(file: TFLiteFile, maps: tuple[str, ...], *, deep: bool = False) -> set[str]:
    """The names by which the quantizer knows the operators of attention."""
    found = attention.region(_nodes(file), "SOFTMAX", HEAVY, _shown(file, maps), deep=deep)
    return _made_by(file, found)


def _upstream(file: TFLiteFile, maps: tuple[str, ...]) -> tuple[set[str], set[bytes]]:
    """The same with all that attention's scores are made of; and the keys of the large constants
    among those, in loops too."""
    found = attention.upstream(_nodes(file), "SOFTMAX", HEAVY, _shown(file, maps))
    keys: set[bytes] = set()
    for k in found:
        for graph, operator in file.nested_operators(file.main.operators[k]):
            values = [file.constant(graph.tensors[int(i)]) for i in operator.inputs if int(i) >= 0]
            keys.update(
                key_of(v) for v in values if v is not None and v.size >= weights.MIN_ELEMENTS
            )
    return _made_by(file, found), keys


def _shown(file: TFLiteFile, maps: tuple[str, ...]) -> list[str]:
    names = {file.name(tensor): str(k) for k, tensor in enumerate(file.main.tensors)}
    return [names[name] for name in maps if name in names]


def _made_by(file: TFLiteFile, positions: set[int]) -> set[str]:
    operators, tensors = file.main.operators, file.main.tensors
    return {file.name(tensors[int(i)]) for k in positions for i in operators[k].outputs}


def _with_weights(file: TFLiteFile, wanted: weights.WeightFilter) -> set[str]:
    """The same of operators with large weights of this kind."""
    tensors = file.main.tensors
    found: set[str] = set()
    for operator in file.main.operators:
        values = [file.constant(tensors[int(i)]) for i in operator.inputs if int(i) >= 0]
        if any(v is not None and v.size >= weights.MIN_ELEMENTS and wanted(v) for v in values):
            found.update(file.name(tensors[int(i)]) for i in operator.outputs)
    return found


def _recurrent(file: TFLiteFile, layers: tuple[str, ...]) -> set[str]:
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


def _opener(content: bytes, ends: ModelIO) -> OpenModel:
    """Opens what was made, or the float32 file ``content``, in LiteRT."""
    from edgeattn.runners.tflite import TFLiteRunner

    @contextlib.contextmanager
    def opened(made: QuantizedModel | None) -> Iterator[RunFunction]:
        item = made or QuantizedModel(content, ends.inputs, ends.outputs)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.tflite"
            path.write_bytes(item.content)
            runner = TFLiteRunner(path, item.inputs, item.outputs)
            try:
                yield runner.run
            finally:
                runner.close()

    return opened
