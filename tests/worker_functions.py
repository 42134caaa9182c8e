"""Functions that tests call in a worker process."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from edgeattn import errors, progress


def echo(**arguments: Any) -> Any:
    tensors = arguments.pop("tensors", None)
    return arguments if tensors is None else (arguments, tensors)


def dtypes_and_shapes(tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    return {name: [array.dtype.str, list(array.shape)] for name, array in tensors.items()}


def process_id() -> int:
    return os.getpid()


def parent_id() -> int:
    return os.getppid()


_values: list[Any] = []


def remember(value: Any) -> list[Any]:
    """All values of this process so far."""
    _values.append(value)
    return _values


def kill(number: int) -> None:
    print("last words", file=sys.stderr, flush=True)
    os.kill(os.getpid(), number)
    time.sleep(600)


def exit_with(status: int) -> None:
    os._exit(status)


def report_and_sleep(seconds: float) -> None:
    progress.report("sleeping")
    time.sleep(seconds)


def sleep(seconds: float) -> None:
    time.sleep(seconds)


def raise_error(kind: str) -> None:
    raise getattr(errors, kind)("something is wrong", hint="Try this.")


def divide_by_zero() -> None:
    raise ZeroDivisionError("division by zero")


def raise_memory_error() -> None:
    raise MemoryError


def print_to_stdout() -> str:
    print("noise on stdout " * 10_000)
    os.write(1, b"\xff" * 10_000)
    return "printed"


def read_standard_input() -> str:
    return sys.stdin.read()


def report_progress(steps: list[str]) -> str:
    for step in steps:
        progress.report(step)
    return "done"


def return_a_set() -> object:
    return {1, 2}


def return_objects() -> object:
    return None, {"objects": np.array([object()])}


def return_a_pair() -> object:
    return 1, 2


def memory_limit():
    import resource

    return resource.getrlimit(resource.RLIMIT_DATA)[0]


def fail_with_a_stack():
    """An error as TensorFlow raises it, with the cause behind a stack."""
    stack = "".join(f'  File "model.py", line {line}, in call\n\n' for line in range(90))
    raise ValueError(f"Graph execution error:\n\nDetected at node Reshape:\n{stack}no such shape")
