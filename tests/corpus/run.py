"""Converts the models of the corpus, and writes a line of JSON for each.

``cd tests && python -m corpus.run`` resumes if it was stopped: models that are in the file of
results are left out. Every model has processes of its own, because converters crash.
"""

import argparse
import importlib
import json
import multiprocessing
import os
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from edgeattn.process.worker import SANDBOX
from edgeattn_converters.worker.client import ENVIRONMENT

from .case import Case
from .outputs import CRASHED

GROUPS = ("reported_models", "keras_layers", "tensorflow_operations", "keras_operations")
RESULTS = Path(__file__).parents[2] / ".out" / "corpus.jsonl"
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
    modules = [importlib.import_module(f"{__package__}.{name}") for name in GROUPS]
    return [case for module in modules for case in module.CASES]


def read_results(path: Path) -> dict[str, dict[str, Any]]:
    """The results by name; the last one counts."""
    if not path.is_file():
        return {}
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines() if line]
    return {line["name"]: line for line in lines}


def selected(patterns: list[str]) -> list[Case]:
    """The cases whose name contains one of ``patterns``; all if there are none."""
    cases = all_cases()
    return [case for case in cases if not patterns or any(p in case.name for p in patterns)]


def run_case(case: Case) -> dict[str, Any]:
    """The results of all routes."""
    start = time.monotonic()
    results, reason = _in_child(_convert, case)
    if results is None:
        # A crash takes the other artifacts with it, unless workers convert them.
        results, reason = _in_child(_convert_isolated, case)
    if results is None:
        results = {"files": {}, "artifacts": {"all": [CRASHED, reason]}}
    stock = {}
    for route in ("tflite", "onnx"):
        status, reason = _in_child(_stock, case, route)
        stock[route] = [CRASHED, reason] if status is None else status
    seconds = round(time.monotonic() - start, 1)
    return {"name": case.name, **results, "stock": stock, "seconds": seconds}


def _convert(case: Case) -> Any:
    from . import routes

    with routes.in_this_process():
        return routes.convert_case(case)


def _convert_isolated(case: Case) -> Any:
    from . import routes

    return routes.convert_case(case)


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
    try:
        result = receiver.recv() if receiver.poll(SECONDS) else None
    except EOFError:
        result = None
    timed_out = process.is_alive() and result is None
    process.join(2.0)
    if process.is_alive():
        process.kill()
        process.join()
    return result, f"took over {SECONDS:g} s" if timed_out else f"exit code {process.exitcode}"


def _send_result(sender: Connection, function: Callable[..., Any], arguments: Any) -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    sender.send(function(*arguments))
    sender.close()
    os._exit(0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="parts of the names of models (default: all)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="file of JSON lines")
    parser.add_argument("--again", action="store_true", help="also models that have a result")
    arguments = parser.parse_args()
    set_environment()
    for name in IMPORTS:
        importlib.import_module(name)
    results = read_results(arguments.results)
    cases = selected(arguments.names)
    waiting = [case for case in cases if arguments.again or case.name not in results]
    arguments.results.parent.mkdir(parents=True, exist_ok=True)
    print(f"{len(cases)} models, {len(waiting)} to convert.", flush=True)
    for case in waiting:
        result = run_case(case)
        with arguments.results.open("a", encoding="utf-8") as file:
            file.write(json.dumps(result) + "\n")
        print(_line(result), flush=True)


def _line(result: dict[str, Any]) -> str:
    counts: dict[str, int] = {}
    for status, *_ in result["artifacts"].values():
        counts[status] = counts.get(status, 0) + 1
    stock = ", ".join(f"stock {route} {status[0]}" for route, status in result["stock"].items())
    made = ", ".join(f"{count} {status}" for status, count in counts.items())
    return f"{result['name']} ({result['seconds']:.0f} s): {made}; {stock}"


if __name__ == "__main__":
    main()
