"""The inputs at the keys and queries of attention maps."""

from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

from edgeattn.tensors import Specs
from edgeattn_converters.tracing.attention_outputs import AttentionMap
from edgeattn_converters.tracing.origins import inputs_with_values_in


class Attended(NamedTuple):
    """The names of the inputs on whose values the data at the keys and queries of a map depend.

    ``queries`` is empty if they are unknown.
    """

    map: str
    keys: tuple[str, ...]
    queries: tuple[str, ...]


def attended_inputs(
    maps: Sequence[AttentionMap], exported: Collection[str], inputs: Specs, concrete: Any
) -> Iterator[Attended]:
    """The inputs of the exported maps whose keys are known."""
    placeholders = [tensor.op.name for tensor in concrete.inputs[: len(inputs)]]

    def names_behind(*tensors: Any) -> tuple[str, ...]:
        behind = inputs_with_values_in(tensors)
        pairs = zip(placeholders, inputs, strict=True)
        return tuple(spec.name for name, spec in pairs if name in behind)

    for item in maps:
        keys = names_behind(*item.data)
        if item.name not in exported or not keys:
            continue
        if hasattr(item.query, "op"):
            yield Attended(item.name, keys, names_behind(item.query))
        else:
            # The weights depend on the queries, so that these can only have the same input.
            everything = names_behind(item.weights)
            yield Attended(item.name, keys, keys if everything == keys and len(keys) == 1 else ())
