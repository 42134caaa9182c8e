"""Finding the operators of attention in a graph: the scores, the softmax and the weighted sum.

An int8 softmax has a fixed scale of 1/256, so weights below 1/512 vanish; and the exponential
amplifies the rounding of int8 scores. In float32, the attention map survives quantization.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

Names = tuple[str, ...]


@dataclass(frozen=True)
class Node:
    """An operator of either format: its type, and the names of the values it reads and computes."""

    kind: str
    inputs: Names
    outputs: Names


@dataclass(frozen=True)
class OperatorTypes:
    """How a format names the softmax, and the products and sums that bound the attention."""

    softmax: str
    products: frozenset[str]


class AttentionGraph:
    """A graph's nodes, in which the operators of attention are searched for.

    ``maps`` are the names of values that are attention maps. A softmax that nothing reads and that
    is not a map belongs to a classifier and is ignored.
    """

    def __init__(
        self, nodes: Iterable[Node], types: OperatorTypes, maps: Iterable[str] = ()
    ) -> None:
        self._nodes = list(nodes)
        self._products = types.products
        self._makers: dict[str, list[int]] = {}
        self._users: dict[str, list[int]] = {}
        for k, node in enumerate(self._nodes):
            for name in node.outputs:
                self._makers[name] = [k]
            for name in node.inputs:
                self._users.setdefault(name, []).append(k)
        used = {*self._users, *maps}
        self._softmaxes = [
            k
            for k, node in enumerate(self._nodes)
            if node.kind == types.softmax and used.intersection(node.outputs)
        ]

    def region(self, *, projections: bool = False) -> set[int]:
        """Positions of the nodes from the scores to the weighted sum.

        That is every softmax, the nodes back to the products that make its scores, and the nodes
        forward to the products that its weights go into, all included. With ``projections``, two
        products further back: the projections of queries and keys, and what they are made of.
        """
        region: set[int] = set(self._softmaxes)
        for k in self._softmaxes:
            scores = self._back(self._nodes[k].inputs, self._products)
            for _ in range(2 if projections else 0):
                ends = [item for item in scores if self._nodes[item].kind in self._products]
                names = [name for item in ends for name in self._nodes[item].inputs]
                scores |= self._back(names, self._products)
            region |= scores
            region |= self._walk(self._nodes[k].outputs, self._users, self._products, forward=True)
        return region

    def upstream(self) -> set[int]:
        """Positions of the nodes of the :meth:`region` and of all that the scores depend on."""
        names = [name for k in self._softmaxes for name in self._nodes[k].inputs]
        return self.region() | self._back(names, frozenset())

    def _back(self, names: Iterable[str], stop: frozenset[str]) -> set[int]:
        return self._walk(names, self._makers, stop, forward=False)

    def _walk(
        self,
        start: Iterable[str],
        reachable: Mapping[str, list[int]],
        stop: frozenset[str],
        *,
        forward: bool,
    ) -> set[int]:
        visited: set[int] = set()
        pending = list(start)
        while pending:
            for k in reachable.get(pending.pop(), []):
                if k in visited:
                    continue
                visited.add(k)
                node = self._nodes[k]
                if node.kind not in stop:
                    pending.extend(node.outputs if forward else node.inputs)
        return visited
