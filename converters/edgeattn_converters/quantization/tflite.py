"""Quantizing a float ``.tflite`` file to a scheme, for LiteRT or tflite-runtime by default."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from edgeattn.errors import SchemeError
from edgeattn.schemes import MICRO
from edgeattn.tensors import Tensors
from edgeattn_converters.graphs.tflite_file import TFLiteFile
from edgeattn_converters.options import QuantizationOptions
from edgeattn_converters.quantization.candidates import Candidate, Stage
from edgeattn_converters.quantization.float_operators import recurrent_operators
from edgeattn_converters.quantization.instructions import estimate_instructions
from edgeattn_converters.quantization.integer_io import use_tflite_integers
from edgeattn_converters.quantization.least_ranges import with_least_ranges
from edgeattn_converters.quantization.lookup_ranges import with_table_ranges
from edgeattn_converters.quantization.loop_ranges import LoopRanges
from edgeattn_converters.quantization.mask_values import compare_tflite_integers
from edgeattn_converters.quantization.quantized_model import (
    ModelIO,
    QuantizationSamples,
    QuantizedModel,
)
from edgeattn_converters.quantization.ranges import Ranges, ranges_by_name
from edgeattn_converters.quantization.selection import within_target
from edgeattn_converters.quantization.state_updates import state_updates, step_products
from edgeattn_converters.quantization.step_ranges import share_step_ranges
from edgeattn_converters.quantization.summary import SLOW
from edgeattn_converters.quantization.tflite_int8 import Int8Pass
from edgeattn_converters.quantization.tflite_int16 import Int16Pass
from edgeattn_converters.quantization.tflite_quantizer import TFLiteQuantizer
from edgeattn_converters.quantization.tflite_weights import FUSED
from edgeattn_converters.recipes import Recipe


def quantize(
    content: bytes,
    io: ModelIO,
    recipe: Recipe,
    options: QuantizationOptions,
    samples: Tensors | QuantizationSamples | None,
    quantizer: type[TFLiteQuantizer] | None = None,
) -> QuantizedModel:
    """Quantize a float32 file and summarize the result; ``quantizer`` is that of another runtime.

    ``samples`` are real inputs, which schemes with calibrated activations need. Raises
    :class:`SchemeError` if the result does not achieve the scheme of ``recipe``.
    """
    used = (quantizer or LiteRTQuantizer)(content, io, recipe, options)
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


class LiteRTQuantizer(TFLiteQuantizer):
    """Quantizes a ``.tflite`` file for LiteRT or tflite-runtime."""

    def __init__(
        self, content: bytes, io: ModelIO, recipe: Recipe, options: QuantizationOptions
    ) -> None:
        super().__init__(content, io, recipe, options)
        self._shared: Ranges = {}  # with one range for all steps of a recurrence
        self._loops: dict[int, Ranges] = {}  # inside loops, by graph

    def expense(self, model: QuantizedModel) -> float:
        return sum(estimate_instructions(model.content).values())

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

    def select(
        self,
        stages: Iterable[Stage],
        quantize: Callable[[Candidate], QuantizedModel],
        inputs: Tensors | None,
    ) -> QuantizedModel:
        model = super().select(stages, quantize, inputs)
        if inputs is None:
            return model
        samples = replace(QuantizationSamples.of(self.samples or inputs), inputs=inputs)
        model = self._with_shared_ranges(model, quantize, samples)
        return self._with_joined_products(model, quantize, samples)

    def _with_different_files(self, stage: Stage) -> Stage:
        # In loops, candidates differ by more than the names of operators.
        return stage if self._loops else super()._with_different_files(stage)

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
