"""Quantizing a float ``.tflite`` file to integers wherever possible, for microcontrollers.

Lite Micro runs on processors without a float unit, and has no kernels for float activations with
int8 weights. What a scheme cannot compute in int8 is therefore int16 here, not float32: the
candidates of an ``int8`` file differ in the operators that are int16.
"""

from collections.abc import Iterable, Set
from dataclasses import replace

import numpy as np

from edgeattn.errors import SchemeError
from edgeattn.schemes import MICRO
from edgeattn.tensors import Tensors
from edgeattn_converters.graphs.tflite_cleanup import (
    drop_unused_tensors,
    share_quantized_inputs,
)
from edgeattn_converters.graphs.tflite_file import TFLiteFile
from edgeattn_converters.options import QuantizationOptions
from edgeattn_converters.quantization.activation_rewrites import PRECISE
from edgeattn_converters.quantization.candidates import SUFFICIENT, TARGET, Candidate, Stage
from edgeattn_converters.quantization.counts import Counts, quotients
from edgeattn_converters.quantization.float_operators import (
    attention_operators,
    recurrent_operators,
)
from edgeattn_converters.quantization.int8_comparisons import compare_integers
from edgeattn_converters.quantization.integer_io import use_tflite_integers
from edgeattn_converters.quantization.integer_only import float_operators, require_micro_operators
from edgeattn_converters.quantization.integer_pass import IntegerPass
from edgeattn_converters.quantization.micro_rewrites import rewrite
from edgeattn_converters.quantization.quantized_model import (
    ModelIO,
    OpenModel,
    QuantizedModel,
    model_opener,
)
from edgeattn_converters.quantization.quantizer import NO_ATTENTION
from edgeattn_converters.quantization.ranges import (
    measure_cells,
    ranges_by_name,
    with_dequantized,
)
from edgeattn_converters.quantization.selection import limit_ratio, selected_rows
from edgeattn_converters.quantization.step_ranges import share_step_ranges
from edgeattn_converters.quantization.tflite_quantizer import TFLiteQuantizer
from edgeattn_converters.recipes import Recipe

# What the parts of a candidate are, for notes.
PARTS = {
    "attention": "softmax, scores and context of attention",
    "projections": "projections of attention",
    "recurrence": "recurrent steps",
    "upstream": "all operators that attention depends on",
}
# The weights that are sums of two int8 values, for notes.
HALVES = {
    "": "",
    "recurrent": "the recurrent weights that attention depends on",
    "all": "the weights that attention depends on",
    "every": "all weights",
}
# TensorFlow's quantizer has these in int8, and Lite Micro has kernels for float32 only.
NOT_IN_INT8 = {"EXP", "LOG", "SQRT"}
JOINED = "input and state of a recurrent step are multiplied in one product"
CUT = "attention weights are lowered by 2/32768, so that the smallest are zero"


class MicroQuantizer(TFLiteQuantizer):
    """Quantizes to integers of one or two widths."""

    # Inputs become integers at once: Lite Micro has no kernels to scale them before.
    _scaling: Set[str] = frozenset()

    def __init__(
        self, content: bytes, io: ModelIO, recipe: Recipe, options: QuantizationOptions
    ) -> None:
        only_int8 = recipe.activations == "int8" and options.runtime != MICRO
        super().__init__(rewrite(content, only_int8=only_int8), io, recipe, options)
        self._cells: dict[str, float] = {}

    def calibrated(self, samples: Tensors) -> QuantizedModel:
        notes = self.calibrate(samples)
        if self.options.attention_precision != "auto" and not self.has_attention:
            notes = (*notes, NO_ATTENTION)
        model = self.select(self._stages(), self.with_activations, samples)
        if self._cells:
            model = replace(model, ratio=self._ratio(model, samples))
        return replace(model, notes=(*_wide_parts(model.candidate), *notes), cost={})

    def calibrate(self, samples: Tensors) -> tuple[str, ...]:
        file = self.copy()
        self.has_steps = bool(recurrent_operators(file, self.io.recurrent))
        ranges, notes = self._measure(file, samples)
        shared = share_step_ranges(file, ranges, self.io.recurrent)
        self._ranges = {**self.widened(file, shared), **Counts(file).ranges()}
        names = [spec.name for spec in self.io.inputs]
        self._cells = measure_cells(file, self.content, samples, names)
        return notes

    @property
    def _compared(self) -> str | None:
        """Lite Micro compares int16, also in ``int8`` files."""
        return "int16" if self.options.runtime == MICRO else super()._compared

    @property
    def _one_width(self) -> bool:
        """Whether an ``int8`` file may have no int16 operators: accelerators have none."""
        return self.recipe.activations == "int16" or self.options.runtime != MICRO

    def _always_float(self, file: TFLiteFile) -> set[str]:
        return set()

    def _coarse_operators(self, file: TFLiteFile) -> set[str]:
        # Float operators would prevent a file with integers only.
        if self._one_width:
            return set()
        precise = {
            name
            for operator in file.main.operators
            for name in [file.name(file.main.tensors[int(operator.outputs[0])])]
            if PRECISE in name or file.kind(operator) in NOT_IN_INT8
        }
        return super()._coarse_operators(file) | quotients(file) | precise

    def _opener(self) -> OpenModel:
        return model_opener(self.content, self.io, runtime=self.options.runtime)

    def _achieves_scheme(self, model: QuantizedModel) -> bool:
        integers = not (self.options.integer_only and model.blockers)
        return integers and super()._achieves_scheme(model)

    def _stages(self) -> Iterable[Stage]:
        """Candidates by the operators that are int16 in an ``int8`` file."""
        if self._one_width:
            return (Stage((Candidate(),)), *self._precise_stages())
        # Attention takes few bytes, and the errors of int8 are the largest on samples that differ
        # from those of the calibration.
        is_wide = self.has_attention and self.options.attention_precision != "int8"
        candidates = [
            Candidate(attention=is_wide, projections=is_wide, recurrence=recurrence)
            for recurrence in ((False, True) if self.has_steps else (False,))
        ]
        if not is_wide:
            return (Stage(tuple(candidates)),)
        return (
            Stage(tuple(candidates)),
            Stage((Candidate(attention=True, upstream=True),), TARGET),
        )

    def _precise_stages(self) -> Iterable[Stage]:
        """More precise weights for sharp attention, in place of the float16 of other runtimes, and
        for outputs near their limits.

        Fused LSTMs have none, so that they are left to :func:`.formats.tflite.convert`.
        """
        if self.recipe.activations != "int16":
            return ()
        if self._cells:
            return (Stage((Candidate(cut_tails=True),), TARGET),) if self.has_attention else ()
        every = Stage((Candidate(halves="every"),), SUFFICIENT)
        if not self.has_attention:
            return (every,)
        kinds: tuple[str, ...] = ("recurrent", "all") if self.has_steps else ("all",)
        return [
            Stage((Candidate(cut_tails=True),), TARGET),
            *(
                Stage((Candidate(halves=kind), Candidate(halves=kind, cut_tails=True)), TARGET)
                for kind in kinds
            ),
            *self._joined_stages(),
            every,
        ]

    def _joined_stages(self) -> Iterable[Stage]:
        """Joined products of recurrent steps, which round once instead of three times."""
        precise = Candidate(halves="all", joined=True)
        if not self._join(self.copy(), precise)[1]:
            return ()
        return (Stage((precise, replace(precise, cut_tails=True)), TARGET),)

    def _in_halves(self, file: TFLiteFile, candidate: Candidate) -> set[str]:
        """The names of the products whose weights are in two halves."""
        if candidate.halves == "every":
            return {file.name(tensor) for tensor in file.main.tensors}
        names = self.upstream[0] if candidate.halves else set[str]()
        if candidate.halves == "recurrent":
            names = names & recurrent_operators(file, self.io.recurrent)
        return names

    def with_activations(self, candidate: Candidate) -> QuantizedModel:
        file, ranges = self.copy(), self._ranges
        if candidate.joined:
            ranges, _ = self._join(file, candidate)
        if self.recipe.activations == "int8":
            file = self._use_int8(file, ranges, self._float_names(file, candidate))
            ranges = with_dequantized(file, ranges_by_name(self.original, self._ranges, file))
            if self._one_width:
                compare_integers(file)
        if self.recipe.activations == "int16" or not self._one_width:
            softmaxes = attention_operators(file, self.io.maps) if candidate.cut_tails else ()
            halves = self._in_halves(file, candidate)
            IntegerPass(file, ranges, self._cells, halves, softmaxes).run()
            share_quantized_inputs(file)
        inputs, outputs = self.io.inputs, self.io.outputs
        file.set_signature(inputs, outputs)
        if self.options.integer_io or self.options.integer_only:
            known = self._ranges_of_io(file)
            inputs, outputs = use_tflite_integers(
                file, inputs, outputs, known, self.recipe.activations
            )
        if self.options.runtime == MICRO:
            require_micro_operators(file)
        blockers = tuple(float_operators(file))
        drop_unused_tensors(file)
        file.set_signature(inputs, outputs)
        file.strip()
        return QuantizedModel(file.pack(), inputs, outputs, candidate, blockers=blockers)

    def _ratio(self, model: QuantizedModel, samples: Tensors) -> float:
        """The largest ratio of an error to its limit for int8 weights, on some samples.

        Outputs that miss the limit of the scheme are beyond the target too. Raises
        :class:`SchemeError` unless sequences give the same bits in another order.
        """
        rows = selected_rows(samples)
        opener = model_opener(self.content, self.io, runtime=MICRO)
        with opener(None) as run:
            expected = run(rows)
        with opener(model, as_deployed=True) as run:
            forward = run(rows)
            backward = run({name: array[::-1] for name, array in rows.items()})
        if any(not np.array_equal(forward[name], backward[name][::-1]) for name in forward):
            raise SchemeError("The state of a fused LSTM is not cleared between sequences.")
        outputs = replace(self.io, outputs=self.io.main, maps=())
        missed = limit_ratio(expected, forward, outputs, self.recipe.scheme)
        return max(limit_ratio(expected, forward, self.io, "int8"), TARGET * missed)


def _wide_parts(candidate: Candidate) -> tuple[str, ...]:
    names = [text for name, text in PARTS.items() if getattr(candidate, name)]
    halves = HALVES[candidate.halves]
    return (
        *((f"in int16: {', '.join(names)}",) if names else ()),
        *((f"two int8 values for each of {halves}",) if halves else ()),
        *((JOINED,) if candidate.joined else ()),
        *((CUT,) if candidate.cut_tails else ()),
    )
