"""Results of a run as figures; ``python -m benchmarks.figures`` draws the recorded ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import page
from benchmarks.model_names import WORDS
from edgeattn.plots import style
from edgeattn.plots.style import BLUE, GREEN, ORANGE, RED


class Route(NamedTuple):
    """A route in words, its labels in the results for float32 and dynamic_int8, and its marker."""

    name: str
    float32: str
    dynamic: str
    marker: str
    color: str


ROUTES = (
    Route("edgeattn, TFLite", "edgeattn TFLite", "edgeattn TFLite dynamic", "o", BLUE),
    Route("edgeattn, ONNX", "edgeattn ONNX", "edgeattn ONNX dynamic", "s", BLUE),
    Route("edgeattn, TFLite, fused LSTM", "edgeattn TFLite fused", "", "D", BLUE),
    Route("TensorFlow's converter", "a stock TFLite", "a dynamic", "o", ORANGE),
    Route("TensorFlow's converter, unrolled", "b stock unroll", "b dynamic", "^", ORANGE),
    Route("Keras' ONNX export", "c Keras ONNX", "c dynamic", "s", RED),
    Route("tf2onnx", "d tf2onnx", "", "v", RED),
    Route("Keras, compiled", "e tf.function", "", "P", GREEN),
)
# The line of edgeattn is above that of the other routes.
LANE = 0.17
# Fused operators and compiled Keras are no choice for a device, and are drawn smaller.
MINOR = ("edgeattn, TFLite, fused LSTM", "Keras, compiled")
TICKS = (0.01, 0.1, 1, 10)


def plot(document: Any, path: Path) -> None:
    """Draw the median time of every route and model, and the limit, on a logarithmic axis."""
    names = list(document["models"])
    with style.figure(9.2, 0.52 * len(names) + 1.9, 1, 2, sharex=True, sharey=True) as drawn:
        figure, axes = drawn
        for axis, scheme in zip(axes[0], ("float32", "dynamic_int8"), strict=True):
            for route in ROUTES:
                label = route.float32 if scheme == "float32" else route.dynamic
                for row, name in enumerate(names):
                    result = document["models"][name]["routes"].get(label, {})
                    if "median_ms" in result:
                        _draw_time(axis, route, row, result)
            if scheme == "float32":
                # The limit assumes weights of four bytes.
                for row, name in enumerate(names):
                    limit = document["models"][name]["limit_ms"]
                    axis.plot([limit] * 2, [row - 0.36, row + 0.36], color="black", linewidth=1.5)
            _set_axes(axis, scheme, names)
        _add_legend(figure)
        figure.suptitle(
            f"Median time of one sequence on one thread of {document['machine']['processor']}",
            fontsize=11,
        )
        _save(figure, path)


def _draw_time(axis: Any, route: Route, row: int, result: Any) -> None:
    minor = route.name in MINOR
    axis.plot(
        [result["median_ms"]],
        [row - LANE if route.color == BLUE else row + LANE],
        route.marker,
        color=route.color,
        markersize=4.5 if minor else 7,
        markerfacecolor=route.color if result.get("correct") else "none",
        zorder=3 if minor else 2,
    )


def _set_axes(axis: Any, scheme: str, names: list[str]) -> None:
    axis.set_title(scheme, loc="left", fontsize=10)
    axis.set_xscale("log")
    axis.set_xlim(0.006, 14)
    axis.set_xticks(TICKS, [f"{tick:g}" for tick in TICKS])
    axis.set_xlabel("milliseconds")
    axis.set_yticks(range(len(names)), [f"{WORDS[name]}\n{name}" for name in names], fontsize=8)
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.grid(axis="y", alpha=0.35)
    axis.tick_params(axis="y", length=0)


def _add_legend(figure: Any) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], marker=route.marker, color=route.color, linestyle="none", label=route.name,
               markersize=4.5 if route.name in MINOR else 7)
        for route in ROUTES
    ]  # fmt: skip
    handles.append(Line2D([], [], marker="|", color="black", linestyle="none", markersize=11,
                          markeredgewidth=1.5, label="limit of the machine"))  # fmt: skip
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=8)


def plot_conversion(results: Any, path: Path) -> None:
    """Draw the time of a conversion against the number of steps."""
    steps = [int(key) for key in results["seconds_by_steps"]]
    seconds = list(results["seconds_by_steps"].values())
    with style.figure(6.2, 2.9) as (figure, axes):
        axis = axes[0, 0]
        axis.plot(steps, seconds, "o-", color=BLUE)
        axis.set_xscale("log")
        axis.minorticks_off()
        axis.set_xticks(steps, [f"{count:,}" for count in steps])
        axis.set_ylim(0, 1.15 * max(seconds))
        axis.set_xlabel("steps of the model")
        axis.set_ylabel("time of edgeattn convert (s)")
        _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    """Write the same file for the same results."""
    figure.draw_without_rendering()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})


def draw(document: Any) -> None:
    """Draw the figures of docs/speed-and-size.md."""
    plot(document, page.ROOT / "docs" / "benchmarks.svg")
    if document["conversion"]:
        plot_conversion(document["conversion"], page.ROOT / "docs" / "conversion.svg")


if __name__ == "__main__":
    draw(page.read(page.RESULTS / "latest.json"))
