"""Does the artifact still do its task? Accuracy, paired with the reference's on the same samples.

A drop is measured, never assumed: every sample is answered by both, and what counts is where they
differ. Three answers are possible: the loss is shown to be within the margin (pass), shown to be
beyond it (fail), or the samples cannot tell (inconclusive), and then how many could is said.

The interval of the drop is a paired percentile bootstrap (Efron and Tibshirani 1993, chapter 13),
the test of the disagreements McNemar's exact one (McNemar 1947), the decision that of
non-inferiority: the interval's upper end against the margin.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgeattn.errors import SampleError
from edgeattn.tensors import Array, Tensors

PASS, FAIL, INCONCLUSIVE, NOT_RUN = "pass", "fail", "inconclusive", "not run"
CLASSES, YES_NO, AMOUNTS = "classes", "yes or no", "amounts"

RESAMPLES = 10_000
SEED = 20240607
# Samples are dealt into at most so many piles, which are resampled: the same distribution, in
# bounded memory, however many samples there are.
PILES = 4_000
# The normal distribution's, for the 95% in the middle.
Z = 1.959964
# The smallest leads that the density of leads near zero is told from.
NEAREST = 10


@dataclass(frozen=True)
class Outcome:
    """How an output did its task before and after; ``drop`` is before less after.

    ``score`` names what is kept: ``accuracy`` of classes and of yes or no, ``r2`` of amounts.
    ``needed`` is how many samples would settle an inconclusive one, where any number would.
    ``lost`` and ``gained`` count the decisions that became wrong and right. Confusions have a row
    for each true class and a column for each answer.
    """

    output: str
    kind: str
    score: str
    samples: int
    before: float
    after: float
    interval: tuple[float, float]
    margin: float
    verdict: str
    needed: int | None = None
    lost: int | None = None
    gained: int | None = None
    p_value: float | None = None
    errors: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    confusions: tuple[Array, Array] | None = field(default=None, compare=False)

    @property
    def drop(self) -> float:
        return self.before - self.after

    def to_json(self) -> dict[str, Any]:
        return {
            "output": self.output,
            "kind": self.kind,
            "score": self.score,
            "samples": self.samples,
            "reference": self.before,
            "artifact": self.after,
            "drop": self.drop,
            "interval": list(self.interval),
            "margin": self.margin,
            "verdict": self.verdict,
            "needed_samples": self.needed,
            "lost": self.lost,
            "gained": self.gained,
            "mcnemar_p": self.p_value,
            "errors": {
                name: {"reference": pair[0], "artifact": pair[1]}
                for name, pair in self.errors.items()
            },
            "confusion": None
            if self.confusions is None
            else dict(
                zip(
                    ("reference", "artifact"),
                    [matrix.tolist() for matrix in self.confusions],
                    strict=True,
                )
            ),
        }


@dataclass(frozen=True)
class TaskReport:
    """One artifact's task: what it was paired with, on which samples, and each output's outcome.

    ``reference`` says who gave the answers that the artifact's are compared with.
    """

    reference: str
    outcomes: tuple[Outcome, ...]
    source: str = ""
    notes: tuple[str, ...] = ()
    reason: str | None = None

    @property
    def verdict(self) -> str:
        verdicts = {outcome.verdict for outcome in self.outcomes}
        return next((v for v in (FAIL, INCONCLUSIVE, PASS) if v in verdicts), NOT_RUN)

    def to_json(self) -> dict[str, Any]:
        return {
            "verdict": self.verdict,
            "reference": self.reference,
            "source": self.source,
            "reason": self.reason,
            "notes": list(self.notes),
            "outputs": [outcome.to_json() for outcome in self.outcomes],
        }


# From outputs and labels to an outcome


def compare(
    output: str,
    labels: Array,
    before: Array,
    after: Array,
    *,
    retention: float,
) -> Outcome:
    """Hold the answers ``after`` to those ``before``, given the truth.

    ``labels`` are class numbers ``(samples,)``, one-hot rows, zeros and ones, or amounts of the
    output's own shape. ``retention`` is the share of the score that must be kept. Raises
    :class:`SampleError` for labels that do not fit the output.
    """
    before, after = np.asarray(before), np.asarray(after)
    kind, truth = read_labels(output, labels, before)
    if kind == AMOUNTS:
        return _amounts(output, truth, before, after, retention)
    decide = _class_of if kind == CLASSES else _yes(before)
    answers = decide(before), decide(after)
    lead, error = _leads(kind, before, after)
    # A NaN decides nothing: such an answer is wrong.
    bad = ~np.isfinite(after).reshape(len(after), -1).all(-1)
    right_before, right_after = answers[0] == truth, answers[1] == truth
    right_after = right_after & ~bad.reshape(-1, *(1,) * (right_after.ndim - 1))
    outcome = judge_decisions(right_before, right_after, retention, lead=lead, error=error)
    classes = before.shape[-1] if kind == CLASSES else 2
    return Outcome(
        output=output,
        kind=kind,
        confusions=tuple(confusion(truth, answer, classes) for answer in answers),  # type: ignore[arg-type]
        **outcome,
    )


def read_labels(output: str, labels: Array, before: Array) -> tuple[str, Array]:
    """What kind of task these labels make of an output, and the truth as its decisions look.

    Class numbers for an output with a class axis; 0 and 1 for one that says yes or no; else
    amounts, of the output's shape.
    """
    labels = np.asarray(labels)
    if labels.dtype.kind not in "buif" or len(labels) != len(before):
        raise SampleError(
            f"The labels of output {output!r} are {labels.shape} {labels.dtype}, "
            f"and its {len(before)} answers {before.shape}."
        )
    if not np.isfinite(labels).all():
        raise SampleError(f"The labels of output {output!r} hold NaN or infinity.")
    classes = before.shape[-1] if before.ndim > 1 else 1
    whole = labels.dtype.kind in "bui" or bool((labels == np.rint(labels)).all())
    squeezed = labels.reshape(labels.shape[:-1]) if labels.shape[-1:] == (1,) else labels
    if classes > 1 and labels.shape == before.shape and whole and _one_hot(labels):
        return CLASSES, np.argmax(labels, -1)
    if classes > 1 and squeezed.shape == before.shape[:-1]:
        if not whole or squeezed.min() < 0 or squeezed.max() >= classes:
            raise SampleError(
                f"Output {output!r} tells {classes} classes, and its labels run from "
                f"{squeezed.min():g} to {squeezed.max():g}.",
                hint=f"Give class numbers from 0 to {classes - 1}.",
            )
        return CLASSES, squeezed.astype(np.int64)
    if labels.size == before.size:
        shaped = labels.reshape(before.shape)
        # Zeros and ones, both of them: an amount that happens to be whole is no decision.
        if whole and set(np.unique(shaped).tolist()) == {0, 1}:
            return YES_NO, shaped.astype(np.int64)
        return AMOUNTS, shaped
    raise SampleError(
        f"Output {output!r} is {before.shape}, and its labels are {labels.shape}.",
        hint="Give class numbers, one-hot rows, zeros and ones, or amounts of the output's shape.",
    )


def _one_hot(labels: Array) -> bool:
    return bool((np.isin(labels, (0, 1)).all()) and (labels.sum(-1) == 1).all())


def _class_of(scores: Array) -> Array:
    best: Array = np.argmax(np.where(np.isnan(scores), -np.inf, scores), -1)
    return best


def _yes(before: Array) -> Any:
    """Probabilities say yes from one half on, logits from zero on."""
    threshold = 0.5 if before.size and before.min() >= 0 and before.max() <= 1 else 0.0
    return lambda scores: (scores > threshold).astype(np.int64)


def _leads(kind: str, before: Array, after: Array) -> tuple[Array, float]:
    """How far each decision of the reference is from another, and the most a lead has moved."""
    before, after = before.astype(np.float64), after.astype(np.float64)
    if kind == CLASSES:
        ordered = np.sort(before, -1)
        lead = (ordered[..., -1] - ordered[..., -2]).ravel()
    else:
        lead = np.abs(before - (0.5 if before.min() >= 0 and before.max() <= 1 else 0.0)).ravel()
    with np.errstate(invalid="ignore"):
        moved = float(np.max(np.abs(after - before), initial=0.0))
    return lead, 2 * moved if kind == CLASSES else moved


def confusion(truth: Array, answers: Array, classes: int) -> Array:
    """``(true class, answer)`` counts."""
    matrix: Array = np.zeros((classes, classes), np.int64)
    np.add.at(matrix, (truth.ravel(), answers.ravel()), 1)
    return matrix


# Decisions


def judge_decisions(
    right_before: Array,
    right_after: Array,
    retention: float,
    *,
    lead: Array | None = None,
    error: float = math.inf,
) -> dict[str, Any]:
    """Accuracy before and after, the drop's interval against the margin, and the verdict.

    ``right_*`` are booleans, the sample axis first; a sample of several decisions counts with the
    share of them that is right. ``lead`` and ``error`` bound the losses that were not seen: see
    :func:`unseen_loss`.
    """
    samples = len(right_before)
    share = [a.reshape(samples, -1).mean(-1) for a in (right_before, right_after)]
    loss = share[0] - share[1]  # (samples,)
    before, after = float(share[0].mean()), float(share[1].mean())
    lost = int((right_before & ~right_after).sum())
    gained = int((~right_before & right_after).sum())
    low, high = bootstrap(loss)
    if not lost:
        # What was never seen cannot be resampled.
        high = max(high, unseen_loss(samples, lead, error) - float((loss < 0).mean()))
    margin = (1.0 - retention) * before
    verdict = non_inferior((low, high), margin)
    return {
        "score": "accuracy",
        "samples": samples,
        "before": before,
        "after": after,
        "interval": (low, high),
        "margin": margin,
        "verdict": verdict,
        "needed": needed_samples(loss, margin) if verdict == INCONCLUSIVE else None,
        "lost": lost,
        "gained": gained,
        "p_value": mcnemar(lost, gained),
    }


def mcnemar(lost: int, gained: int) -> float:
    """The exact two-sided p-value of McNemar's test: were losses as likely as gains?

    Twice the smaller tail of a binomial distribution of ``lost + gained`` fair throws, at most 1.
    """
    throws, fewer = lost + gained, min(lost, gained)
    if not throws:
        return 1.0
    whole = math.lgamma(throws + 1) - throws * math.log(2)
    tail = math.fsum(
        math.exp(whole - math.lgamma(k + 1) - math.lgamma(throws - k + 1)) for k in range(fewer + 1)
    )
    return min(1.0, 2.0 * tail)


def bootstrap(
    losses: Array, *, resamples: int = RESAMPLES, seed: int = SEED
) -> tuple[float, float]:
    """The 95% percentile interval of the mean of paired differences, by seeded resampling."""
    losses = np.asarray(losses, np.float64)
    generator = np.random.default_rng(seed)
    values, counts = np.unique(losses, return_counts=True)
    if len(values) <= 64:
        # Decisions take few values: how often each is drawn is one multinomial throw.
        drawn = generator.multinomial(len(losses), counts / len(losses), size=resamples)
        means = drawn @ values / len(losses)
    else:
        sums, sizes = _piles(losses, generator)
        means = np.empty(resamples)
        for start in range(0, resamples, 250):
            rows = min(250, resamples - start)
            picks = generator.integers(0, len(sums), (rows, len(sums)))
            means[start : start + rows] = sums[picks].sum(-1) / sizes[picks].sum(-1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def _piles(losses: Array, generator: np.random.Generator) -> tuple[Array, Array]:
    """The sums and sizes of at most :data:`PILES` piles that the samples are dealt into."""
    dealt = generator.permutation(len(losses)) % min(PILES, len(losses))
    return np.bincount(dealt, losses), np.bincount(dealt).astype(np.float64)


def unseen_loss(samples: int, lead: Array | None = None, error: float = math.inf) -> float:
    """The share of decisions that may be lost where none of ``samples`` was, at 95%.

    Counting alone bounds it by ``1 - 0.05^(1/n)``, the rule of three (Hanley and Lippman-Hand
    1983). The scores know more: a decision falls only if the reference's ``lead`` is smaller than
    the most that a lead has moved, ``error``. How many leads are so small is told from the
    :data:`NEAREST` smallest, taken to be spread evenly down to zero, plus two standard errors.
    """
    counted = 1.0 - math.pow(0.05, 1.0 / samples)
    if lead is None or len(lead) < 2 * NEAREST or not math.isfinite(error):
        return counted
    reach = float(np.sort(lead)[NEAREST - 1])
    if reach <= error:
        return counted
    near = (NEAREST + 2 * math.sqrt(NEAREST)) / len(lead)
    return min(counted, near * error / reach)


def non_inferior(interval: tuple[float, float], margin: float) -> str:
    """Whether a drop with this 95% interval is shown to be within the margin, or beyond it."""
    low, high = interval
    if math.isnan(low) or math.isnan(high):
        return FAIL
    if high <= margin:
        return PASS
    return FAIL if low > margin else INCONCLUSIVE


def needed_samples(losses: Array, margin: float) -> int | None:
    """How many samples like these would settle it; None where the drop lies on the margin.

    The n whose interval, by the normal approximation ``drop ± z sd / sqrt(n)``, ends at the
    margin; where nothing was lost, the n at which the rule of three does.
    """
    drop, spread = float(np.mean(losses)), float(np.std(losses))
    away = abs(margin - drop)
    if not spread and drop <= 0:
        if not 0 < margin < 1:
            return None
        return max(math.ceil(math.log(0.05) / math.log1p(-margin)), len(losses) + 1)
    if away <= 1e-3 * spread:
        return None
    return max(math.ceil((Z * spread / away) ** 2), len(losses) + 1)


# Amounts


def _amounts(output: str, truth: Array, before: Array, after: Array, retention: float) -> Outcome:
    """Regression: the share of variance explained, R2, must be kept; MAE and RMSE are told.

    ``R2 = 1 - sum (y - f)^2 / sum (y - mean y)^2`` over the samples, every column centred.
    """
    samples = len(truth)
    y = truth.reshape(samples, -1).astype(np.float64)
    one, other = (a.reshape(samples, -1).astype(np.float64) for a in (before, after))
    errors = {
        "mae": (float(np.abs(one - y).mean()), float(np.abs(other - y).mean())),
        "rmse": (_rms(one - y), _rms(other - y)),
    }
    total = float(((y - y.mean(0)) ** 2).mean())
    if total == 0.0:
        raise SampleError(
            f"The labels of output {output!r} are all the same: no error can be weighed on them.",
            hint="Give samples whose labels differ.",
        )
    squared = [((a - y) ** 2).mean(-1) / total for a in (one, other)]  # (samples,)
    kept = [1.0 - float(a.mean()) for a in squared]
    margin = (1.0 - retention) * max(kept[0], 0.0)
    loss = squared[1] - squared[0]
    if np.isfinite(loss).all():
        interval = bootstrap(loss)
        verdict = non_inferior(interval, margin)
    else:
        interval, verdict = (math.nan, math.nan), FAIL
    return Outcome(
        output=output,
        kind=AMOUNTS,
        score="r2",
        samples=samples,
        before=kept[0],
        after=kept[1],
        interval=interval,
        margin=margin,
        verdict=verdict,
        needed=needed_samples(loss, margin) if verdict == INCONCLUSIVE else None,
        errors=errors,
    )


def _rms(difference: Array) -> float:
    return float(np.sqrt((difference**2).mean()))


# Labels in a file


def labels_for(targets: Tensors, outputs: tuple[str, ...]) -> dict[str, Array]:
    """The labels of each output: its own ``y/OUTPUT``, or ``y`` where there is one output.

    Raises :class:`SampleError` where it cannot be said whose labels ``y`` are.
    """
    found = {name: targets[f"y/{name}"] for name in outputs if f"y/{name}" in targets}
    if "y" in targets and not found:
        if len(outputs) > 1:
            raise SampleError(
                f"The model has {len(outputs)} outputs ({', '.join(outputs)}), and the labels are "
                "one array.",
                hint="Name them after their outputs: " + ", ".join(f"y/{n}" for n in outputs),
            )
        found = {outputs[0]: targets["y"]}
    return found
