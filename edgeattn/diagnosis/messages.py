"""What was found inside of an artifact, in plain words, and the setting that would cure it."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeattn.diagnosis.causes import (
    COARSE,
    CUT,
    NO_ROUNDING,
    ROUNDING,
    SETTINGS,
    SHIFT,
    WEIGHTS,
)
from edgeattn.diagnosis.graph import MOVING
from edgeattn.diagnosis.results import GraphComparison, OperatorComparison
from edgeattn.metrics.verdict import PASS

if TYPE_CHECKING:
    from edgeattn.bundle.manifest import Artifact

# What only a broken file, or a runtime that is, can do.
FAULTS = (WEIGHTS, SETTINGS, SHIFT, NO_ROUNDING)
# The next scheme that keeps more.
FINER = {
    "int8": "int16x8",
    "dynamic_int8": "float16",
    "int16x8": "float16",
    "int4": "dynamic_int8",
    "float16": "float32",
}


@dataclass(frozen=True)
class Diagnosis:
    """A paragraph, what would cure it, and the operator it names."""

    message: str
    remedy: str | None = None
    operator: OperatorComparison | None = None


def told(
    compared: GraphComparison,
    artifact: Artifact,
    verdict: str,
    limit_db: float,
    against: Artifact,
    model: str,
    stages: Collection[str] = (),
) -> Diagnosis:
    """What is wrong with ``artifact``, its operators ``compared`` with those of ``against``.

    An artifact that passes is only reproached with what no rounding explains. ``stages`` are those
    of the verdict that failed.
    """
    operators, reference = compared.operators, against.label
    again = f"Convert the model again: edgeattn convert {model} --force. And please report it."
    if compared.swapped or compared.misnamed:
        return Diagnosis(_ends(compared), again)
    reproached = FAULTS if verdict == PASS else (*FAULTS, CUT, COARSE, ROUNDING)
    first = next(
        (
            item
            for item in operators
            if item.cause in reproached and not (verdict == PASS and item.before)
        ),
        None,
    )
    if first is None:
        if set(stages) == {"attention"} and artifact.scheme != "float32":
            return _in_the_map(compared, artifact)
        return _nothing(compared, artifact, verdict, limit_db, against)
    say = _SENTENCES[str(first.cause)]
    cures: dict[str, str] = {
        WEIGHTS: again,
        SETTINGS: again,
        SHIFT: again,
        NO_ROUNDING: again,
        CUT: "Calibrate on more samples, and ones like those it meets: --calibration FILE",
        COARSE: _finer(first, artifact),
        ROUNDING: _finer(first, artifact),
    }
    cure = cures[str(first.cause)]
    if first.cause == NO_ROUNDING and first.recurrent and artifact.format == "tflite":
        cure = "Convert with the steps written out: --lowering unrolled. And please report it."
    named = f"{subject(first)} is the first operator whose inputs are right and whose output is not"
    if first.before:
        named = (
            f"{subject(first)} is the first that is not right; of what is before it, "
            f"{_counted(first.before, 'operator')} without a like in {reference} may be at fault"
        )
    return Diagnosis(f"{named}. {say(first, artifact, limit_db, reference)}", cure, first)


def _ends(compared: GraphComparison) -> str:
    """Inputs or outputs that go by each other's names."""
    parts = [
        f"The file takes its input {one!r} for {other!r}, and the other way round."
        for one, other in compared.swapped
    ]
    parts += [
        f"What it gives as {name!r} is what ought to be {other!r}."
        for name, other in compared.misnamed.items()
    ]
    return " ".join([*parts, "Inside, that is no operator's fault, but that of the names."])


def subject(item: OperatorComparison) -> str:
    return f"{item.kind} {item.name} (operator {item.position})"


def _finer(item: OperatorComparison, artifact: Artifact) -> str:
    if artifact.scheme == "int8" and item.attention:
        return "Keep attention in float32: --attention-precision float32"
    if item.recurrent and artifact.format == "tflite" and artifact.scheme == "int8":
        return "Give the steps finer numbers: --scheme int16x8, or --scheme dynamic_int8"
    return f"Convert with finer numbers: --scheme {FINER.get(artifact.scheme, 'float32')}"


def _in_the_map(compared: GraphComparison, artifact: Artifact) -> Diagnosis:
    """Only the map fails, which has limits of its own: what rounds most among what makes it."""
    made = [
        item
        for item in compared.operators
        if item.attention and item.kind not in MOVING and math.isfinite(item.isolated_db)
    ]
    if not made:
        return Diagnosis("No operator that makes the attention map is wrong by itself.")
    worst = min(made, key=lambda item: item.isolated_db)
    return Diagnosis(
        "No operator is wrong by itself, and no output but the attention map fails. Of what makes "
        f"the map, {subject(worst)} rounds most: {worst.isolated_db:.0f} dB are left of it.",
        _finer(worst, artifact),
        worst,
    )


def _nothing(
    compared: GraphComparison, artifact: Artifact, verdict: str, limit_db: float, against: Artifact
) -> Diagnosis:
    operators = compared.operators
    listed = " Those that add most noise are listed."
    if verdict == PASS:
        return Diagnosis(
            f"Nothing stands out: every operator is as right as {artifact.scheme} lets it be."
            + listed
        )
    if artifact.scheme == "float32":
        return Diagnosis(
            f"Held to {against.label}, no operator of it stands out: the fault is smaller than "
            f"what {against.scheme} rounds, or in both of them." + listed
        )
    reached = min(compared.outputs_db.values(), default=limit_db)
    if reached >= limit_db:
        return Diagnosis(
            f"On single sequences from a clean state its outputs reach {reached:.0f} dB, and "
            f"{limit_db:.0f} dB are needed: what fails it is a few numbers among many, or is "
            "carried from one sequence to the next." + listed,
            f"Convert with finer numbers: --scheme {FINER.get(artifact.scheme, 'float32')}",
        )
    steps = sum(item.recurrent for item in operators)
    where = f", {steps} of them in steps of a recurrence, which hand it on" if steps else ""
    return Diagnosis(
        f"No operator is wrong by itself: each rounds a little, and over {len(operators)} "
        f"operators{where}, {reached:.0f} dB are left of the {limit_db:.0f} dB that are needed."
        + listed,
        f"Convert with finer numbers: --scheme {FINER.get(artifact.scheme, 'float32')}",
    )


def _weights(item: OperatorComparison, artifact: Artifact, limit: float, reference: str) -> str:
    wrong = item.detail["share"] * item.detail["count"]
    return (
        f"{wrong:,.0f} of its {item.detail['count']:,.0f} stored weights are not those of "
        f"{reference}: they differ by up to {item.detail['largest']:.2g}, more than "
        f"{artifact.scheme} rounds. That is a fault of the file and not of its precision."
    )


def _settings(item: OperatorComparison, artifact: Artifact, limit: float, reference: str) -> str:
    pairs = [f"{name} is {is_}, and {ought} there" for name, (is_, ought) in item.settings.items()]
    return (
        f"It is not set as in {reference}: {'; '.join(pairs)}. That is a fault of the file and not "
        "of its precision."
    )


def _shift(item: OperatorComparison, artifact: Artifact, limit: float, reference: str) -> str:
    return (
        f"All it makes lies {item.detail['steps']:+.1f} integer steps beside what is right, as a "
        "wrong zero point does. That is a fault of the file and not of its precision."
    )


def _cut(item: OperatorComparison, artifact: Artifact, limit: float, reference: str) -> str:
    d = item.detail
    return (
        f"Its numbers go from {d['low']:.3g} to {d['high']:.3g} on these samples, and the file "
        f"keeps {d['kept_low']:.3g} to {d['kept_high']:.3g}: what is beyond is cut off."
    )


def _coarse(item: OperatorComparison, artifact: Artifact, limit: float, reference: str) -> str:
    d = item.detail
    return (
        f"Its numbers have {_counted(d['steps'], 'integer step')} for themselves: the file keeps "
        f"{d['kept_low']:.3g} to {d['kept_high']:.3g}, for a few values far from the others, as "
        "the fill of a mask is."
    )


def _counted(number: float, what: str) -> str:
    rounded = max(1, round(number))
    return f"{rounded:,} {what}{'' if rounded == 1 else 's'}"


def _unexplained(item: OperatorComparison, artifact: Artifact, limit: float, reference: str) -> str:
    made = f"are right to {item.isolated_db:.0f} dB"
    if item.isolated_db == -math.inf:
        made = "are no numbers, or another count of them"
    would = f"rounding to {artifact.scheme} would leave {item.explained_db:.0f} dB"
    if math.isinf(item.explained_db):
        would = "nothing in it rounds"
    return (
        f"Given the right numbers, it makes ones that {made}; {would}. That is a fault of the "
        "file, or of the runtime."
    )


def _rounding(item: OperatorComparison, artifact: Artifact, limit: float, reference: str) -> str:
    return (
        f"Rounding to {artifact.scheme} alone leaves it {item.isolated_db:.0f} dB, and an output "
        f"needs {limit:.0f} dB."
    )


_SENTENCES: dict[str, Callable[[OperatorComparison, Artifact, float, str], str]] = {
    WEIGHTS: _weights,
    SETTINGS: _settings,
    SHIFT: _shift,
    CUT: _cut,
    COARSE: _coarse,
    NO_ROUNDING: _unexplained,
    ROUNDING: _rounding,
}
