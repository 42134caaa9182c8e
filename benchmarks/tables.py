"""Results of a run as Markdown."""

from __future__ import annotations

from typing import Any

from benchmarks import targets
from benchmarks.model_names import WORDS

FLOAT = (
    *("a stock TFLite", "b stock unroll", "c Keras ONNX", "d tf2onnx", "e tf.function"),
    *("edgeattn TFLite", "edgeattn TFLite fused", "edgeattn ONNX"),
)
DYNAMIC = (
    *("a dynamic", "b dynamic", "edgeattn TFLite dynamic", "c dynamic", "edgeattn ONNX dynamic"),
)
NOT_MEASURED = "Not measured yet."


def sections(document: Any) -> dict[str, str]:
    """Return the sections of the page by the names of their markers."""
    if not document:
        names = ("machine", "float32", "dynamic_int8", "sizes", "ratios", "steps", "conversion")
        return dict.fromkeys((*names, "command line"), NOT_MEASURED)
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


def expectations(document: Any) -> str:
    """Return what readers can expect: times, sizes, and ratios to the stock routes."""
    if not document:
        return NOT_MEASURED
    heads = [
        *("TFLite (ms)", "ONNX (ms)", "TFLite / TensorFlow's converter", "ONNX / Keras' export"),
        *("TFLite dynamic_int8 (ms)", "TFLite (kB)", "TFLite dynamic_int8 (kB)"),
    ]
    lines = [f"| model | {' | '.join(heads)} |", "|---|" + "---:|" * len(heads)]
    gains: dict[str, list[float]] = {"TFLite vs stock (a)": [], "ONNX vs Keras export (c)": []}
    for name, result in document["models"].items():
        times, sizes = (
            {label: route.get(key) for label, route in result["routes"].items()}
            for key in ("median_ms", "bytes")
        )
        ratios = [document["ratios"][f"{name}: {pair}"]["value"] for pair in gains]
        for pair, ratio in zip(gains, ratios, strict=True):
            gains[pair].append(ratio)
        dynamic = "edgeattn TFLite dynamic"
        cells = [
            *(f"{times[label]:.3f}" for label in ("edgeattn TFLite", "edgeattn ONNX")),
            *(f"{1 / ratio:.2f}" for ratio in ratios),
            f"{times[dynamic]:.3f}",
            *(f"{sizes[label] / 1000:.0f}" for label in ("edgeattn TFLite", dynamic)),
        ]
        lines.append(f"| {WORDS[name]} | {' | '.join(cells)} |")
    tflite, onnx = (f"{min(ratios):.1f} to {max(ratios):.1f} times" for ratios in gains.values())
    means = [document["ratios"][f"geometric mean: {pair}"]["value"] for pair in gains]
    summary = (
        f"The TFLite files are {tflite} as fast as those of TensorFlow's converter (geometric mean "
        f"{means[0]:.1f}), the ONNX files {onnx} as fast as those of Keras' export "
        f"({means[1]:.1f}). Measured on {document['machine']['processor']} with one thread, on "
        f"{document['measured']}."
    )
    return "\n".join([summary, "", *lines])


def summary_page(document: Any, counts: Any) -> str:
    """Return the text that ``make bench`` prints."""
    parts = {**sections(document), "targets": targets.table(targets.evaluate(document, counts))}
    return "\n".join(f"## {name}\n\n{text}\n" for name, text in parts.items())


def machine(document: Any) -> str:
    system = document["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in system["versions"].items())
    return (
        f"{system['processor']}, one thread of {system['processors']}, Python {system['python']}, "
        f"{versions}. Measured on {document['measured']}, {document['rounds']} rounds in "
        f"{document['sittings']} sittings."
    )


def times(document: Any, labels: tuple[str, ...], *, limit: bool = False) -> str:
    """Return medians in milliseconds, with the 10th and the 90th percentile."""
    heads = [*labels, *(["limit"] if limit else [])]
    lines = [f"| model | {' | '.join(heads)} |", "|---|" + "---:|" * len(heads)]
    for name, result in document["models"].items():
        cells = [_time(result["routes"].get(label, {})) for label in labels]
        cells += [f"{result['limit_ms']:.3f}"] if limit else []
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _time(route: dict[str, Any]) -> str:
    if "median_ms" not in route:
        return "failed"
    time = f"{route['median_ms']:.3f} ({route['p10_ms']:.3f}-{route['p90_ms']:.3f})"
    return time if route["correct"] else f"{time}, incorrect: {route['max_abs_error']:.2g}"


def sizes(document: Any) -> str:
    """Return file sizes in kilobytes."""
    labels = [label for label in (*FLOAT, *DYNAMIC) if label != "e tf.function"]
    lines = [f"| model | weights | {' | '.join(labels)} |", "|---|" + "---:|" * (len(labels) + 1)]
    for name, result in document["models"].items():
        file_sizes = [result["routes"].get(label, {}).get("bytes") for label in labels]
        cells = [f"{size / 1000:.0f}" if size else "failed" for size in file_sizes]
        lines.append(f"| {name} | {result['weight_bytes'] / 1000:.0f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def ratios(document: Any) -> str:
    lines = ["| routes | ratio of medians | quartiles |", "|---|---:|---|"]
    lines += [
        f"| {name} | {ratio['value']:.2f} | {ratio['low']:.2f}-{ratio['high']:.2f} |"
        for name, ratio in document["ratios"].items()
    ]
    return "\n".join(lines)


def steps(microseconds: Any) -> str:
    """Return the profile of one step of T500."""
    if not microseconds:
        return NOT_MEASURED
    lines = ["| part of a step | time (us) |", "|---|---:|"]
    lines += [f"| {part} | {value:.2f} |" for part, value in microseconds.items()]
    return "\n".join(lines)


def conversion(results: Any) -> str:
    if not results:
        return NOT_MEASURED
    comparison = results["beside_stock"]
    ours, stock = comparison["edgeattn convert"], comparison["stock"]
    spread = f"({comparison['low']:.2f}-{comparison['high']:.2f})"
    lines = [
        "| process | time (s) | peak memory (MB) |",
        "|---|---:|---:|",
        f"| edgeattn convert, six artifacts | {ours['seconds']:.1f} | {_megabytes(ours)} |",
        f"| stock converter, one file | {stock['seconds']:.1f} | {_megabytes(stock)} |",
        f"| ratio | {comparison['ratio']:.2f} {spread} | |",
        "",
        "| steps | edgeattn convert (s) |",
        "|---:|---:|",
    ]
    lines += [f"| {steps} | {value:.1f} |" for steps, value in results["seconds_by_steps"].items()]
    if results["exponent"] is not None:
        exponent = f"{results['exponent']:.2f}"
        lines += ["", f"From 200 steps on, the time grows with the power {exponent} of the length."]
    return "\n".join(lines)


def _megabytes(result: dict[str, float]) -> str:
    return f"{result['peak_bytes'] / 1e6:.0f}"


def command_line(results: Any) -> str:
    if not results:
        return NOT_MEASURED
    lines = ["| command | time (s) | CPU time (s) |", "|---|---:|---:|"]
    for group in ("help", "run", "report"):
        for name, result in results.get(group, {}).items():
            if isinstance(result, dict):
                label = "edgeattn --help" if name == "help" else name
                lines.append(f"| {label} | {result['seconds']:.3f} | {result['cpu_seconds']:.3f} |")
    ratios, overhead = results["help"], results["run"]
    lines.append(f"| --help / import click | {ratios['ratio']:.2f} | {ratios['cpu_ratio']:.2f} |")
    more = f"{overhead['more_s']:.3f} | {overhead['more_cpu_s']:.3f}"
    lines.append(f"| run, beyond the script and a second import of numpy | {more} |")
    if "report" in results:
        ratio, cpu_ratio = (results["report"][key] for key in ("ratio", "cpu_ratio"))
        lines.append(f"| validate --report / validate | {ratio:.2f} | {cpu_ratio:.2f} |")
    return "\n".join(lines)
