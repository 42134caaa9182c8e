"""Whether the results of an artifact depend on the batch: its size, its order, its other samples.

The samples of the reference run again, in another order, in batches of several sizes if the file
accepts any, or of the file's own. Each must give the result that it gave before: alone, or in the
order of the reference. Rounding in another order is the only difference that is accepted:

    float32, float16              1e-5 + 1e-4 times the largest magnitude of the output
    int16x8                       1/1000 of the range of the output
    int8, dynamic_int8, int4      4/255 of the range: rounding moves an integer by one step, and the
                                  operators that follow may amplify it

onnxruntime's dynamic quantization has one scale for the whole batch, so that a sample loses
precision beside larger ones. Files that use it promise only that batches of every size are within
the limits of the comparison with Keras.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgeattn.errors import ArtifactError
from edgeattn.metrics import pairwise
from edgeattn.metrics.limits import LIMITS, Check, Limit, Limits, limits_for
from edgeattn.printable import counted
from edgeattn.tensors import Array, Tensors

if TYPE_CHECKING:
    from edgeattn.bundle.manifest import Artifact
    from edgeattn.runners import Runner

# Batch sizes for files that accept any. The largest is also the largest number of samples of a run.
SIZES = (2, 3, 7, 64)
MIN_ROWS = 15
SEED = 3
_FLOAT = LIMITS["float32"]
_INTEGER_STEPS = {"int16x8": 1e-3, "int8": 4 / 255, "dynamic_int8": 4 / 255, "int4": 4 / 255}


@dataclass(frozen=True)
class BatchRuns:
    """Outputs of the reference's ``rows`` in batches, by run; ``error`` says why one failed."""

    rows: tuple[Array, ...] = ()
    outputs: tuple[Tensors, ...] = ()
    error: str | None = None


def run_batches(
    runner: Runner, artifact: Artifact, inputs: Tensors, ordinary: int | None
) -> BatchRuns:
    """Run rows of ``inputs`` in other batches; no runs if the artifact has a batch size of 1.

    The first ``ordinary`` rows are no extreme edge cases; None if there are none.
    """
    fixed = artifact.inputs[0].shape[0]
    if fixed == 1:
        return BatchRuns()
    count = len(next(iter(inputs.values())))
    pool = ordinary if scales_by_batch(artifact) and ordinary else count
    generator = np.random.default_rng(SEED)
    rows, outputs = [], []
    for size in SIZES if fixed is None else (fixed,):
        order = _order(generator, pool, size, full=fixed is None)
        batch = {name: array[order] for name, array in inputs.items()}
        try:
            outputs.append(runner.run(batch, (size,)))
        except ArtifactError as error:
            return BatchRuns(error=f"In batches of {counted(size, 'sample')}: {error.message}")
        rows.append(order)
    return BatchRuns(tuple(rows), tuple(outputs))


def _order(generator: np.random.Generator, pool: int, size: int, *, full: bool) -> Array:
    """Rows of the pool in a random order, repeated if there are too few for batches of ``size``.

    Unless all batches may be ``full``, the last one is not.
    """
    count = max(min(max(pool, MIN_ROWS), SIZES[-1]), size)
    if not full and count % size == 0:
        count += 1
    repeats = -(-count // pool)
    return np.concatenate([generator.permutation(pool) for _ in range(repeats)])[:count]


def scales_by_batch(artifact: Artifact) -> bool:
    """Whether operators of the file quantize activations with one scale for the whole batch."""
    operators = artifact.achieved.get("operators", ())
    dynamic = any(str(name).startswith("Dynamic") for name in operators)
    return artifact.format == "onnx" and artifact.scheme != "float32" and dynamic


def batch_checks(
    artifact: Artifact,
    expected: Tensors,
    actual: Tensors,
    runs: BatchRuns,
    ordinary: int | None,
    *,
    limits: Sequence[Limit] = (),
) -> Iterator[Check]:
    """A check for each output, if there are other batches.

    Args:
        artifact: The artifact.
        expected: Outputs of Keras by name, the sample axis first.
        actual: Outputs of the artifact for the same inputs, in the order of the reference.
        runs: Its outputs in other batches.
        ordinary: The number of rows before the extreme edge cases; None if there are none.
        limits: Limits that replace those of the scheme.
    """
    if not runs.rows and runs.error is None:
        return
    by_keras = scales_by_batch(artifact)
    for spec in artifact.outputs:
        name = spec.name
        stage = "attention" if name in artifact.attention else "numbers"
        reference = expected[name] if by_keras else actual[name]
        pairs = [] if runs.error else _pairs(reference, name, runs, ordinary)
        metric, relation = "batch_error", "<="
        value: float = np.inf
        limit: float | None = tolerance(artifact.scheme, actual[name][:ordinary])
        if pairs:
            value = float(np.max([pairwise.max_abs_error(*pair) for pair in pairs]))
        if pairs and pairwise.are_classes(reference):
            # A change of a class by one is as wrong as any other.
            chosen = limits_for(artifact.scheme, name, limits if by_keras else ())
            metric, limit, relation = "batch_equal_values", chosen.top1_agreement, ">="
            value = min(pairwise.equal_values(*pair) for pair in pairs)
        elif pairs and by_keras:
            chosen = limits_for(artifact.scheme, name, limits)
            metric, limit = "batch_max_abs_error", chosen.attention_max_abs
            if stage == "numbers":
                metric, relation = "batch_snr_db", ">="
                value, limit = _worst_snr(pairs, chosen)
        yield Check(artifact.label, stage, metric, value, limit, relation, name)


def tolerance(scheme: str, values: Array) -> float:
    """The largest accepted difference between batches, from an output's ordinary values."""
    finite = np.asarray(values, np.float64)[np.isfinite(values)]
    rounding = _FLOAT.atol + _FLOAT.rtol * float(np.abs(finite).max(initial=0.0))
    steps = _INTEGER_STEPS.get(scheme, 0.0)
    return max(rounding, steps * float(np.ptp(finite))) if finite.size else rounding


def _pairs(
    reference: Array, name: str, runs: BatchRuns, ordinary: int | None
) -> list[tuple[Array, Array]]:
    """Expected and actual values of the ordinary rows of each run; empty if a shape is wrong."""
    pairs = []
    for rows, outputs in zip(runs.rows, runs.outputs, strict=True):
        want, got = reference[rows], outputs.get(name)
        if got is None or got.shape != want.shape:
            return []
        compared = rows < (len(reference) if ordinary is None else ordinary)
        pairs.append(pairwise.mask_equal_non_finite(want[compared], got[compared]))
    return pairs


def _worst_snr(pairs: list[tuple[Array, Array]], limits: Limits) -> tuple[float, float | None]:
    """The lowest signal-to-noise ratio of the runs in dB, and its limit, as for all outputs."""
    within = all(
        pairwise.tolerance_ratio(*pair, atol=limits.atol, rtol=limits.rtol) <= 1 for pair in pairs
    )
    worst = float(np.min([pairwise.snr_db(*pair) for pair in pairs]))
    return worst, None if within else limits.snr_db
