"""Outputs of a signature that draw random numbers, which no artifact can reproduce."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgeattn.errors import UnsupportedModelError
from edgeattn.printable import enumerated
from edgeattn_converters.graphs.data_sources import operations_behind
from edgeattn_converters.graphs.static_shapes import replay
from edgeattn_converters.graphs.taken_branches import reached
from edgeattn_converters.loading.fixed_time_axis import TimeSteps, length_of, with_sizes
from edgeattn_converters.loading.signatures.signature_batch import (
    LIMITS,
    call_signature,
    random_inputs,
)
from edgeattn_converters.loading.signatures.signature_inputs import without_outputs
from edgeattn_converters.loading.training_mode import CALLS, FREE_AXIS, ROWS

# With generators they change a variable, see :func:`.signature_operations.without_assignments`.
_RANDOM = re.compile(r"Random\w+|(Parameterized)?TruncatedNormal|Multinomial")


class RandomOutputsError(UnsupportedModelError):
    """A signature whose outputs are random."""


def check_repeatable(
    path: Path, signature: str, function: Any, count: int | None, time_steps: TimeSteps | None
) -> None:
    """Raise :class:`RandomOutputsError` if an output differs between calls of the same inputs.

    ``count`` is the number of samples that the signature takes, None for any. Random numbers that
    no output depends on do not matter.
    """
    graph = function.graph.as_graph_def()
    library = {item.signature.name: item for item in graph.library.function}
    drawn = list(dict.fromkeys(_drawn(graph.node, library)))
    if not drawn:
        return
    changing = _changing(function, count or ROWS, time_steps)
    if not changing:
        return
    others = sorted(function.structured_outputs.keys() - set(changing))
    kinds = _kinds_behind(function, changing) or drawn
    plural = "s" if len(changing) > 1 else ""
    message = (
        f"The SavedModel {path.name} draws random numbers for its output{plural} "
        f"{enumerated(list(map(repr, changing)))} in each call (operation "
        f"{enumerated(kinds)}). No artifact can reproduce them."
    )
    hint = "Export a model that returns what it computes without random numbers, such as the mean."
    if others:
        is_one = len(others) == 1
        listed = enumerated(list(map(repr, others)))
        message += f" The output{'' if is_one else 's'} {listed} {'is' if is_one else 'are'} "
        message += "deterministic."
        hint = (
            f"Save {'it' if is_one else 'them'} alone, and convert {path.name}_2: "
            f"{without_outputs(path, signature, changing)}"
        )
    raise RandomOutputsError(message, hint=hint)


def _drawn(nodes: Any, library: Mapping[str, Any]) -> Iterator[str]:
    """Yield the operations in nodes, and in the functions that they call, that are random."""
    called = (node for item in reached(nodes, library) for node in item.node_def)
    yield from (node.op for node in (*nodes, *called) if _RANDOM.fullmatch(node.op))


def _changing(function: Any, count: int, time_steps: TimeSteps | None) -> list[str]:
    """Return the outputs that differ between calls; none if random inputs fail."""
    import tensorflow as tf

    def axes_of(name: str, spec: Any) -> list[int]:
        axes = with_sizes(spec.shape.as_list(), length_of(time_steps, name))
        return [axis or FREE_AXIS for axis in axes[1:]]

    _, specs = function.structured_input_signature
    found = []
    for limits in LIMITS:
        inputs = random_inputs(specs, count, axes_of, limits)
        try:
            # Random choices between few values may repeat by chance.
            first, *others = (call_signature(function, inputs) for _ in range(CALLS))
        except (ValueError, TypeError, tf.errors.OpError):
            continue  # the conversion reports why the signature cannot be run
        found += [
            name
            for name, value in first.items()
            if any(not _are_equal(value, other[name]) for other in others)
        ]
    return sorted(set(found))


def _are_equal(first: Any, second: Any) -> bool:
    values, others = np.asarray(first), np.asarray(second)
    return np.array_equal(values, others, equal_nan=values.dtype.kind in "fc")


def _kinds_behind(function: Any, outputs: list[str]) -> list[str]:
    """Return the random operations behind some outputs; empty if they are unknown."""
    import tensorflow as tf

    _, specs = function.structured_input_signature
    # With what the signature calls as a part of its graph.
    replayed = tf.function(lambda **feeds: replay(function, feeds), autograph=False)
    try:
        whole = replayed.get_concrete_function(**specs)
    except (ValueError, TypeError, LookupError, NotImplementedError, tf.errors.OpError):
        return []  # the operations of the whole signature are listed instead
    graph = whole.graph.as_graph_def()
    library = {item.signature.name: item for item in graph.library.function}
    tensors = dict(zip(sorted(function.structured_outputs), whole.outputs, strict=True))
    nodes = [item.node_def for name in outputs for item in operations_behind(tensors[name])]
    return list(dict.fromkeys(_drawn(nodes, library)))
