"""Matching of the tensors and operators of two graphs made from the same model.

Quantizers insert operators that only change the encoding, reorder independent operators and drop
tensor names, but keep the dataflow. Operators of the same kind with the same inputs are matched;
among several such operators, the one with the most similar weights is chosen.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from edgeattn.diagnosis.graph import Constant, Graph, Operator
from edgeattn.tensors import Array

_COMMUTATIVE = frozenset({"ADD", "MUL", "MAXIMUM", "MINIMUM", "Add", "Mul", "Max", "Min"})
# Integers whose range is that of the result clip by themselves, so that quantizers drop these.
_CLIPPING = frozenset({"Relu", "Clip"})
_NO_ACTIVATION = "fusedActivationFunction=0"
# Limits the search for operators of another kind, since each one repeats the matching.
MAX_SUBSTITUTIONS = 8
OperatorKey = tuple[str, str, tuple[str, ...]]


@dataclass
class Match:
    """Counterparts in the reference graph of tensors, operators (by position) and constants.

    ``swapped`` are pairs of inputs that are interchanged in the artifact. ``misnamed`` maps the
    name of an output of the artifact to that of the reference's output with the same tensor.
    """

    tensors: dict[str, str] = field(default_factory=dict)
    operators: dict[int, int] = field(default_factory=dict)
    constants: dict[str, str] = field(default_factory=dict)
    swapped: tuple[tuple[str, str], ...] = ()
    misnamed: dict[str, str] = field(default_factory=dict)

    def unmatched(self, graph: Graph) -> list[Operator]:
        """Return the operators of the artifact's ``graph`` without a counterpart."""
        return [o for o in graph.operators if not o.recodes and o.position not in self.operators]


@dataclass(frozen=True)
class GraphPair:
    """The graphs of a reference and an artifact, and their match."""

    reference: Graph
    artifact: Graph
    match: Match

    @classmethod
    def of(cls, reference: Graph, artifact: Graph) -> GraphPair:
        return cls(reference, artifact, match_graphs(reference, artifact))

    def counterpart(self, operator: Operator) -> Operator | None:
        return self.reference.by_position.get(self.match.operators.get(operator.position, -1))

    def constant_pairs(self, operator: Operator) -> list[tuple[Constant, Constant]]:
        """Return the constants that ``operator`` reads, with their counterparts."""
        return [
            (self.artifact.constants[name], self.reference.constants[self.match.constants[name]])
            for name in operator.inputs
            if name in self.match.constants
        ]

    def bodies(self) -> dict[int, GraphPair]:
        """Return the matched loop bodies by the position of the artifact's loop operator."""
        return {
            position: GraphPair.of(self.reference.bodies[self.match.operators[position]], body)
            for position, body in self.artifact.bodies.items()
            if self.match.operators.get(position, -1) in self.reference.bodies
        }


def match_graphs(reference: Graph, artifact: Graph) -> Match:
    """Match the graph of an artifact with that of its reference."""
    names = {name: name for name in artifact.inputs if name in reference.inputs}
    match = _match_in_order(reference, artifact, names, {})
    if match.unmatched(artifact):
        match = _match_swapped_inputs(reference, artifact, names) or _match_substitutions(
            reference, artifact, names
        )
    output_names = {tensor: name for name, tensor in reference.outputs.items()}
    for name, tensor in artifact.outputs.items():
        partner = match.tensors.get(tensor)
        if partner is not None and output_names.get(partner, name) != name:
            match.misnamed[name] = output_names[partner]
        elif name in reference.outputs:
            match.tensors[tensor] = reference.outputs[name]
    return match


def _match_swapped_inputs(
    reference: Graph, artifact: Graph, names: Mapping[str, str]
) -> Match | None:
    """Return the match of all operators with two inputs interchanged, if there is one."""
    for one, other in itertools.combinations(names, 2):
        match = _match_in_order(reference, artifact, {**names, one: other, other: one}, {})
        if not match.unmatched(artifact):
            match.swapped = ((one, other),)
            return match
    return None


def _match_substitutions(reference: Graph, artifact: Graph, inputs: Mapping[str, str]) -> Match:
    """Match operators that were replaced by one of another kind or with other settings."""
    fixed: dict[int, Operator] = {}
    match = _match_in_order(reference, artifact, inputs, fixed)
    sources = _recoded_sources(reference)
    followers, expected = _followers(artifact), _followers(reference)

    def replaceable(operator: Operator, unused: Iterable[Operator]) -> list[Operator]:
        # MINIMUM before EXP, if the reference has EXP alone, was added and replaces nothing.
        added_before = followers(operator)
        return [
            other
            for other in _replaceable(operator, unused, match, sources)
            if other.kind not in added_before or other.kind in expected(other)
        ]

    for _ in range(MAX_SUBSTITUTIONS):
        matched = set(match.operators.values())
        unused = [o for o in reference.operators if not o.recodes and o.position not in matched]
        substitution = next(
            (
                (operator, candidates[0])
                for operator in match.unmatched(artifact)
                if len(candidates := replaceable(operator, unused)) == 1
            ),
            None,
        )
        if substitution is None:
            break
        fixed[substitution[0].position] = substitution[1]
        match = _match_in_order(reference, artifact, inputs, fixed)
    return match


def _match_in_order(
    reference: Graph, artifact: Graph, inputs: Mapping[str, str], fixed: Mapping[int, Operator]
) -> Match:
    """Match operators from the inputs on; the counterparts in ``fixed`` are prescribed."""
    match = Match()
    sources = _recoded_sources(reference)
    clipped = _clipped_tensors(reference, artifact)
    reserved = {operator.position for operator in fixed.values()}
    candidates: dict[OperatorKey, list[Operator]] = {}
    for operator in reference.operators:
        if not operator.recodes and operator.position not in reserved:
            tokens = [_token(reference, name, sources.get(name, name)) for name in operator.inputs]
            candidates.setdefault(_key(operator, tokens, reference), []).append(operator)
    match.tensors.update({artifact.inputs[a]: reference.inputs[b] for a, b in inputs.items()})
    unused = {o.position for operators in candidates.values() for o in operators}
    for operator in artifact.operators:
        if operator.recodes:
            source = match.tensors.get(operator.inputs[0])
            if source is not None:
                quantizes = operator.kind == "QuantizeLinear"
                result = clipped(operator.inputs[0], source) if quantizes else source
                match.tensors[operator.outputs[0]] = result
            continue
        tokens = [_token(artifact, name, match.tensors.get(name)) for name in operator.inputs]
        same_key = candidates.get(_key(operator, tokens, artifact), [])
        partner = fixed.get(operator.position) or _most_similar(
            operator, [o for o in same_key if o.position in unused], artifact, reference
        )
        if partner is None:
            continue
        unused.discard(partner.position)
        match.operators[operator.position] = partner.position
        match.tensors.update(zip(operator.outputs, partner.outputs, strict=False))
        for name, reference_name in _paired_constants(operator, partner, artifact, reference):
            match.constants.setdefault(name, reference_name)
    return match


def _clipped_tensors(reference: Graph, artifact: Graph) -> Callable[[str, str], str]:
    """Return a function of a tensor of ``artifact`` that is quantized, and of its counterpart.

    It returns what the integers are the counterpart of: the result of the operator that clips the
    tensor in the reference, if that alone reads it and the artifact has no such operator.
    """
    results: dict[str, list[str]] = {}
    sources = _recoded_sources(reference)
    for operator in reference.operators:
        for name in {sources.get(name, name) for name in operator.inputs}:
            if not operator.recodes:
                clips = operator.kind in _CLIPPING and len(operator.outputs) == 1
                results.setdefault(name, []).append(operator.outputs[0] if clips else name)
    origins = _recoded_sources(artifact)
    kept = {
        origins.get(operator.inputs[0], operator.inputs[0])
        for operator in artifact.operators
        if operator.kind in _CLIPPING
    }

    def clipped(name: str, partner: str) -> str:
        readers = results.get(partner, [])
        is_kept = origins.get(name, name) in kept
        return partner if is_kept or len(readers) != 1 else readers[0]

    return clipped


def _recoded_sources(graph: Graph) -> dict[str, str]:
    """Map each tensor with a changed encoding to the tensor that it was made from."""
    sources: dict[str, str] = {}
    for operator in graph.operators:
        if operator.recodes:
            source = operator.inputs[0]
            sources[operator.outputs[0]] = sources.get(source, source)
    return sources


def _followers(graph: Graph) -> Callable[[Operator], set[str]]:
    """Return a function of an operator to the kinds of those that read its results."""
    sources, kinds = _recoded_sources(graph), dict[str, set[str]]()
    for operator in graph.operators:
        if not operator.recodes:
            for name in operator.inputs:
                kinds.setdefault(sources.get(name, name), set()).add(operator.kind)
    return lambda operator: {kind for name in operator.outputs for kind in kinds.get(name, ())}


def _token(graph: Graph, name: str, reference_name: str | None) -> str:
    """Return a text that is equal for inputs that are equal apart from their encoding."""
    if not name:
        return ""
    constant = graph.constants.get(name)
    if constant is None:
        return f"={reference_name}" if reference_name is not None else "?"
    if constant.values.dtype.kind in "fc":
        return f"float{tuple(size for size in constant.values.shape if size != 1)}"
    return f"{constant.values.ravel().tolist()[:64]}"


def _key(operator: Operator, tokens: list[str], graph: Graph) -> OperatorKey:
    while tokens and not tokens[-1]:
        tokens.pop()
    if operator.kind in _COMMUTATIVE:
        tokens = sorted(tokens)
    kind, variant = operator.kind, operator.variant
    if kind == "BATCH_MATMUL" and operator.inputs[1] in graph.constants:
        # TFLite has two operators for a product with weights, and quantizers exchange them.
        kind, variant = "FULLY_CONNECTED", _NO_ACTIVATION
    return kind, variant, tuple(tokens)


def _paired_constants(
    operator: Operator, partner: Operator, artifact: Graph, reference: Graph
) -> list[tuple[str, str]]:
    """Return the names of the float constants of equal size that both operators read."""
    names = [name for name in operator.inputs if name in artifact.constants]
    partner_names = [name for name in partner.inputs if name in reference.constants]
    return [
        (a, b)
        for a, b in zip(names, partner_names, strict=False)
        if artifact.constants[a].values.size == reference.constants[b].values.size
        and reference.constants[b].values.dtype.kind == "f"
    ]


def _most_similar(
    operator: Operator, candidates: list[Operator], artifact: Graph, reference: Graph
) -> Operator | None:
    """Return the candidate whose weights have the largest cosine similarity."""

    def similarity(candidate: Operator) -> float:
        pairs = _paired_constants(operator, candidate, artifact, reference)
        return sum(_cosine(artifact.constants[a], reference.constants[b]) for a, b in pairs)

    return max(candidates, key=similarity, default=None)


def _cosine(one: Constant, other: Constant) -> float:
    a: Array = np.nan_to_num(one.values.astype(np.float64).ravel())
    b: Array = np.nan_to_num(other.values.astype(np.float64).ravel())
    norm = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / norm if norm else 0.0


def _replaceable(
    operator: Operator, unused: Iterable[Operator], match: Match, sources: Mapping[str, str]
) -> list[Operator]:
    """Return the operators that ``operator`` may replace, of its own kind if there are any.

    They read all matched inputs of ``operator`` and have as many outputs.
    """
    inputs = {match.tensors[name] for name in operator.inputs if name in match.tensors}
    candidates = [
        other
        for other in unused
        if inputs
        and inputs <= {sources.get(name, name) for name in other.inputs}
        and len(other.outputs) == len(operator.outputs)
    ]
    return [other for other in candidates if other.kind == operator.kind] or candidates
