"""What the quantizers of ``.tflite`` files share, whichever runtime they are for."""

from collections.abc import Callable, Iterable, Set
from dataclasses import replace
from functools import cached_property
from typing import Any

from edgeattn.errors import SchemeError
from edgeattn.file_structure.tflite import read_tflite
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
from edgeattn_converters.quantization.instructions import float_products
from edgeattn_converters.quantization.joined_products import join_step_products
from edgeattn_converters.quantization.layer_weights import key_of
from edgeattn_converters.quantization.least_ranges import with_least_ranges
from edgeattn_converters.quantization.lookup_ranges import with_table_ranges
from edgeattn_converters.quantization.mask_fills import mask_operators
from edgeattn_converters.quantization.mask_values import tflite_mask_values, with_masked_inputs
from edgeattn_converters.quantization.negative_zeros import without_negative_zeros
from edgeattn_converters.quantization.output_ranges import (
    ranges_at_ends,
    widen_tflite_outputs,
    with_map_bounds,
)
from edgeattn_converters.quantization.quantized_model import ModelIO, QuantizedModel
from edgeattn_converters.quantization.quantizer import Quantizer
from edgeattn_converters.quantization.ranges import Observer, Ranges, measure_ranges, unobserved
from edgeattn_converters.quantization.state_updates import state_updates, step_products
from edgeattn_converters.quantization.summary import SchemeSummary, summary_of
from edgeattn_converters.quantization.tensorflow_quantizer import quantized_by_tensorflow
from edgeattn_converters.quantization.tflite_weights import store_weights
from edgeattn_converters.recipes import Recipe


class TFLiteQuantizer(Quantizer):
    """Quantizes a float32 ``.tflite`` file."""

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

    def summary(self, model: QuantizedModel) -> SchemeSummary:
        return summary_of(read_tflite(model.content))

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
        return super().select(stages, quantize, inputs)

    def _with_different_files(self, stage: Stage) -> Stage:
        """``stage`` without the candidates that would be the file of one before them.

        Such candidates name the same operators.
        """
        if len(stage.candidates) < 2:
            return stage
        distinct: dict[tuple[Candidate, frozenset[str]], Candidate] = {}
        for candidate in stage.candidates:
            rest = replace(
                candidate, attention=False, projections=False, states=False, functions=False
            )
            names = self._float_names(self.original, candidate)
            distinct.setdefault((rest, frozenset(names)), candidate)
        return replace(stage, candidates=tuple(distinct.values()))

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
