"""The course of a quantization, which both formats share."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from edgeattn.errors import ConversionError, SchemeError
from edgeattn.printable import counted
from edgeattn.tensors import Tensors
from edgeattn_converters.options import QuantizationOptions
from edgeattn_converters.quantization.candidates import (
    DEFAULT,
    Candidate,
    Stage,
    dynamic_stages,
    static_stages,
)
from edgeattn_converters.quantization.layer_weights import key_of
from edgeattn_converters.quantization.quantized_model import (
    ModelIO,
    OpenModel,
    QuantizationSamples,
    QuantizedModel,
    model_opener,
)
from edgeattn_converters.quantization.selection import select_candidate
from edgeattn_converters.quantization.summary import (
    SchemeSummary,
    require_scheme,
    with_summary,
    without_exact,
)
from edgeattn_converters.quantization.weight_precision import PrecisionOf, candidate_precision
from edgeattn_converters.recipes import Recipe

# A note if a precision of attention was requested without effect.
NO_ATTENTION = "the file has no attention whose precision could be chosen"


class Quantizer(ABC):
    """Quantizes a float32 model, ``content``, to the scheme of ``recipe``."""

    # Whether steps of a recurrence could be integers.
    has_steps = False

    def __init__(
        self, content: Any, io: ModelIO, recipe: Recipe, options: QuantizationOptions
    ) -> None:
        self.content, self.io, self.recipe, self.options = content, io, recipe, options
        self.samples: QuantizationSamples | None = None

    def quantize(self, samples: Tensors | QuantizationSamples | None) -> QuantizedModel:
        """Quantize with the best candidate for these real inputs.

        Raises :class:`ConversionError` if the model cannot be converted to the scheme, or if the
        scheme needs calibration and there are no samples.
        """
        self.samples = QuantizationSamples.of(samples) if samples else None
        inputs = None if self.samples is None else self.samples.inputs
        if self.recipe.scheme == "float32":
            return self.model(self.content, DEFAULT)
        if self.recipe.needs_calibration:
            if not inputs:
                raise ConversionError(
                    f"{self.recipe.scheme} needs calibration samples.",
                    hint="Pass them: --calibration FILE",
                )
            inputs, notes = self._without_nan(inputs)
            model = self.calibrated(inputs)
            return replace(model, notes=(*model.notes, *notes))
        if self.recipe.scheme in ("float16", "int4"):
            return self.with_weights(DEFAULT)
        stages = dynamic_stages(has_attention=self.has_attention, is_recurrent=self.io.is_recurrent)
        return self.select(stages, self.with_weights, inputs)

    def _without_nan(self, samples: Tensors) -> tuple[Tensors, tuple[str, ...]]:
        """The samples that have no NaN among the outputs of the float32 model, and a note if some
        have: the mean over the real steps of a sequence of padding alone is 0 / 0.

        Raises :class:`ConversionError` if none remain.
        """
        with self._opener()(None) as run:
            outputs = run(samples)
        rows = len(next(iter(samples.values())))
        is_nan = np.zeros(rows, bool)
        for value in outputs.values():
            if value.dtype.kind == "f" and len(value) == rows:
                is_nan |= np.isnan(value).reshape(rows, -1).any(axis=1)
        if is_nan.all():
            raise ConversionError(
                f"Outputs of the float32 model are NaN for all calibration samples ({rows}).",
                hint="Pass samples that are prepared as in training: --calibration FILE",
            )
        if not is_nan.any():
            return samples, ()
        note = (
            f"not used for calibration, because outputs are NaN: {is_nan.sum()} of "
            f"{counted(rows, 'sample')}"
        )
        return {name: array[~is_nan] for name, array in samples.items()}, (note,)

    def calibrated(self, samples: Tensors) -> QuantizedModel:
        """Quantize weights and activations, whose ranges are measured on ``samples``."""
        notes = self.calibrate(samples)
        if self.options.attention_precision != "auto" and not self.has_attention:
            notes = (*notes, NO_ATTENTION)
        stages = static_stages(
            self.recipe,
            self.options,
            has_attention=self.has_attention,
            is_recurrent=self.io.is_recurrent,
            has_steps=self.has_steps,
        )
        model = self.select(stages, self.with_activations, samples)
        return replace(model, notes=(*model.notes, *notes))

    def select(
        self,
        stages: Iterable[Stage],
        quantize: Callable[[Candidate], QuantizedModel],
        inputs: Tensors | None,
    ) -> QuantizedModel:
        """The best candidate on ``inputs`` and the rows of the reference."""
        samples = None
        if inputs is not None:
            samples = replace(QuantizationSamples.of(self.samples or inputs), inputs=inputs)
        return select_candidate(
            stages,
            quantize,
            self._opener(),
            self.io,
            self.recipe.scheme,
            samples,
            self._achieves_scheme,
            self.expense,
        )

    def _opener(self) -> OpenModel:
        """How to open candidates."""
        return model_opener(self.content, self.io)

    def _achieves_scheme(self, model: QuantizedModel) -> bool:
        float16_weights = bool(model.candidate.float16)
        try:
            summary = without_exact(self.summary(model), self.exact_weights)
            require_scheme(summary, self.recipe, float16_weights=float16_weights)
        except SchemeError:
            return False
        return True

    def model(self, content: Any, candidate: Candidate) -> QuantizedModel:
        return QuantizedModel(content, self.io.inputs, self.io.outputs, candidate)

    def precision_of(self, candidate: Candidate) -> PrecisionOf:
        default = {"float16": "float16", "int4": "int4"}.get(self.recipe.scheme, "int8")
        if candidate.float_activations:
            default = "int8_weights"
        usual = candidate_precision(candidate, self.io, self.options, default, self.upstream[1])
        exact = self.spectrum[1]
        if not exact:
            return usual
        return lambda value: "float32" if key_of(value) in exact else usual(value)

    @abstractmethod
    def summary(self, model: QuantizedModel) -> SchemeSummary:
        """The operators and weights of a file."""

    def summarized(self, model: QuantizedModel) -> QuantizedModel:
        """``model`` with the manifest's description; see :func:`.summary.with_summary`."""
        summary = self.summary(model)
        return with_summary(model, summary, self.recipe, self.options, self.exact_weights)

    @property
    def exact_weights(self) -> int:
        """The number of large constants' values that stay float32 in every scheme."""
        return sum(self.spectrum[1].values())

    def expense(self, model: QuantizedModel) -> float:
        """What a faster model has less of: the bytes of the file, if nothing better is known."""
        return float(model.size)

    @property
    def has_attention(self) -> bool:
        return bool(self.upstream[0])

    @cached_property
    @abstractmethod
    def upstream(self) -> tuple[set[Any], set[bytes]]:
        """The operators that attention depends on, and the keys of their large constants."""

    @cached_property
    @abstractmethod
    def spectrum(self) -> tuple[set[Any], dict[bytes, int]]:
        """The operators of Fourier transforms, and the sizes of their large constants by key."""

    @abstractmethod
    def with_weights(self, candidate: Candidate) -> QuantizedModel:
        """Quantize the weights."""

    @abstractmethod
    def calibrate(self, samples: Tensors) -> tuple[str, ...]:
        """Prepare :meth:`with_activations`; returns notes on the ranges of ``samples``."""

    @abstractmethod
    def with_activations(self, candidate: Candidate) -> QuantizedModel:
        """Quantize weights and activations."""
