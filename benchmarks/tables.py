"""A run's document as Markdown, and as pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks import targets

FLOAT = (
    *("a stock TFLite", "b stock unroll", "c Keras ONNX", "d tf2onnx", "e tf.function"),
    *("edgeattn TFLite", "edgeattn TFLite fused", "edgeattn ONNX"),
)
DYNAMIC = (
    *("a dynamic", "b dynamic", "edgeattn TFLite dynamic", "c dynamic", "edgeattn ONNX dynamic"),
)
NONE = "Not measured yet."
# Stock routes cool, ours warm; a dynamic one has the colour of the float one.
COLOURS = {
    "a stock TFLite": "#9ecae1",
    "b stock unroll": "#4292c6",
    "c Keras ONNX": "#a1d99b",
    "d tf2onnx": "#41ab5d",
    "e tf.function": "#bdbdbd",
    "edgeattn TFLite": "#c4161c",
    "edgeattn TFLite fused": "#f49a9c",
    "edgeattn ONNX": "#f28e2b",
}
COLOURS |= {"a dynamic": "#9ecae1", "b dynamic": "#4292c6", "c dynamic": "#a1d99b"}
COLOURS |= {f"{label} dynamic": COLOURS[label] for label in ("edgeattn TFLite", "edgeattn ONNX")}


def sections(document: Any) -> dict[str, str]:
    """The parts of the page, by the names of their markers."""
    if not document:
        names = ("machine", "float32", "dynamic_int8", "sizes", "ratios", "steps", "conversion")
        return dict.fromkeys((*names, "command line"), NONE)
    return {
        "machine": machine(document),
        "float32": times(document, FLOAT, limit=True),
        "dynamic_int8": times(document, DYNAMIC),
        "sizes": sizes(document),
        "ratios": ratios(document),
        "steps": steps(document.get("steps")),
        "conversion": conversion(document["conversion"]),
        "command line": command_line(document["command line"]),
    }


def page_of(document: Any, counted: Any) -> str:
    """What ``make bench`` prints."""
    told = sections(document)
    told["to reach"] = targets.table(targets.judged(document, counted))
    return "\n".join(f"## {name}\n\n{text}\n" for name, text in told.items())


def machine(document: Any) -> str:
    about = document["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    return (
        f"{about['processor']}, one thread of {about['processors']}, Python {about['python']}, "
        f"{versions}. Measured on {document['measured']}, {document['rounds']} rounds in "
        f"{document['sittings']} sittings."
    )


def times(document: Any, labels: tuple[str, ...], *, limit: bool = False) -> str:
    """Medians in milliseconds, with the tenth and the ninetieth percentile."""
    heads = [*labels, *(["limit"] if limit else [])]
    lines = [f"| model | {' | '.join(heads)} |", "|---|" + "---:|" * len(heads)]
    for name, result in document["models"].items():
        cells = [_time(result["routes"].get(label, {})) for label in labels]
        cells += [f"{result['limit_ms']:.3f}"] if limit else []
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _time(route: dict[str, Any]) -> str:
    if "median_ms" not in route:
        return "not made"
    time = f"{route['median_ms']:.3f} ({route['p10_ms']:.3f}-{route['p90_ms']:.3f})"
    return time if route["right"] else f"wrong by {route['max_abs_error']:.2g}: {time}"


def sizes(document: Any) -> str:
    """Kilobytes of the files."""
    labels = [label for label in (*FLOAT, *DYNAMIC) if label != "e tf.function"]
    lines = [f"| model | weights | {' | '.join(labels)} |", "|---|" + "---:|" * (len(labels) + 1)]
    for name, result in document["models"].items():
        found = [result["routes"].get(label, {}).get("bytes") for label in labels]
        cells = [f"{size / 1000:.0f}" if size else "not made" for size in found]
        lines.append(f"| {name} | {result['weight_bytes'] / 1000:.0f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def ratios(document: Any) -> str:
    lines = ["| ratio of medians | | quartiles of the rounds |", "|---|---:|---|"]
    lines += [
        f"| {name} | {each['value']:.2f} | {each['low']:.2f}-{each['high']:.2f} |"
        for name, each in document["ratios"].items()
    ]
    return "\n".join(lines)


def steps(found: Any) -> str:
    """What a step of T500 costs, by its parts."""
    if not found:
        return NONE
    lines = ["| part of a step | microseconds |", "|---|---:|"]
    lines += [f"| {part} | {value:.2f} |" for part, value in found.items()]
    return "\n".join(lines)


def conversion(found: Any) -> str:
    if not found:
        return NONE
    beside = found["beside_stock"]
    ours, stock = beside["edgeattn convert"], beside["stock"]
    lines = [
        "| | seconds | peak MB of all processes |",
        "|---|---:|---:|",
        f"| edgeattn convert, six artifacts | {ours['seconds']:.1f} | {_mb(ours)} |",
        f"| import TensorFlow, load, convert once | {stock['seconds']:.1f} | {_mb(stock)} |",
        f"| ratio | {beside['ratio']:.2f} ({beside['low']:.2f}-{beside['high']:.2f}) | |",
        "",
        "| steps | seconds of edgeattn convert |",
        "|---:|---:|",
    ]
    lines += [f"| {steps} | {value:.1f} |" for steps, value in found["seconds_by_steps"].items()]
    if found["exponent"] is not None:
        lines += ["", f"From 200 steps on it grows with T to the power of {found['exponent']:.2f}."]
    return "\n".join(lines)


def _mb(each: dict[str, float]) -> str:
    return f"{each['peak_bytes'] / 1e6:.0f}"


def command_line(found: Any) -> str:
    if not found:
        return NONE
    lines = ["| | seconds | of the processor |", "|---|---:|---:|"]
    for what in ("help", "run"):
        for name, each in found[what].items():
            if isinstance(each, dict):
                label = "edgeattn --help" if name == "help" else name
                lines.append(f"| {label} | {each['seconds']:.3f} | {each['cpu_seconds']:.3f} |")
    shown, ran = found["help"], found["run"]
    lines.append(f"| ratio, --help | {shown['ratio']:.2f} | {shown['cpu_ratio']:.2f} |")
    told = f"{ran['more_s']:.3f} | {ran['more_cpu_s']:.3f}"
    lines.append(f"| run, beyond the script and a second import of numpy | {told} |")
    return "\n".join(lines)


def plot(document: Any, path: Path) -> None:
    """Milliseconds of every route beside the limit, on a logarithmic axis."""
    import numpy as np

    pyplot = _pyplot()
    names = list(document["models"])
    figure, panels = pyplot.subplots(
        1, 2, figsize=(13, 1.1 * len(names) + 1.5), sharey=True, sharex=True
    )
    for axes, labels, title in zip(
        panels, (FLOAT, DYNAMIC), ("float32", "dynamic_int8"), strict=True
    ):
        height = 0.84 / len(labels)
        for index, label in enumerate(labels):
            routes = [document["models"][name]["routes"].get(label, {}) for name in names]
            at = np.arange(len(names)) + (index + 0.5) * height
            values = [route.get("median_ms", np.nan) for route in routes]
            hatches = ["" if route.get("right") else "////" for route in routes]
            axes.barh(at, values, height * 0.9, label=label, color=COLOURS[label], hatch=hatches)
        # That of a file with weights of four bytes.
        for row, name in enumerate(names if labels == FLOAT else []):
            limit = document["models"][name]["limit_ms"]
            axes.plot([limit] * 2, [row, row + 0.84], "k:", label=None if row else "limit")
        axes.set(title=title, xscale="log", xlabel="milliseconds; hatched: wrong")
        axes.grid(axis="x", alpha=0.3)
        axes.legend(fontsize="x-small")
    panels[0].set_yticks(np.arange(len(names)) + 0.42, names)
    panels[0].invert_yaxis()
    figure.suptitle(f"One sequence, one thread of {document['machine']['processor']}")
    _save(figure, path)


def plot_conversion(found: Any, path: Path) -> None:
    """Seconds of a conversion by the length of the sequences, and a line of slope one."""
    pyplot = _pyplot()
    steps = [int(key) for key in found["seconds_by_steps"]]
    seconds = list(found["seconds_by_steps"].values())
    figure, axes = pyplot.subplots(figsize=(6, 4))
    axes.loglog(steps, seconds, "o-", label="edgeattn convert")
    axes.loglog(steps, [seconds[-1] * t / steps[-1] for t in steps], "k:", label="linear in T")
    axes.set(xlabel="time steps", ylabel="seconds", ylim=(min(seconds) / 2, 2 * max(seconds)))
    axes.grid(alpha=0.3)
    axes.legend()
    _save(figure, path)


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("Agg")
    # The same picture of the same figures, byte for byte.
    matplotlib.rcParams["svg.hashsalt"] = "edgeattn"
    from matplotlib import pyplot

    return pyplot


def _save(figure: Any, path: Path) -> None:
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=120)
