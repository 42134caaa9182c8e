"""Faults that no file can express: a runner that returns wrong outputs, or changes its inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from edgeattn.runners import Runner

from .fault import ATTENTION, NUMBERS, TASK, UNSEEN, Array, Fault


class TamperedRunner:
    """A runner whose inputs or outputs are changed by ``tamper(runner, inputs)``."""

    def __init__(self, inner: Runner, tamper: Callable[[Runner, Mapping[str, Array]], Any]) -> None:
        self._inner, self._tamper = inner, tamper
        self.inputs, self.outputs, self.runtime = inner.inputs, inner.outputs, inner.runtime

    def run(
        self, tensors: Mapping[str, Array], batch_sizes: Sequence[int] = ()
    ) -> Mapping[str, Array]:
        result: Mapping[str, Array] = self._tamper(self._inner, tensors)
        return result

    def close(self) -> None:
        self._inner.close()


def _wrapped_with(make: Callable[[], Callable[[Runner, Mapping[str, Array]], Any]]) -> Any:
    return lambda inner: TamperedRunner(inner, make())


def _with_outputs(function: Callable[[dict[str, Array], Mapping[str, Array]], Any]) -> Any:
    def tamper(inner: Runner, tensors: Mapping[str, Array]) -> dict[str, Array]:
        outputs = {name: array.copy() for name, array in inner.run(tensors).items()}
        function(outputs, tensors)
        return outputs

    return _wrapped_with(lambda: tamper)


def _add_previous_outputs() -> Any:
    previous: dict[str, Array] = {}

    def tamper(inner: Runner, tensors: Mapping[str, Array]) -> dict[str, Array]:
        outputs = {name: array.copy() for name, array in inner.run(tensors).items()}
        for name, array in outputs.items():
            before = np.concatenate([previous.get(name, 0 * array[:1]), array[:-1]])
            previous[name] = array[-1:].copy()
            array += (1e-3 * before).astype(array.dtype)
        return outputs

    return tamper


def _delay_map() -> Any:
    previous: dict[str, Array] = {}

    def tamper(inner: Runner, tensors: Mapping[str, Array]) -> dict[str, Array]:
        outputs = dict(inner.run(tensors))
        for name in ("attention/look",):
            right = outputs[name]
            outputs[name] = np.concatenate([previous.get(name, right[:1]), right[:-1]])
            previous[name] = right[-1:]
        return outputs

    return tamper


def _change_every_call() -> Any:
    calls = [0]

    def tamper(inner: Runner, tensors: Mapping[str, Array]) -> dict[str, Array]:
        calls[0] += 1
        outputs = {name: array.copy() for name, array in inner.run(tensors).items()}
        for array in outputs.values():
            array *= 1 - 1e-6 * (calls[0] - 1)
        return outputs

    return tamper


def _clip_inputs(inner: Runner, tensors: Mapping[str, Array]) -> Any:
    return inner.run({name: np.clip(array, -4, 4) for name, array in tensors.items()})


def _move_padding(inner: Runner, tensors: Mapping[str, Array]) -> Any:
    words = tensors["tokens"].copy()
    for row in words:
        row[:] = np.concatenate([row[row == 0], row[row != 0]])
    return inner.run({"tokens": words})


def _quantize_mask(outputs: dict[str, Array], _: Mapping[str, Array]) -> None:
    """Quantize scores that include -1e9 to int8: all unmasked keys become equal."""
    weights = outputs["attention/look"]
    with np.errstate(divide="ignore"):
        scores = np.where(weights > 0, np.log(np.maximum(weights, 1e-30)), -1e9)
    masked = (weights == 0).any(-1)
    step = 1e9 / 255
    coarse = np.exp(np.rint(scores / step) * step)
    weights[masked] = (coarse / np.maximum(coarse.sum(-1, keepdims=True), 1e-9))[masked]


def _coarsen_weights(outputs: dict[str, Array], _: Mapping[str, Array]) -> None:
    """Round weights down to steps of 1/16: small weights vanish, and rows no longer sum to 1."""
    for name, weights in outputs.items():
        if name.startswith("attention/"):
            weights[:] = np.floor(weights * 16) / 16


def _set_nan(outputs: dict[str, Array], _: Mapping[str, Array]) -> None:
    if len(outputs["answer"]) > 5:
        outputs["answer"][5, 0] = np.nan


def _set_infinity(outputs: dict[str, Array], _: Mapping[str, Array]) -> None:
    if len(outputs["attention/look"]) > 3:
        outputs["attention/look"][3, 0] = np.inf


def _fail_outside_the_reference(outputs: dict[str, Array], tensors: Mapping[str, Array]) -> None:
    """Correct for the samples of the bundle, wrong for 10% of the others."""
    if len(outputs["dense"]) > 200:
        outputs["dense"][150::10] = np.roll(outputs["dense"][150::10], 1, -1)


def _flatten_few_maps(outputs: dict[str, Array], _: Mapping[str, Array]) -> None:
    """Equal weights for 7 of 300 samples, none of them among those of the bundle."""
    for name, weights in outputs.items():
        if name.startswith("attention/") and len(weights) > 300:
            weights[70::45] = 1 / weights.shape[-1]


def _limit_to_sample_range(inner: Runner, tensors: Mapping[str, Array]) -> Any:
    return inner.run({name: np.clip(array, 0, 1) for name, array in tensors.items()})


def _wear_out() -> Any:
    """An error after 10,000 samples, more than any validation runs."""
    count = [0]

    def tamper(inner: Runner, tensors: Mapping[str, Array]) -> dict[str, Array]:
        outputs = {name: array.copy() for name, array in inner.run(tensors).items()}
        count[0] += len(next(iter(tensors.values())))
        for array in outputs.values():
            array *= 1.0 if count[0] < 10_000 else 1.1
        return outputs

    return tamper


def _drift(outputs: dict[str, Array], _: Mapping[str, Array]) -> None:
    """An error that grows with every sequence, too slowly for the samples of the bundle."""
    count = len(outputs["dense"])
    outputs["dense"][:, 0] += np.maximum(0, np.arange(count) - 100).astype(np.float32) * 0.01


RUNNER_FAULTS = [
    Fault(
        "map of equal weights for 2% of the user's samples",
        "digits",
        ATTENTION,
        wrap=_with_outputs(_flatten_few_maps),
        data=True,
    ),
    Fault(
        "inputs limited to the range of the samples",
        "digits",
        NUMBERS,
        wrap=_wrapped_with(lambda: _limit_to_sample_range),
    ),
    Fault(
        "wrong after 10,000 samples",
        "digits",
        NUMBERS,
        wrap=_wrapped_with(_wear_out),
        outside=UNSEEN,
    ),
    Fault(
        "0.1% of the previous output added",
        "watcher",
        NUMBERS,
        wrap=_wrapped_with(_add_previous_outputs),
    ),
    Fault(
        "map of the previous sequence",
        "watcher",
        ATTENTION,
        wrap=_wrapped_with(_delay_map),
        only=True,
    ),
    Fault(
        "outputs change when repeated",
        "watcher",
        NUMBERS,
        wrap=_wrapped_with(_change_every_call),
        format="tflite",
    ),
    Fault("inputs clipped at 4", "watcher", NUMBERS, wrap=_wrapped_with(lambda: _clip_inputs)),
    Fault(
        "padding moved before the tokens",
        "reader",
        ATTENTION,
        wrap=_wrapped_with(lambda: _move_padding),
        only=True,
    ),
    Fault(
        "mask value -1e9 in an int8 tensor",
        "reader",
        ATTENTION,
        wrap=_with_outputs(_quantize_mask),
        scheme="dynamic_int8",
        only=True,
    ),
    Fault(
        "attention weights in steps of 1/16",
        "digits",
        ATTENTION,
        wrap=_with_outputs(_coarsen_weights),
        scheme="dynamic_int8",
        only=True,
    ),
    Fault(
        "NaN for one input", "watcher", NUMBERS, wrap=_with_outputs(_set_nan), scheme="dynamic_int8"
    ),
    Fault(
        "infinity in one row of the map",
        "watcher",
        ATTENTION,
        wrap=_with_outputs(_set_infinity),
        scheme="float16",
        only=True,
    ),
    Fault(
        "wrong for 10% of samples outside the reference",
        "digits",
        TASK,
        wrap=_with_outputs(_fail_outside_the_reference),
    ),
    Fault(
        "drift after 100 sequences",
        "digits",
        TASK,
        wrap=_with_outputs(_drift),
        scheme="dynamic_int8",
        format="tflite",
    ),
]
