"""The graph of either format in which operators of attention and of spectra are searched for."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

Names = tuple[str, ...]
SOFTMAX = ("SOFTMAX", "Softmax")
# Products and sums, which bound the attention.
PRODUCTS = frozenset(
    {"BATCH_MATMUL", "FULLY_CONNECTED", "SUM", "CONV_2D", "REDUCE_SUM"}
    | {"MatMul", "Gemm", "Einsum", "ReduceSum"}
)
SUMS = frozenset({"SUM", "REDUCE_SUM", "ReduceSum"})
# Sums of them are never zero in float32, but in integers they can be.
POSITIVE = frozenset({"EXP", "Exp", "LOGISTIC", "Sigmoid"})
QUOTIENTS = frozenset({"DIV", "Div"})
MULTIPLICATIONS = frozenset({"MUL", "Mul"})
# With a single operand that is no constant, a quotient is a reciprocal too.
RECIPROCALS = frozenset({"Reciprocal", "POW", "Pow"})
EXPONENTIALS = frozenset({"EXP", "Exp"})
LOG_SOFTMAX = frozenset({"LOG_SOFTMAX", "LogSoftmax"})
# Operators with trained weights end a spectrum, unless a logarithm follows: the mel matrix is one.
WEIGHTED = (PRODUCTS - SUMS) | frozenset(
    {"DEPTHWISE_CONV_2D", "CONV_3D", "TRANSPOSE_CONV", "UNIDIRECTIONAL_SEQUENCE_LSTM", "WHILE"}
    | {"Conv", "ConvTranspose", "LSTM", "GRU", "RNN", "Loop"}
)
LOGARITHMS = frozenset({"LOG", "Log"})
# Operators whose results are integers if their operands are: those that move values, and simple
# arithmetic.
WHOLE = frozenset(
    {"RESHAPE", "TRANSPOSE", "EXPAND_DIMS", "SQUEEZE", "SLICE", "STRIDED_SLICE", "CONCATENATION"}
    | {"PACK", "UNPACK", "SPLIT", "SPLIT_V", "GATHER", "TILE", "PAD", "PADV2", "BROADCAST_TO"}
    | {"REVERSE_V2", "SELECT", "SELECT_V2", "ADD", "SUB", "MUL", "NEG", "ABS", "MAXIMUM"}
    | {"MINIMUM", "FLOOR", "CEIL", "ROUND", "SUM", "RELU"}
    | {"Reshape", "Transpose", "Unsqueeze", "Squeeze", "Slice", "Concat", "Split", "Gather"}
    | {"Tile", "Pad", "Expand", "Where", "Add", "Sub", "Mul", "Neg", "Abs", "Max", "Min"}
    | {"Floor", "Ceil", "Round", "ReduceSum", "Relu", "Identity"}
)


@dataclass(frozen=True)
class Node:
    """An operator of either format: its type, and the names of the values it reads and computes."""

    kind: str
    inputs: Names
    outputs: Names


class AttentionGraph:
    """A graph's nodes, in which the operators of attention are searched for.

    ``maps`` are the names of values that are attention maps. A softmax that nothing reads and that
    is not a map belongs to a classifier and is ignored.
    """

    def __init__(self, nodes: Iterable[Node], maps: Iterable[str] = ()) -> None:
        self._nodes = list(nodes)
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
            if used.intersection(node.outputs)
            if node.kind in SOFTMAX or self._is_share(node)
        ]

    def quotients(self) -> set[int]:
        """Positions of all quotients, and of the nodes between them and exponentials or products.

        In integers, a denominator could be zero. The same for products with the reciprocal of a
        sum, and for exponentials that a logarithm of a sum is subtracted from.
        """
        return {
            item
            for k, node in enumerate(self._nodes)
            if node.kind in QUOTIENTS or self._is_share(node)
            for item in (k, *self._operands(node.inputs), *self._weighting(node))
        } | self._logarithmic()

    def _logarithmic(self) -> set[int]:
        """The nodes between products and the exponentials in ``exp(x - log(sum(exp(x))))``.

        Both have to read the same values: a difference of one is a factor of 2.7.
        """
        inner = {
            item
            for node in self._nodes
            if node.kind in EXPONENTIALS and self._is_share(node)
            for item in self._operands(node.inputs)
            if self._nodes[item].kind in EXPONENTIALS
        }
        return {item for k in inner for item in self._operands(self._nodes[k].inputs)}

    def _operands(self, names: Names) -> set[int]:
        """The nodes that compute a quotient's operands from exponentials, which are included, or
        from products."""
        products = PRODUCTS - SUMS
        visited = self._back(names, products | POSITIVE)
        return {k for k in visited if self._nodes[k].kind not in products}

    def _is_share(self, node: Node) -> bool:
        """Whether a node divides positive values by their sum, as a hand-written softmax does."""
        if node.kind in EXPONENTIALS:
            kinds = {self._nodes[k].kind for k in self._operands(node.inputs)}
            has_logarithm = bool(kinds & SUMS and kinds & EXPONENTIALS and kinds & LOGARITHMS)
            return has_logarithm or bool(kinds & LOG_SOFTMAX)
        if len(node.inputs) != 2 or node.kind not in QUOTIENTS | MULTIPLICATIONS:
            return False
        first, second = (self._operands((name,)) for name in node.inputs)
        if node.kind in QUOTIENTS:
            return self._are_shared(first, second) or bool(self._weighting(node))
        return any(
            self._are_shared(values, inverse)
            for values, inverse in ((first, second), (second, first))
            if any(self._is_reciprocal(self._nodes[k]) for k in inverse)
        )

    def _weighting(self, node: Node) -> set[int]:
        """The products in the numerator of a quotient that weight data with the positive values
        whose sum is its denominator, and the nodes from those values to the products."""
        if node.kind not in QUOTIENTS or len(node.inputs) != 2:
            return set()
        products = PRODUCTS - SUMS
        denominator = self._operands(node.inputs[1:])
        positive = {k for k in denominator if self._nodes[k].kind in POSITIVE}
        if not any(self._nodes[k].kind in SUMS for k in denominator):
            return set()
        weighting: set[int] = set()
        for k in self._back(node.inputs[:1], products):
            for name in self._nodes[k].inputs if self._nodes[k].kind in products else ():
                operands = self._operands((name,))
                if operands & positive:
                    weighting |= {k, *operands}
        return weighting

    def _are_shared(self, numerator: set[int], denominator: set[int]) -> bool:
        kinds = {self._nodes[k].kind for k in numerator & denominator}
        return any(self._nodes[k].kind in SUMS for k in denominator) and bool(POSITIVE & kinds)

    @staticmethod
    def _is_reciprocal(node: Node) -> bool:
        return len(node.inputs) == 1 and node.kind in QUOTIENTS | RECIPROCALS

    def region(self, *, projections: bool = False) -> set[int]:
        """Positions of the nodes from the scores to the weighted sum.

        That is every softmax, also if it is written as a quotient, the nodes back to the products
        that make its scores, and the nodes forward to the products that its weights go into, all
        included. With ``projections``, two
        products further back: the projections of queries and keys, and what they are made of.
        """
        region: set[int] = set(self._softmaxes)
        for k in self._softmaxes:
            inputs = self._nodes[k].inputs
            if self._nodes[k].kind not in SOFTMAX:
                inner = self._operands(inputs) | self._weighting(self._nodes[k])
                region |= inner
                inputs = tuple(name for item in inner for name in self._nodes[item].inputs)
            scores = self._back(inputs, PRODUCTS)
            for _ in range(2 if projections else 0):
                ends = [item for item in scores if self._nodes[item].kind in PRODUCTS]
                names = [name for item in ends for name in self._nodes[item].inputs]
                scores |= self._back(names, PRODUCTS)
            region |= scores
            region |= self._walk(self._nodes[k].outputs, self._users, PRODUCTS, forward=True)
        return region

    def upstream(self) -> set[int]:
        """Positions of the nodes of the :meth:`region` and of all that the scores depend on."""
        names = [name for k in self._softmaxes for name in self._nodes[k].inputs]
        return self.region() | self._back(names, frozenset())

    def spectrum(self, transforms: set[int]) -> set[int]:
        """Positions of all that ``transforms`` depend on, and of what leads from them to logarithms
        or, without one, to operators with weights."""
        names = [name for k in transforms for name in self._nodes[k].inputs]
        region = transforms | self._back(names, frozenset())
        pending = [name for k in transforms for name in self._nodes[k].outputs]
        while pending:
            for k in self._users.get(pending.pop(), []):
                node = self._nodes[k]
                if k in region or (node.kind in WEIGHTED and not self._is_before_logarithm(k)):
                    continue
                region.add(k)
                if node.kind not in LOGARITHMS:
                    pending.extend(node.outputs)
        return region

    def truncated(self, casts: set[int]) -> set[int]:
        """Positions of the nodes that compute what ``casts`` truncate to integers.

        With the rounding of an integer scale, 3 may be 2.996, which becomes 2.
        """
        visited: set[int] = set()
        pending = [name for k in casts for name in self._nodes[k].inputs]
        while pending:
            for k in self._makers.get(pending.pop(), []):
                if k not in visited and self._nodes[k].kind in WHOLE:
                    visited.add(k)
                    pending.extend(self._nodes[k].inputs)
        return visited

    def _is_before_logarithm(self, position: int) -> bool:
        outputs = self._nodes[position].outputs
        after = self._walk(outputs, self._users, WEIGHTED | LOGARITHMS, forward=True)
        return any(self._nodes[k].kind in LOGARITHMS for k in after)

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
