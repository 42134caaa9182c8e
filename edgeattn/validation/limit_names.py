"""Checks that every limit of the user applies to something."""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from edgeattn.bundle.manifest import Artifact
from edgeattn.errors import UsageError
from edgeattn.metrics.limits import Limit
from edgeattn.metrics.pairwise import are_classes, is_distribution, is_one_hot
from edgeattn.tensors import Tensors

MAP_LIMITS = ("attention_max_abs", "attention_jsd")
CLASS_LIMIT = "top1_agreement"
NUMBER_LIMITS = ("atol", "rtol", "snr_db")
VALUE_LIMIT = "lost_values"
TASK_LIMITS = ("retention", "max_drop")


def check_limits(
    limits: Sequence[Limit], artifacts: Sequence[Artifact], reference: Tensors
) -> None:
    """Raise :class:`UsageError` if a limit cannot have an effect on any of the artifacts.

    ``reference`` contains the arrays of the bundle's reference: only outputs that are class
    probabilities have a predicted class. Those of integers are classes, which are equal or not:
    only ``top1_agreement`` limits them. One-hot rows have no limit of the signal-to-noise ratio
    and of lost values.
    """
    maps = list(dict.fromkeys(name for item in artifacts for name in item.attention))
    all_outputs = dict.fromkeys(spec.name for item in artifacts for spec in item.outputs)
    outputs = [name for name in all_outputs if name not in maps]
    arrays = {name: reference.get(f"output/{name}", np.zeros(0)) for name in outputs}
    classes = [name for name, x in arrays.items() if is_distribution(x) or are_classes(x)]
    numbers = [name for name, x in arrays.items() if not are_classes(x)]
    for limit in limits:
        _check_value(limit)
        kind, names = "outputs", outputs
        if limit.name in MAP_LIMITS:
            kind, names = "attention maps", maps
        elif limit.name == CLASS_LIMIT:
            kind, names = "outputs with classes or their probabilities", classes
        elif limit.name == VALUE_LIMIT:
            kind = "outputs with real numbers and attention maps"
            names = [*(name for name in numbers if not is_one_hot(arrays[name])), *maps]
        elif limit.name in NUMBER_LIMITS:
            names = numbers
            if limit.name == "snr_db":
                names = [name for name in numbers if not is_one_hot(arrays[name])]
            kind = "outputs" if names == outputs else "outputs with real numbers"
        if limit.output is None and names:
            continue
        if limit.output is not None and limit.output not in (*outputs, *maps):
            raise UsageError(
                f"--limit {_text(limit)}: no artifact has an output {limit.output!r}.",
                hint=f"Choose one of these {kind}: {_listed(names)}.",
            )
        if limit.output not in names:
            raise UsageError(
                f"--limit {_text(limit)} has no effect: {limit.name} applies to {kind} only.",
                hint=f"Choose one of these {kind}: {_listed(names)}."
                if names
                else f"Omit it; no artifact has {kind}.",
            )
    repeated = [key for key, n in Counter((x.output, x.name) for x in limits).items() if n > 1]
    if repeated:
        output, name = repeated[0]
        of = f" of {output}" if output else ""
        raise UsageError(
            f"--limit {name}{of} is given more than once.", hint="Omit all but one of them."
        )


def check_task_limits(limits: Sequence[Limit], labelled: Sequence[str]) -> None:
    """Raise :class:`UsageError` if a limit of the score is of an output without labels."""
    for limit in limits:
        applies = limit.output in labelled or (limit.output is None and labelled)
        if limit.name in TASK_LIMITS and not applies:
            raise UsageError(
                f"--limit {_text(limit)} has no effect without labels.",
                hint=f"Pass labels with --data. Outputs with labels: {_listed(labelled)}.",
            )


def _check_value(limit: Limit) -> None:
    share = limit.name in (CLASS_LIMIT, *TASK_LIMITS)
    if share and not 0 <= limit.value <= 1:
        raise UsageError(
            f"--limit {_text(limit)}: {limit.name} is a share from 0 to 1.",
            hint=f"For 98%, use {limit.name}=0.98.",
        )
    if limit.name != "snr_db" and limit.value < 0:
        raise UsageError(
            f"--limit {_text(limit)}: {limit.name} cannot be negative.",
            hint="Use 0 or a positive number.",
        )


def _text(limit: Limit) -> str:
    value = f"{limit.value:g}" if math.isfinite(limit.value) else str(limit.value)
    return f"{limit.output}:{limit.name}={value}" if limit.output else f"{limit.name}={value}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"
