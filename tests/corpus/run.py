"""Converts the models of the corpus, and writes a line of JSON for each.

``cd tests && python -m corpus.run`` resumes if it was stopped: schemes of a model that are in the
file of results are left out. A model is converted once, to all schemes in both formats. Every model
has processes of its own, because converters crash.
"""

import argparse
import importlib
import multiprocessing
import os
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from edgeattn.errors import first_line
from edgeattn.process.worker import SANDBOX
from edgeattn.schemes import FORMATS, SCHEMES
from edgeattn_converters.worker.processes import ENVIRONMENT

from .case import Case
from .outputs import CRASHED
from .results import PATH, append_result, read_results, write_results

GROUPS = (
    *("reported_models", "published_models", "keras_layers"),
    *("tensorflow_operations", "keras_operations"),
)
SECONDS = 900.0
# Imported once, before the processes of the models are forked.
IMPORTS = (
    *("tensorflow", "keras", "tf_keras", "onnx", "onnxruntime", "tf2onnx"),
    *("ai_edge_litert.interpreter", "edgeattn_converters.worker.tasks"),
    *("edgeattn_converters.formats.tflite", "edgeattn_converters.formats.onnx", "corpus.routes"),
)


def set_environment() -> None:
    """The environment of the workers that convert, without their sandbox."""
    os.environ.update({k: v for k, v in ENVIRONMENT.items() if k != SANDBOX})


def all_cases() -> list[Case]:
    """The models of all groups in turn, so that a stopped run has measured some of each group."""
    groups = [importlib.import_module(f"{__package__}.{name}").CASES for name in GROUPS]
    places = [
        (position / len(group), case) for group in groups for position, case in enumerate(group)
    ]
    return [case for _, case in sorted(places, key=lambda item: item[0])]


def selected(patterns: list[str]) -> list[Case]:
    """The cases whose name contains one of ``patterns``; all if there are none."""
    cases = all_cases()
    return [case for case in cases if not patterns or any(p in case.name for p in patterns)]


def run_case(case: Case, schemes: tuple[str, ...], known: Mapping[str, Any]) -> dict[str, Any]:
    """The results of ``schemes``, added to those that are ``known``, and of the stock routes."""
    start = time.monotonic()
    results, reason = _in_child(_convert, case, schemes)
    if results is None:
        # A crash takes the other artifacts with it, unless workers convert them.
        results, reason = _in_child(_convert_isolated, case, schemes)
    if results is None:
        labels = [f"{format} {scheme}" for format in FORMATS for scheme in schemes]
        results = {"files": {}, "artifacts": {label: [CRASHED, reason] for label in labels}}
    stock = dict(known.get("stock", {}))
    for route in FORMATS:
        if route not in stock:
            status, reason = _in_child(_stock, case, route)
            stock[route] = [CRASHED, reason] if status is None else status
    return {
        "name": case.name,
        "files": {**known.get("files", {}), **results["files"]},
        "artifacts": {**known.get("artifacts", {}), **results["artifacts"]},
        "stock": stock,
        "seconds": round(time.monotonic() - start, 1),
    }


def missing_schemes(
    case: Case, known: Mapping[str, Any], wanted: Sequence[str] = ()
) -> tuple[str, ...]:
    """The schemes of the case, of those that are ``wanted``, that have no results."""
    labels = known.get("artifacts", {})
    return tuple(
        scheme
        for scheme in case.schemes
        if (not wanted or scheme in wanted)
        and any(f"{format} {scheme}" not in labels for format in FORMATS)
    )


def retained(known: Mapping[str, Any], wanted: Sequence[str]) -> dict[str, Any]:
    """What remains of the results if the schemes that are ``wanted`` are measured again.

    Without any, all schemes and the stock routes are, so that nothing remains.
    """
    if not wanted or not known:
        return {}
    artifacts = {
        label: status
        for label, status in known["artifacts"].items()
        if label.split()[1] not in wanted
    }
    return {**known, "artifacts": artifacts}


def _convert(case: Case, schemes: tuple[str, ...]) -> Any:
    from . import routes

    with routes.in_this_process():
        return routes.convert_case(case, schemes)


def _convert_isolated(case: Case, schemes: tuple[str, ...]) -> Any:
    from . import routes

    return routes.convert_case(case, schemes)


def _stock(case: Case, route: str) -> Any:
    from . import routes

    return routes.run_stock(case, route)


def _in_child(function: Callable[..., Any], *arguments: Any) -> tuple[Any, str]:
    """The result of a function in a forked process; None and the reason if the process died."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send_result, args=(sender, function, arguments))
    process.start()
    sender.close()
    result, reason = None, ""
    try:
        if receiver.poll(SECONDS):
            result, reason = receiver.recv()
        else:
            reason = f"took over {SECONDS:g} s"
    except EOFError:
        pass
    process.join(2.0)
    if process.is_alive():
        process.kill()
        process.join()
    return result, reason or f"exit code {process.exitcode}"


def _send_result(sender: Connection, function: Callable[..., Any], arguments: Any) -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    try:
        sender.send((function(*arguments), ""))
    except Exception as error:  # a process that ends by itself may wait for threads
        sender.send((None, f"{type(error).__name__}: {first_line(error)}"))
    sender.close()
    os._exit(0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="parts of the names of models (default: all)")
    parser.add_argument("--results", type=Path, default=PATH, help="file of JSON lines")
    parser.add_argument(
        "--again", action="store_true", help="replace results; those of --scheme, if given"
    )
    parser.add_argument(
        "--scheme", choices=SCHEMES, action="append", default=[], help="scheme; repeatable"
    )
    arguments = parser.parse_args()
    set_environment()
    for name in IMPORTS:
        importlib.import_module(name)
    results = read_results(arguments.results)
    waiting = []
    for case in selected(arguments.names):
        known = results.get(case.name, {})
        if arguments.again:
            known = retained(known, arguments.scheme)
        if schemes := missing_schemes(case, known, arguments.scheme):
            waiting.append((case, schemes, known))
    arguments.results.parent.mkdir(parents=True, exist_ok=True)
    print(f"{len(waiting)} models to convert.", flush=True)
    for case, schemes, known in waiting:
        result = run_case(case, schemes, known)
        append_result(arguments.results, result)
        print(_line(result), flush=True)
    names = [case.name for case in all_cases()]
    write_results(arguments.results, read_results(arguments.results), names)


def _line(result: dict[str, Any]) -> str:
    counts: dict[str, int] = {}
    for status, *_ in result["artifacts"].values():
        counts[status] = counts.get(status, 0) + 1
    stock = ", ".join(f"stock {route} {status[0]}" for route, status in result["stock"].items())
    made = ", ".join(f"{count} {status}" for status, count in counts.items())
    return f"{result['name']} ({result['seconds']:.0f} s): {made}; {stock}"


if __name__ == "__main__":
    main()
