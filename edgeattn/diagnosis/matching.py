"""Which tensor of one file is which of another: two graphs of one lowering, laid side by side.

Quantizers put operators between that only change how numbers are kept, may reorder what does not
depend on each other, and drop names. What stays is what every operator makes of what: operators of
one kind with the same inputs are the same, and where several are, their weights tell.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from edgeattn.diagnosis.graph import Constant, Graph, Operator
from edgeattn.tensors import Array

_COMMUTATIVE = frozenset({"ADD", "MUL", "MAXIMUM", "MINIMUM", "Add", "Mul", "Max", "Min"})

_PLAIN_PRODUCT = "fusedActivationFunction=0"
# An operator that is not the right one is found so often; each time the graphs are laid anew.
MOST_REPLACED = 8
Key = tuple[str, str, tuple[str, ...]]


@dataclass
class Match:
    """For tensors, operators' positions and constants of the judged graph: the reference's.

    ``swapped`` are pairs of inputs that the judged file takes for each other, ``misnamed`` says
    under which name it tells an output of the reference.
    """

    tensors: dict[str, str] = field(default_factory=dict)
    operators: dict[int, int] = field(default_factory=dict)
    constants: dict[str, str] = field(default_factory=dict)
    swapped: tuple[tuple[str, str], ...] = ()
    misnamed: dict[str, str] = field(default_factory=dict)

    def without(self, graph: Graph) -> list[Operator]:
        """The operators of ``graph`` that have no like, in their order."""
        return [o for o in graph.operators if not o.rounds and o.position not in self.operators]


def match(reference: Graph, judged: Graph) -> Match:
    """What of ``judged`` is the same as what of ``reference``; the rest is left out."""
    names = {name: name for name in judged.inputs if name in reference.inputs}
    found = _laid(reference, judged, names, {})
    if found.without(judged):
        found = _swapped(reference, judged, names) or _replaced(reference, judged, names)
    ends = {tensor: name for name, tensor in reference.outputs.items()}
    for name, tensor in judged.outputs.items():
        partner = found.tensors.get(tensor)
        if partner is not None and ends.get(partner, name) != name:
            found.misnamed[name] = ends[partner]
        elif name in reference.outputs:
            found.tensors[tensor] = reference.outputs[name]
    return found


def _swapped(reference: Graph, judged: Graph, names: Mapping[str, str]) -> Match | None:
    """The match in which all have their like, where two inputs go by each other's names."""
    for one, other in itertools.combinations(names, 2):
        turned = _laid(reference, judged, {**names, one: other, other: one}, {})
        if not turned.without(judged):
            turned.swapped = ((one, other),)
            return turned
    return None


def _replaced(reference: Graph, judged: Graph, inputs: Mapping[str, str]) -> Match:
    """As :func:`_laid`; an operator of another kind is the like of the one whose place it takes."""
    forced: dict[int, Operator] = {}
    found = _laid(reference, judged, inputs, forced)
    roots = _roots(reference)
    for _ in range(MOST_REPLACED):
        taken = set(found.operators.values())
        unused = [o for o in reference.operators if not o.rounds and o.position not in taken]
        odd = next(
            (
                (operator, same[0])
                for operator in found.without(judged)
                if len(same := _in_place(operator, unused, found, roots)) == 1
            ),
            None,
        )
        if odd is None:
            break
        forced[odd[0].position] = odd[1]
        found = _laid(reference, judged, inputs, forced)
    return found


def _laid(
    reference: Graph, judged: Graph, inputs: Mapping[str, str], forced: Mapping[int, Operator]
) -> Match:
    """The graphs laid side by side from their inputs on, the ``forced`` operators as they say."""
    found = Match()
    there = _roots(reference)
    kept = {operator.position for operator in forced.values()}
    left: dict[Key, list[Operator]] = {}
    for operator in reference.operators:
        if not operator.rounds and operator.position not in kept:
            tokens = [_token(reference, name, there.get(name, name)) for name in operator.inputs]
            left.setdefault(_key(operator, tokens, reference), []).append(operator)
    found.tensors.update({judged.inputs[a]: reference.inputs[b] for a, b in inputs.items()})
    unused = {o.position: o for same in left.values() for o in same}
    for operator in judged.operators:
        if operator.rounds:
            source = found.tensors.get(operator.inputs[0])
            if source is not None:
                found.tensors[operator.outputs[0]] = source
            continue
        tokens = [_token(judged, name, found.tensors.get(name)) for name in operator.inputs]
        same = [o for o in left.get(_key(operator, tokens, judged), []) if o.position in unused]
        partner = forced.get(operator.position) or _nearest(operator, same, judged, reference)
        if partner is None:
            continue
        unused.pop(partner.position, None)
        found.operators[operator.position] = partner.position
        found.tensors.update(zip(operator.outputs, partner.outputs, strict=False))
        pairs = _paired(operator, partner, judged, reference)
        found.constants.update({mine: its for mine, its in pairs if mine not in found.constants})
    return found


def _roots(graph: Graph) -> dict[str, str]:
    """For what only keeps another tensor's numbers otherwise: that tensor."""
    roots: dict[str, str] = {}
    for operator in graph.operators:
        if operator.rounds:
            source = operator.inputs[0]
            roots[operator.outputs[0]] = roots.get(source, source)
    return roots


def _token(graph: Graph, name: str, same: str | None) -> str:
    if not name:
        return ""
    constant = graph.constants.get(name)
    if constant is None:
        return f"={same}" if same is not None else "?"
    if constant.value.dtype.kind in "fc":
        return f"float{tuple(d for d in constant.value.shape if d != 1)}"
    return f"{constant.value.ravel().tolist()[:64]}"


def _key(operator: Operator, tokens: list[str], graph: Graph) -> Key:
    while tokens and not tokens[-1]:
        tokens.pop()
    if operator.kind in _COMMUTATIVE:
        tokens = sorted(tokens)
    kind, settings = operator.kind, operator.settings
    if kind == "BATCH_MATMUL" and operator.inputs[1] in graph.constants:
        # TFLite has two operators for a product with weights, and quantizers choose the other.
        kind, settings = "FULLY_CONNECTED", _PLAIN_PRODUCT
    return kind, settings, tuple(tokens)


def _paired(
    one: Operator, other: Operator, judged: Graph, reference: Graph
) -> list[tuple[str, str]]:
    """Constants of two operators that are the same but for how they are kept."""
    mine = [name for name in one.inputs if name in judged.constants]
    its = [name for name in other.inputs if name in reference.constants]
    return [
        (a, b)
        for a, b in zip(mine, its, strict=False)
        if judged.constants[a].value.size == reference.constants[b].value.size
        and reference.constants[b].value.dtype.kind == "f"
    ]


def _nearest(
    operator: Operator, same: list[Operator], judged: Graph, reference: Graph
) -> Operator | None:
    """Of operators with the same inputs, the one whose weights are most alike."""

    def likeness(other: Operator) -> float:
        pairs = _paired(operator, other, judged, reference)
        return sum(_cosine(judged.constants[a], reference.constants[b]) for a, b in pairs)

    return max(same, key=likeness, default=None)


def _cosine(one: Constant, other: Constant) -> float:
    a: Array = np.nan_to_num(one.value.astype(np.float64).ravel())
    b: Array = np.nan_to_num(other.value.astype(np.float64).ravel())
    norm = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / norm if norm else 0.0


def _in_place(
    operator: Operator, unused: Iterable[Operator], found: Match, roots: Mapping[str, str]
) -> list[Operator]:
    """Those that take all that ``operator`` takes and make as much; of its kind, if there are."""
    known = {found.tensors[name] for name in operator.inputs if name in found.tensors}
    same = [
        other
        for other in unused
        if known
        and known <= {roots.get(name, name) for name in other.inputs}
        and len(other.outputs) == len(operator.outputs)
    ]
    return [other for other in same if other.kind == operator.kind] or same
