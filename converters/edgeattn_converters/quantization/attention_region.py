"""Which operators are the attention: the softmax, the scores that go in, the sum that comes out.

An int8 softmax has the fixed scale of 1/256, so weights under 1/512 vanish; and an int8 score has
as few steps over a range that the exponential makes of. Kept in float32, the map survives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

Names = tuple[str, ...]


@dataclass(frozen=True)
class Node:
    """An operator of any format: its kind, and the values it takes and makes, by name."""

    kind: str
    inputs: Names
    outputs: Names


def region(
    nodes: Iterable[Node],
    softmax: str,
    heavy: frozenset[str],
    maps: Iterable[str] = (),
    *,
    deep: bool = False,
) -> set[int]:
    """Positions of the nodes that make attention scores, weights, and what the weights make.

    From every ``softmax`` node back to the ``heavy`` operators (products and sums) that make its
    scores, and on to those that its weights go into, these included. A softmax that nothing
    comes after and that is none of the ``maps`` is a classifier's, and is left out. ``deep`` goes
    two products further back: to the projections that make queries and keys, and to what they are
    made of.
    """
    listed = list(nodes)
    made = {name: k for k, node in enumerate(listed) for name in node.outputs}
    taken: dict[str, list[int]] = {}
    for k, node in enumerate(listed):
        for name in node.inputs:
            taken.setdefault(name, []).append(k)

    def back(names: Iterable[str]) -> set[int]:
        return _walk(
            listed,
            names,
            lambda name: [made[name]] if name in made else [],
            lambda item: item.inputs,
            heavy,
        )

    found: set[int] = set()
    shown = set(maps)
    for k, node in enumerate(listed):
        if node.kind != softmax:
            continue
        if not any(name in taken or name in shown for name in node.outputs):
            continue
        found.add(k)
        scores = back(node.inputs)
        for _ in range(2 if deep else 0):
            ends = [item for item in scores if listed[item].kind in heavy]
            scores |= back([name for item in ends for name in listed[item].inputs])
        found |= scores
        found |= _walk(
            listed,
            node.outputs,
            lambda name: taken.get(name, []),
            lambda item: item.outputs,
            heavy,
        )
    return found


def upstream(
    nodes: Iterable[Node], softmax: str, heavy: frozenset[str], maps: Iterable[str] = ()
) -> set[int]:
    """Positions of the nodes of the :func:`region`, and of all that its scores are made of."""
    listed = list(nodes)
    made = {name: k for k, node in enumerate(listed) for name in node.outputs}
    found = region(listed, softmax, heavy, maps)
    start = [name for k in found if listed[k].kind == softmax for name in listed[k].inputs]
    return found | _walk(
        listed,
        start,
        lambda name: [made[name]] if name in made else [],
        lambda item: item.inputs,
        frozenset(),
    )


def _walk(
    nodes: list[Node],
    start: Iterable[str],
    reach: Callable[[str], list[int]],
    onward: Callable[[Node], Names],
    heavy: frozenset[str],
) -> set[int]:
    found: set[int] = set()
    todo = list(start)
    while todo:
        for k in reach(todo.pop()):
            if k in found:
                continue
            found.add(k)
            if nodes[k].kind not in heavy:
                todo.extend(onward(nodes[k]))
    return found
