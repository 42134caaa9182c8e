"""Files that accept sequences of any length, compared with Keras on several lengths.

The reference has arrays of other lengths than the manifest's, named as the others, but with
``steps-LENGTH/`` before the name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgeattn.errors import ArtifactError
from edgeattn.metrics import pairwise
from edgeattn.metrics.limits import Check, Limit, Limits, limits_for
from edgeattn.printable import counted

if TYPE_CHECKING:
    from edgeattn.bundle.manifest import Artifact
    from edgeattn.runners import Runner
    from edgeattn.tensors import Array, Tensors

_NAME = re.compile(r"steps-([1-9][0-9]{0,5})/(.+)")


def with_length(arrays: Tensors, steps: int) -> Tensors:
    """Arrays of a reference under the names for sequences of ``steps``."""
    return {f"steps-{steps}/{name}": array for name, array in arrays.items()}


def by_length(reference: Tensors) -> dict[int, Tensors]:
    """The arrays of other lengths by the length, ascending."""
    lengths: dict[int, dict[str, Array]] = {}
    for name, array in reference.items():
        if match := _NAME.fullmatch(name):
            lengths.setdefault(int(match[1]), {})[match[2]] = array
    return dict(sorted(lengths.items()))


def run_lengths(
    runner: Runner, artifact: Artifact, lengths: Mapping[int, Tensors]
) -> dict[int, Tensors | str]:
    """The outputs by the length, or why the artifact does not run."""
    results: dict[int, Tensors | str] = {}
    for steps, arrays in lengths.items():
        inputs = {spec.name: arrays[f"input/{spec.name}"] for spec in artifact.inputs}
        try:
            results[steps] = runner.run(inputs)
        except ArtifactError as error:
            results[steps] = error.message
    return results


def length_checks(
    artifact: Artifact,
    lengths: Mapping[int, Tensors],
    results: Mapping[int, Tensors | str],
    limits: Sequence[Limit] = (),
) -> Iterator[Check]:
    """The worst value of each output over all lengths, as a multiple of the scheme's limit."""
    if not artifact.free_axes or not lengths:
        return
    for spec in artifact.outputs:
        is_map = spec.name in artifact.attention
        key = spec.name if is_map else f"output/{spec.name}"
        chosen = limits_for(artifact.scheme, spec.name, limits)
        errors: list[tuple[float, str | None]] = []
        for steps, arrays in lengths.items():
            result, at = results[steps], f"at {counted(steps, 'step')}"
            if isinstance(result, str):
                errors.append((np.inf, f"{at}: {result}"))
                continue
            want, got = arrays[key], result.get(spec.name)
            if got is None or want.shape != got.shape:
                errors.append((np.inf, f"{at} the shape is another one"))
                continue
            want, got = pairwise.mask_equal_non_finite(want, got)
            if is_map:
                value = pairwise.max_abs_error(want, got) / chosen.attention_max_abs
            else:
                value = _output_error(want, got, chosen)
            errors.append((float(value), at))
        value, detail = max(errors, key=lambda item: np.nan_to_num(item[0], nan=np.inf))
        stage = "attention" if is_map else "numbers"
        yield Check(
            artifact.label, stage, "length_error", value, 1.0, "<=", spec.name, detail=detail
        )


def _output_error(expected: Array, actual: Array, limits: Limits) -> float:
    """The error as a multiple of the tolerance or, beyond that, of the noise that is accepted."""
    if pairwise.are_classes(expected):
        return _share_of_others(pairwise.equal_values(expected, actual), limits)
    ratio = pairwise.tolerance_ratio(expected, actual, atol=limits.atol, rtol=limits.rtol)
    if ratio <= 1 or math.isinf(limits.snr_db):
        return ratio
    if pairwise.is_one_hot(expected):
        return _share_of_others(pairwise.top1_agreement(expected, actual), limits)
    missing = limits.snr_db - pairwise.snr_db(expected, actual)
    return float(np.power(10.0, missing / 20))


def _share_of_others(equal: float, limits: Limits) -> float:
    """The share of other classes as a multiple of the accepted one."""
    others, accepted = 1 - equal, 1 - limits.top1_agreement
    return others / accepted if accepted else math.inf if others else 0.0
