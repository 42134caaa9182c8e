"""Answers: the outputs of a model as a label with a score, tags, or an amount."""

from collections import deque
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from edgeattn.errors import ArtifactError, UsageError
from edgeattn.printable import counted
from edgeattn.tensors import Array, Specs, Tensors

Json = dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """How an output becomes an answer.

    ``kind`` is one of

    - ``classification``: the class with the highest score; with a single output, the second of two
      classes if the score reaches ``threshold``;
    - ``multi_label``: every class whose score reaches ``threshold``;
    - ``tagging``: the class with the highest score for each step;
    - ``regression``: ``value * scale + offset``.

    ``activation`` is applied to outputs that are not scores yet; ``convert`` replaces ``auto`` by
    the one that the model lacks. ``top`` lists that many classes.
    ``smoothing`` over the last ``smoothing_windows`` answers of a stream: ``mean`` averages the
    scores, ``majority`` takes the most frequent class, and of several the latest.
    """

    output: str | None = None
    kind: Literal["classification", "multi_label", "tagging", "regression"] = "classification"
    activation: Literal["auto", "none", "softmax", "sigmoid"] = "auto"
    labels: tuple[str, ...] = ()
    threshold: float = 0.5
    top: int = 1
    scale: tuple[float, ...] = (1.0,)
    offset: tuple[float, ...] = (0.0,)
    smoothing: Literal["none", "mean", "majority"] = "none"
    smoothing_windows: int = 5

    def __post_init__(self) -> None:
        if self.top < 1 or self.smoothing_windows < 1:
            raise ValueError("top and smoothing_windows are at least 1")
        if len(set(self.labels)) != len(self.labels):
            raise ValueError("a label occurs more than once")
        if self.kind != "classification" and (self.smoothing != "none" or self.top != 1):
            raise ValueError(f"smoothing and top do not apply to kind = {self.kind!r}")
        if self.kind == "regression" and (self.labels or self.activation not in ("auto", "none")):
            raise ValueError("labels and activation do not apply to kind = 'regression'")

    def check(self, outputs: Specs) -> None:
        """Raise :class:`UsageError` if no output of the model fits."""
        spec = next((s for s in outputs if self.output in (None, s.name)), None)
        if spec is None:
            names = ", ".join(s.name for s in outputs)
            raise UsageError(f"The model has no output {self.output!r}. Its outputs: {names}.")
        size = spec.shape[-1]
        classes = 2 if size == 1 and self.kind == "classification" else size
        if self.labels and len(self.labels) != classes:
            raise UsageError(
                f"Output {spec.name} has {classes} classes. Received: "
                f"{counted(len(self.labels), 'label')}.",
                hint="Pass one label for each class, in the order of the outputs.",
            )
        for name in ("scale", "offset"):
            if len(getattr(self, name)) not in (1, size):
                raise UsageError(
                    f"answer: {name} has {counted(len(getattr(self, name)), 'value')}, and the "
                    f"output {spec.name} has {size}."
                )


class Answers:
    """The answers to consecutive outputs, which smoothing connects."""

    def __init__(self, answer: Answer, attention: tuple[str, ...] = ()) -> None:
        self.answer, self._attention = answer, attention
        # Classes and scores.
        self._recent: deque[tuple[int, Array]] = deque(maxlen=answer.smoothing_windows)

    def __call__(self, outputs: Tensors) -> Json:
        """The answer to the outputs for one sample, without a batch axis, as JSON.

        Raises :class:`ArtifactError` if the output is not finite.
        """
        name = self.answer.output or next(iter(outputs))
        if not np.isfinite(outputs[name]).all():
            raise ArtifactError(f"Output {name} is not finite, so there is no answer.")
        maps = {key.removeprefix("attention/"): _weights(outputs[key]) for key in self._attention}
        attention = next(iter(maps.values())) if len(maps) == 1 else maps
        result = self._result(np.asarray(outputs[name], "float64"))
        return result | ({"attention": attention} if maps else {})

    def restart(self) -> None:
        """Forget earlier outputs."""
        self._recent.clear()

    def _result(self, values: Array) -> Json:
        answer = self.answer
        if answer.kind == "regression":
            return {"value": _plain(values * np.asarray(answer.scale) + np.asarray(answer.offset))}
        scores = activated(values, answer.activation)
        if answer.kind == "multi_label":
            chosen = np.flatnonzero(scores.reshape(-1) >= answer.threshold)
            return {"labels": [self._labeled(index, scores.reshape(-1)) for index in chosen]}
        if answer.kind == "tagging":
            best = scores.argmax(-1).reshape(-1)
            rows = scores.reshape(len(best), -1)
            return {
                "labels": [self._label(index) for index in best],
                "scores": [float(row[index]) for row, index in zip(rows, best, strict=True)],
            }
        return self._classified(scores.reshape(-1))

    def _classified(self, scores: Array) -> Json:
        single = scores.size == 1
        scores = np.array([1 - scores[0], scores[0]]) if single else scores
        best = self._best(scores, single)
        if self.answer.smoothing != "none":
            self._recent.append((best, scores))
            scores = sum((item for _, item in self._recent), 0 * scores) / len(self._recent)
            majority = self.answer.smoothing == "majority"
            best = self._most_frequent() if majority else self._best(scores, single)
        result = self._labeled(best, scores)
        if self.answer.top > 1:
            order = np.argsort(-scores, kind="stable")[: self.answer.top]
            result["top"] = [self._labeled(index, scores) for index in order]
        return result

    def _best(self, scores: Array, single: bool) -> int:
        return int(scores[1] >= self.answer.threshold) if single else int(scores.argmax())

    def _most_frequent(self) -> int:
        classes = [best for best, _ in reversed(self._recent)]
        return max(classes, key=classes.count)  # of several the first, which is the latest

    def _labeled(self, index: Any, scores: Array) -> Json:
        return {"label": self._label(index), "score": float(scores[index])}

    def _label(self, index: Any) -> str | int:
        return self.answer.labels[index] if self.answer.labels else int(index)


def activated(values: Array, activation: str) -> Array:
    """Softmax over the last axis, the sigmoid, or the values themselves."""
    if activation == "softmax":
        exponentials: Array = np.exp(values - values.max(-1, keepdims=True))
        probabilities: Array = exponentials / exponentials.sum(-1, keepdims=True)
        return probabilities
    if activation == "sigmoid":
        # Without overflow for large negative values.
        return np.exp(-np.logaddexp(0, -values))
    return values


def _weights(values: Array) -> Any:
    """The weights of an attention map, rounded to nine decimals: half as long in JSON."""
    return values.astype("float64").round(9).tolist()


def _plain(values: Array) -> Any:
    return float(values.reshape(-1)[0]) if values.size == 1 else values.tolist()
