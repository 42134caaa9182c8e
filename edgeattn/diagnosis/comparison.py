"""Comparison of every operator of an artifact with its counterpart in a reference file.

Three differences from the reference's values are measured for every tensor:

- accumulated: of the whole artifact from the whole reference;
- isolated: of each operator of the artifact with the reference's values as inputs, which is the
  error that the operator itself adds;
- explained: of the reference's operator with inputs, weights and result rounded to the dtypes of
  the artifact, which is the error that rounding adds at least.

An isolated error well above the explained one is a fault.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from edgeattn import progress
from edgeattn.diagnosis import causes
from edgeattn.diagnosis.causes import TensorNoise, decibels
from edgeattn.diagnosis.graph import Encoding, Graph, InstrumentedModel, Operator, round_constant
from edgeattn.diagnosis.locate import (
    OPAQUE,
    attention_positions,
    readable_name,
    recodes_attention,
    recurrent_positions,
    unmatched_before,
)
from edgeattn.diagnosis.matching import GraphPair, Match
from edgeattn.diagnosis.results import GraphComparison, OperatorComparison
from edgeattn.tensors import Array, Tensors, TensorSpec


class ModelClass(Protocol):
    """The :class:`InstrumentedModel` of one format."""

    def __call__(
        self, path: Path, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
    ) -> InstrumentedModel: ...


def compare_files(
    model_class: ModelClass,
    reference: Mapping[str, Any],
    artifact: Mapping[str, Any],
    limit_db: float,
    maps: Sequence[str],
    tensors: Tensors,
) -> dict[str, Any]:
    """Open both files and return their :class:`GraphComparison` as JSON.

    ``reference`` and ``artifact`` have the keys ``path``, ``inputs`` and ``outputs``; the other
    arguments are those of :func:`compare_models`.
    """
    models = [
        model_class(
            Path(file["path"]),
            [TensorSpec.from_json(spec) for spec in file["inputs"]],
            [TensorSpec.from_json(spec) for spec in file["outputs"]],
        )
        for file in (reference, artifact)
    ]
    return compare_models(models[0], models[1], tensors, limit_db, maps).to_json()


def compare_models(
    reference: InstrumentedModel,
    artifact: InstrumentedModel,
    inputs: Tensors,
    limit_db: float,
    maps: Sequence[str] = (),
) -> GraphComparison:
    """Compare every operator of ``artifact`` that has a counterpart in ``reference``.

    ``inputs`` are samples along the first axis, ``limit_db`` the SNR that outputs of the artifact
    must reach, and ``maps`` the names of the outputs that are attention maps.
    """
    pair = GraphPair.of(reference.graph, artifact.graph)
    match = pair.match
    shapes = _drop_unequal_sizes(match, reference, artifact, inputs)
    operators = [o for o in artifact.graph.operators if any(n in match.tensors for n in o.outputs)]
    boundaries = sorted(_boundaries(artifact.graph, match))
    reference_boundaries = sorted(
        {match.tensors[name] for name in boundaries} | set(reference.graph.inputs.values())
    )
    encodings = _input_encodings(artifact.graph, match)
    run_isolated = artifact.isolate(boundaries, {})
    run_explained = reference.isolate(reference_boundaries, _rounded_weights(pair))
    noise = {name: TensorNoise(name) for operator in operators for name in operator.outputs}
    samples = len(next(iter(inputs.values())))
    for index in range(samples):
        progress.report(f"comparing operators, sample {index + 1} of {samples}")
        sample = {name: array[index : index + 1] for name, array in inputs.items()}
        expected, accumulated = reference.tensor_values(sample), artifact.tensor_values(sample)
        isolated = run_isolated(
            {name: expected[match.tensors[name]].reshape(shapes[name]) for name in boundaries}
        )
        explained = run_explained(
            {name: _round(expected[name], encodings.get(name)) for name in reference_boundaries}
        )
        for name, sums in noise.items():
            partner = match.tensors.get(name, "")
            if partner in expected and name in isolated and name in accumulated:
                sums.add(
                    expected[partner], accumulated[name], isolated[name], explained.get(partner)
                )
    classifier = _Classifier(pair, limit_db, maps, set(boundaries))
    return GraphComparison(
        tuple(
            classifier.compare(operator, measured)
            for operator in operators
            if (measured := [noise[name] for name in operator.outputs if noise[name].count])
        ),
        len(classifier.unmatched),
        match.swapped,
        match.misnamed,
        {
            name: decibels(noise[tensor].signal, noise[tensor].accumulated)
            for name, tensor in artifact.graph.outputs.items()
            if tensor in noise and noise[tensor].count and name not in match.misnamed
        },
    )


class _Classifier:
    """Finds the cause of each operator's error."""

    def __init__(
        self, pair: GraphPair, limit_db: float, maps: Sequence[str], boundaries: set[str]
    ) -> None:
        self.pair = pair
        self.limit_db = limit_db
        self.boundaries = boundaries
        self.unmatched = {o.position for o in pair.match.unmatched(pair.artifact)}
        self.attention = attention_positions(pair.reference, tuple(maps))
        self.recurrent = recurrent_positions(pair.reference)
        self.bodies = pair.bodies()

    def compare(self, operator: Operator, noise: Sequence[TensorNoise]) -> OperatorComparison:
        pair = self.pair
        signal = sum(sums.signal for sums in noise)
        isolated = sum(sums.isolated for sums in noise)
        explained = sum(
            sums.explained + causes.rounding_power(operator, pair.artifact, sums) for sums in noise
        )
        before = unmatched_before(operator, pair.artifact, self.unmatched, self.boundaries)
        cause, detail = causes.find_cause(operator, noise, pair, self.limit_db)
        name = readable_name(operator, pair)
        in_body = causes.wrong_weights_in_loop(self.bodies.get(operator.position))
        if cause is None and in_body is not None:
            cause, detail = causes.WEIGHTS, in_body[1]
            name = f"{name}, {in_body[0]} in its body,"
        attributes = causes.attribute_differences(operator, pair)
        if cause is None and attributes:
            cause = causes.ATTRIBUTES
        if cause is None:
            # The scale may be coarse because the calibration had larger values.
            in_stored_scale = sum(
                sums.explained + causes.stored_rounding_power(operator, pair.artifact, sums)
                for sums in noise
            )
            expected = max(explained, in_stored_scale)
            cause = self._rounding_cause(operator, before, signal, isolated, expected)
        position = pair.match.operators.get(operator.position, -1)
        return OperatorComparison(
            operator.position,
            operator.kind,
            name,
            decibels(signal, sum(sums.accumulated for sums in noise)),
            decibels(signal, isolated),
            decibels(signal, explained),
            cause,
            attention=position in self.attention
            or recodes_attention(operator, pair, self.attention),
            recurrent=position in self.recurrent,
            detail=detail,
            attributes=attributes,
            unmatched_before=before,
        )

    def _rounding_cause(
        self, operator: Operator, before: int, signal: float, isolated: float, explained: float
    ) -> str | None:
        """Return whether the error is unexplained, is rounding beyond the limit, or neither.

        The rounding inside a loop and of operators without a counterpart is unknown.
        """
        isolated_db = decibels(signal, isolated)
        if isolated_db >= causes.EQUAL_DB:
            return None
        if before:
            return causes.UNEXPLAINED if isolated_db < self.limit_db else None
        excessive = operator.kind not in OPAQUE and isolated > causes.NOISE_FACTOR * explained
        if excessive and isolated_db < self.limit_db + 10:
            return causes.UNEXPLAINED
        return causes.ROUNDING if isolated_db < self.limit_db else None


def _boundaries(graph: Graph, match: Match) -> set[str]:
    """Return the matched tensors that operators exchange, without constants."""
    produced = set(graph.producers) & (graph.consumed | set(graph.outputs.values()))
    used = produced | (set(graph.inputs.values()) & graph.consumed)
    return {name for name in match.tensors if name in used and name not in graph.constants}


def _drop_unequal_sizes(
    match: Match, reference: InstrumentedModel, artifact: InstrumentedModel, inputs: Tensors
) -> dict[str, tuple[int, ...]]:
    """Remove matches of tensors of unequal size; return the shapes of the artifact's tensors."""
    sample = {name: array[:1] for name, array in inputs.items()}
    expected, values = reference.tensor_values(sample), artifact.tensor_values(sample)
    shapes: dict[str, tuple[int, ...]] = {}
    for name, partner in list(match.tensors.items()):
        equal = name in values and partner in expected
        if equal and values[name].size == expected[partner].size:
            shapes[name] = values[name].shape
        else:
            del match.tensors[name]
    for operator in artifact.graph.operators:
        if not any(name in match.tensors for name in operator.outputs):
            match.operators.pop(operator.position, None)
    return shapes


def _rounded_weights(pair: GraphPair) -> dict[str, Array]:
    """Return the reference's weights rounded to the dtypes of the artifact, also in loops."""
    weights = {}
    for graphs in (pair, *pair.bodies().values()):
        for name, partner in graphs.match.constants.items():
            encoding = graphs.artifact.constants[name].encoding
            expected = graphs.reference.constants[partner]
            if encoding.dtype != "float32" and expected.encoding.dtype == "float32":
                weights[partner] = round_constant(expected.values, encoding)
    return weights


def _input_encodings(graph: Graph, match: Match) -> dict[str, Encoding]:
    """Map tensors of the reference to the encoding in which the artifact's operators read them."""
    encodings: dict[str, Encoding] = {}
    for operator in graph.operators:
        if operator.recodes:
            continue
        if operator.quantizes_input and operator.inputs[0] in match.tensors:
            partner = match.tensors[operator.inputs[0]]
            encodings.setdefault(partner, Encoding("int8", dynamic=True))
        for name in operator.inputs:
            encoding = _integer_encoding(graph, name)
            if encoding is not None and name in match.tensors:
                encodings.setdefault(match.tensors[name], encoding)
    return encodings


def _integer_encoding(graph: Graph, name: str) -> Encoding | None:
    """Return the encoding of the integers that ``name`` holds or was decoded from."""
    encoding = graph.encoding(name)
    if encoding.scale is not None:
        return encoding
    producer = graph.producers.get(name)
    if producer is None or not producer.recodes:
        return None
    return _integer_encoding(graph, producer.inputs[0])


def _round(values: Array, encoding: Encoding | None) -> Array:
    return values if encoding is None or values.dtype.kind != "f" else encoding.round(values)
