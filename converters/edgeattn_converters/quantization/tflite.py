"""Quantizing a float ``.tflite`` file to a scheme."""

from collections.abc import Callable, Iterable, Set
from dataclasses import replace
from functools import cached_property
from typing import Any

from edgeattn.errors import SchemeError
from edgeattn.file_structure.tflite import read_tflite
from edgeattn.schemes import MICRO
from edgeattn.tensors import Array, Tensors
from edgeattn_converters.graphs.tflite_file import TFLiteFile
from edgeattn_converters.options import QuantizationOptions
from edgeattn_converters.quantization.activation_rewrites import with_limited_exponentials
from edgeattn_converters.quantization.activation_scales import coarse_operators
from edgeattn_converters.quantization.candidates import Candidate, Stage
from edgeattn_converters.quantization.feature_scaling import scaling_operators
from edgeattn_converters.quantization.float_operators import (
    attention_operators,
    faster_in_float,
    one_hot_operators,
    operators_with_weights,
    quotient_operators,
    recurrent_operators,
    spectrum_operators,
    truncated_operators,
    upstream_operators,
)
from edgeattn_converters.quantization.instructions import (
    estimate_instructions,
    float_products,
)
from edgeattn_converters.quantization.integer_io import use_tflite_integers
from edgeattn_converters.quantization.joined_products import join_step_products
from edgeattn_converters.quantization.layer_weights import key_of
from edgeattn_converters.quantization.least_ranges import with_least_ranges
from edgeattn_converters.quantization.lookup_ranges import with_table_ranges
from edgeattn_converters.quantization.loop_ranges import LoopRanges
from edgeattn_converters.quantization.mask_fills import mask_operators
from edgeattn_converters.quantization.mask_values import (
    compare_tflite_integers,
    tflite_mask_values,
    with_masked_inputs,
)
from edgeattn_converters.quantization.negative_zeros import without_negative_zeros
from edgeattn_converters.quantization.output_ranges import (
    ranges_at_ends,
    widen_tflite_outputs,
    with_map_bounds,
)
from edgeattn_converters.quantization.quantized_model import (
    ModelIO,
    QuantizationSamples,
    QuantizedModel,
)
from edgeattn_converters.quantization.quantizer import Quantizer
from edgeattn_converters.quantization.ranges import (
    Observer,
    Ranges,
    measure_ranges,
    ranges_by_name,
    unobserved,
)
from edgeattn_converters.quantization.selection import within_target
from edgeattn_converters.quantization.state_updates import state_updates, step_products
from edgeattn_converters.quantization.step_ranges import share_step_ranges
from edgeattn_converters.quantization.summary import SLOW, SchemeSummary, summary_of
from edgeattn_converters.quantization.tensorflow_quantizer import quantized_by_tensorflow
from edgeattn_converters.quantization.tflite_int8 import Int8Pass
from edgeattn_converters.quantization.tflite_int16 import Int16Pass
from edgeattn_converters.quantization.tflite_weights import FUSED, store_weights
from edgeattn_converters.recipes import Recipe


def quantize(
    content: bytes,
    io: ModelIO,
    recipe: Recipe,
    options: QuantizationOptions,
    samples: Tensors | QuantizationSamples | None,
    quantizer: "type[TFLiteQuantizer] | None" = None,
) -> QuantizedModel:
    """Quantize a float32 file and summarize the result; ``quantizer`` is that of another runtime.

    ``samples`` are real inputs, which schemes with calibrated activations need. Raises
    :class:`SchemeError` if the result does not achieve the scheme of ``recipe``.
    """
    used = (quantizer or TFLiteQuantizer)(content, io, recipe, options)
    model = used.quantize(samples)
    if recipe.activations == "int16" and options.runtime != MICRO:
        model = replace(model, notes=(*model.notes, _int16_note(content, model.content)))
    return used.summarized(model)


def _int16_note(original: bytes, content: bytes) -> str:
    before, after = (sum(estimate_instructions(file).values()) for file in (original, content))
    note = f"{SLOW}: int16 operators are reference kernels"
    if not before:  # of a graph that only moves data
        return note
    return f"{note}, with {after / before:.2g} times the ARM instructions of float32 (estimated)"


class TFLiteQuantizer(Quantizer):
    """Quantizes a ``.tflite`` file for LiteRT or tflite-runtime."""

    def __init__(
        self, content: bytes, io: ModelIO, recipe: Recipe, options: QuantizationOptions
    ) -> None:
        if recipe.needs_calibration:
            content = with_limited_exponentials(without_negative_zeros(content))
        super().__init__(content, io, recipe, options)
        if recipe.scheme == "int4" and options.runtime != "litert":
            raise SchemeError(
                f"{options.runtime} has no kernel for int4 weights.",
                hint="Convert for LiteRT with --target litert.",
            )
        # FULLY_CONNECTED of tflite-runtime 2.14 computes wrong results with one scale per channel.
        self._per_channel_dense = options.runtime != "tflite-runtime"
        self._ranges: Ranges = {}
        self._shared: Ranges = {}  # with one range for all steps of a recurrence
        self._loops: dict[int, Ranges] = {}  # inside loops, by graph

    def summary(self, model: QuantizedModel) -> SchemeSummary:
        return summary_of(read_tflite(model.content))

    def expense(self, model: QuantizedModel) -> float:
        return sum(estimate_instructions(model.content).values())

    @cached_property
    def original(self) -> TFLiteFile:
        """The float32 file, which must not be changed."""
        return TFLiteFile(self.content)

    @cached_property
    def copy(self) -> Callable[[], TFLiteFile]:
        """Returns the float32 file, to be changed, as each candidate does."""
        return self.original.copier()

    @cached_property
    def upstream(self) -> tuple[set[Any], set[bytes]]:
        return upstream_operators(self.original, self.io.maps)

    @cached_property
    def spectrum(self) -> tuple[set[Any], dict[bytes, int]]:
        return spectrum_operators(self.original)

    @cached_property
    def _scaling(self) -> Set[str]:
        """The operators that stay float32 because they scale the inputs."""
        return set() if self.options.integer_io else scaling_operators(self.original)

    def _always_float(self, file: TFLiteFile) -> set[str]:
        """The operators that no candidate quantizes, so that any range is wide enough."""
        return {*self._scaling, *quotient_operators(file)}

    def with_weights(self, candidate: Candidate) -> QuantizedModel:
        file = self.copy()
        self._store_weights(file, candidate)
        file.strip()
        return self.model(file.pack(), candidate)

    def _join(self, file: TFLiteFile, candidate: Candidate) -> tuple[Ranges, int]:
        """Join the products of steps whose weights have the precision of the scheme, in place; see
        :func:`join_step_products`."""
        precision_of = self.precision_of(candidate)
        return join_step_products(file, self._ranges, lambda value: precision_of(value) == "int8")

    def _store_weights(self, file: TFLiteFile, candidate: Candidate) -> None:
        usual = self.precision_of(candidate)
        # Small products would lose more by scaling their inputs than they gain, and precision too.
        floats = float_products(file)

        def precision_of(value: Array) -> str:
            precision = usual(value)
            is_float = precision == "int8" and key_of(value) in floats
            return "int8_weights" if is_float else precision

        store_weights(file, precision_of, per_channel_dense=self._per_channel_dense)

    def calibrate(self, samples: Tensors) -> tuple[str, ...]:
        file = self.copy()
        if any(kind == FUSED for _, _, kind in file.operators()):
            raise SchemeError(
                f"{self.recipe.scheme} does not support fused LSTMs, because the range of their "
                "state cannot be measured.",
                hint="Omit --lowering, or use the scheme dynamic_int8.",
            )
        loops = LoopRanges(self.content)
        ranges, notes = self._measure(file, samples, loops.add)
        self._ranges = self.widened(file, ranges)
        if self.recipe.activations == "int8":
            self._shared = self.widened(file, share_step_ranges(file, ranges, self.io.recurrent))
        if self.recipe.activations == "int8" and self._per_channel_dense:
            self._loops = {
                number: with_least_ranges(file, graph, with_table_ranges(file, graph, inner))
                for number, inner in loops.ranges.items()
                for graph in [file.model.subgraphs[number]]
            }
        self.has_steps = bool(self._loops or recurrent_operators(file, self.io.recurrent))
        return notes

    def _measure(
        self, file: TFLiteFile, samples: Tensors, observe: Observer = unobserved
    ) -> tuple[Ranges, tuple[str, ...]]:
        """As :func:`.ranges.measure_ranges`, with the ranges of :func:`with_table_ranges`."""
        names = [spec.name for spec in self.io.inputs]
        ranges, notes = measure_ranges(file, self.content, samples, names, observe)
        by_index = dict(
            zip(map(int, file.main.inputs), map(samples.__getitem__, names), strict=True)
        )
        ranges = with_masked_inputs(ranges, tflite_mask_values(file), by_index, self._compared)
        return with_table_ranges(file, file.main, ranges), notes

    @property
    def _compared(self) -> str | None:
        """The integers in which inputs are compared with values; None if they are real numbers."""
        has_integers = self.options.integer_io or self.options.integer_only
        return self.recipe.activations if has_integers else None

    def widened(self, file: TFLiteFile, ranges: Ranges) -> Ranges:
        """``ranges`` that kernels can compute, with room for outputs; int16 has it everywhere."""
        ranges = with_least_ranges(file, file.main, ranges, self._always_float(file))
        ranges = with_map_bounds(file, ranges, self.io)
        is_int8 = self.recipe.activations == "int8"
        return widen_tflite_outputs(file, ranges, self.io) if is_int8 else ranges

    def select(
        self,
        stages: Iterable[Stage],
        quantize: Callable[[Candidate], QuantizedModel],
        inputs: Tensors | None,
    ) -> QuantizedModel:
        if self.recipe.needs_calibration:
            stages = [self._with_different_files(stage) for stage in stages]
        model = super().select(stages, quantize, inputs)
        if inputs is None:
            return model
        samples = replace(QuantizationSamples.of(self.samples or inputs), inputs=inputs)
        model = self._with_shared_ranges(model, quantize, samples)
        return self._with_joined_products(model, quantize, samples)

    def _with_different_files(self, stage: Stage) -> Stage:
        """``stage`` without the candidates that would be the file of one before them.

        Such candidates name the same operators. In loops, candidates differ by more than the names
        of operators.
        """
        if self._loops or len(stage.candidates) < 2:
            return stage
        distinct: dict[tuple[Candidate, frozenset[str]], Candidate] = {}
        for candidate in stage.candidates:
            rest = replace(
                candidate, attention=False, projections=False, states=False, functions=False
            )
            names = self._float_names(self.original, candidate)
            distinct.setdefault((rest, frozenset(names)), candidate)
        return replace(stage, candidates=tuple(distinct.values()))

    def _with_shared_ranges(
        self,
        model: QuantizedModel,
        quantize: Callable[[Candidate], QuantizedModel],
        samples: QuantizationSamples,
    ) -> QuantizedModel:
        """The model with one range for all steps, if that is near the limits.

        One range rounds the quiet steps more, but clips no loud one that calibration has only at
        other steps.
        """
        candidate = model.candidate
        if not self._shared or not self._has_integer_steps(candidate):
            return model
        if self._ranges == self._shared:
            return model
        own, self._ranges = self._ranges, self._shared
        shared = quantize(candidate)
        if within_target(self._opener(), self.io, self.recipe.scheme, shared, samples):
            return replace(shared, notes=model.notes, cost=model.cost)
        self._ranges = own
        return model

    def _with_joined_products(
        self,
        model: QuantizedModel,
        quantize: Callable[[Candidate], QuantizedModel],
        samples: QuantizationSamples,
    ) -> QuantizedModel:
        """The model with joined products of integer steps, if it is faster and near the limits."""
        candidate = model.candidate
        if self.options.runtime != "litert" or self.options.integer_only:
            return model
        if self.recipe.activations != "int8" or candidate.recurrence or candidate.upstream:
            return model
        if not self._join(self.copy(), candidate)[1]:
            return model
        scheme = self.recipe.scheme
        try:
            joined = quantize(replace(candidate, joined=True))
            if self.expense(joined) >= self.expense(model):
                return model
            if not within_target(self._opener(), self.io, scheme, joined, samples):
                return model
        except Exception:  # quantizers and runtimes raise errors of their own classes
            return model
        return replace(joined, notes=model.notes, cost=model.cost)

    def with_activations(self, candidate: Candidate) -> QuantizedModel:
        file, ranges = self.copy(), self._ranges
        if candidate.joined:
            ranges, _ = self._join(file, candidate)
        float_names = self._float_names(file, candidate)
        if self.recipe.activations == "int16":
            Int16Pass(file, self._ranges, float_names, self._per_channel_dense).run()
        elif self._loops and self._has_integer_steps(candidate):
            for number, inner in self._loops.items():
                graph = file.model.subgraphs[number]
                Int8Pass(file, graph, inner, _floats_in_loop(file, graph, candidate)).run()
            Int8Pass(file, file.main, ranges, _indices(file, float_names)).run()
        elif candidate.step_products:
            # TensorFlow's quantizer would round the states for all that read them.
            products = step_products(file, self.io.recurrent) - float_names
            file = self._use_int8(file, ranges, float_names | products)
            floats = set(range(len(file.main.tensors))) - _indices(file, products)
            Int8Pass(
                file, file.main, ranges_by_name(self.original, self._ranges, file), floats
            ).run()
        else:
            file = self._use_int8(file, ranges, float_names)
        self._store_weights(file, candidate)
        inputs, outputs = self.io.inputs, self.io.outputs
        file.set_signature(inputs, outputs)
        if self.options.integer_io:
            ranges = self._ranges_of_io(file)
            inputs, outputs = use_tflite_integers(
                file, inputs, outputs, ranges, self.recipe.activations
            )
            compare_tflite_integers(file, inputs)
        file.strip()
        return QuantizedModel(file.pack(), inputs, outputs, candidate)

    def _has_integer_steps(self, candidate: Candidate) -> bool:
        return not candidate.upstream and (not candidate.recurrence or candidate.step_products)

    def _float_names(self, file: TFLiteFile, candidate: Candidate) -> set[str]:
        """The names of the operators that stay float32."""
        precision_of = self.precision_of(candidate)
        names: set[str] = set()
        if candidate.attention:
            names |= attention_operators(file, self.io.maps, projections=candidate.projections)
        if candidate.recurrence:
            names |= recurrent_operators(file, self.io.recurrent)
        if candidate.step_products:
            names -= step_products(file, self.io.recurrent)
        names |= operators_with_weights(file, lambda value: precision_of(value) != "int8")
        names |= quotient_operators(file) | one_hot_operators(file) | truncated_operators(file)
        names |= self.spectrum[0]
        names |= self._coarse_operators(file)
        if candidate.upstream:
            names |= self.upstream[0]
            names |= faster_in_float(file, names)
        if candidate.states:
            tensors = file.main.tensors
            updates = state_updates(file, file.main, functions=candidate.functions)
            names |= {file.name(tensors[i]) for i in updates}
        return names

    def _coarse_operators(self, file: TFLiteFile) -> set[str]:
        """The operators that integers would round too much; see :func:`coarse_operators`."""
        names = mask_operators(file) | self._scaling
        if self.recipe.activations == "int8":
            steps = recurrent_operators(file, self.io.recurrent)
            names |= coarse_operators(file, self._ranges, steps)
        return names

    def _use_int8(self, file: TFLiteFile, ranges: Ranges, float_names: set[str]) -> TFLiteFile:
        """The result of TensorFlow's quantizer with these ranges of the tensors of ``file``."""
        measured = self.original, self._ranges
        dense = self._per_channel_dense
        return quantized_by_tensorflow(file, ranges, float_names, measured, per_channel_dense=dense)

    def _ranges_of_io(self, file: TFLiteFile) -> Ranges:
        """The ranges of the inputs and outputs of ``file``; see :func:`ranges_at_ends`."""
        original = self.original
        ranges = self._ranges
        if self.recipe.activations != "int8":
            ranges = widen_tflite_outputs(original, ranges, self.io)
        return ranges_at_ends(original, ranges, file.main, self.io)


def _floats_in_loop(file: TFLiteFile, graph: Any, candidate: Candidate) -> set[int]:
    """The tensors of a loop's body whose operators stay float32."""
    if candidate.step_products:
        # The input products of all steps are computed before the loop.
        products = (item for item in graph.operators if file.kind(item) == "FULLY_CONNECTED")
        return set(range(len(graph.tensors))) - {int(item.outputs[0]) for item in products}
    if candidate.states:
        return state_updates(file, graph, functions=candidate.functions)
    return set()


def _indices(file: TFLiteFile, names: set[str]) -> set[int]:
    """The tensors of the main graph with these names."""
    return {k for k, tensor in enumerate(file.main.tensors) if file.name(tensor) in names}
