"""Counters of a service, in the text format of Prometheus 0.0.4."""

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping

# Upper bounds of the times of answers, in seconds.
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
Labels = Mapping[str, str]


class Counters:
    """Responses by status, samples, times of answers and reloads since the start."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._responses: Counter[int] = Counter()
        self._reloads: Counter[str] = Counter({"success": 0, "failure": 0})
        self._samples = 0
        self._times = [0] * (len(BUCKETS) + 1)
        self._seconds = 0.0

    def count_response(self, status: int) -> None:
        with self._lock:
            self._responses[status] += 1

    def count_answers(self, samples: int, seconds: float) -> None:
        """One request that was answered: the number of its samples, and its time."""
        with self._lock:
            self._samples += samples
            self._seconds += seconds
            self._times[bisect_left(BUCKETS, seconds)] += 1

    def count_reload(self, *, success: bool) -> None:
        with self._lock:
            self._reloads["success" if success else "failure"] += 1

    def exposition(self, running: int, model: Labels) -> str:
        """The page of metrics; ``running`` requests are in progress, ``model`` describes it."""
        with self._lock:
            cumulative = [sum(self._times[: index + 1]) for index in range(len(self._times))]
            bounds = [*map(str, BUCKETS), "+Inf"]
            name = "edgeattn_request_seconds"
            lines = [
                *_metric(
                    "edgeattn_responses_total",
                    "counter",
                    "Responses by HTTP status.",
                    [({"status": str(key)}, n) for key, n in sorted(self._responses.items())],
                ),
                *_metric(
                    "edgeattn_samples_total",
                    "counter",
                    "Samples that were answered.",
                    [({}, self._samples)],
                ),
                *_metric(
                    "edgeattn_reloads_total",
                    "counter",
                    "Reloads of the bundle by result.",
                    [({"result": key}, n) for key, n in sorted(self._reloads.items())],
                ),
                *_metric(
                    "edgeattn_requests_in_progress",
                    "gauge",
                    "Requests for answers that wait or run.",
                    [({}, running)],
                ),
                *_metric("edgeattn_model_info", "gauge", "The served model.", [(model, 1)]),
                f"# HELP {name} Times of requests that were answered.",
                f"# TYPE {name} histogram",
                *(
                    _sample(f"{name}_bucket", {"le": bound}, count)
                    for bound, count in zip(bounds, cumulative, strict=True)
                ),
                _sample(f"{name}_sum", {}, self._seconds),
                _sample(f"{name}_count", {}, cumulative[-1]),
            ]
        return "\n".join(lines) + "\n"


def _metric(
    name: str, kind: str, help: str, values: Iterable[tuple[Labels, float]]
) -> Iterable[str]:
    yield f"# HELP {name} {help}"
    yield f"# TYPE {name} {kind}"
    for labels, value in values:
        yield _sample(name, labels, value)


def _sample(name: str, labels: Labels, value: float) -> str:
    pairs = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
    return f"{name}{{{pairs}}} {value}" if pairs else f"{name} {value}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
