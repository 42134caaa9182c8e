"""Measure the overhead of ``edgeattn.load`` over the runtime alone.

    python benchmarks/load_overhead.py model.edge

The runtime alone is called as a user would write it: set_tensor, invoke and get_tensor, or
session.run. Both take turns, and the medians are compared.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np

import edgeattn
from edgeattn.bundle.bundle import Bundle
from edgeattn.bundle.manifest import Artifact

ROUNDS, CALLS = 60, 200


def runtime_tflite(path: Path, artifact: Artifact) -> Callable[[dict[str, np.ndarray]], object]:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path), num_threads=1)
    interpreter.allocate_tensors()
    feeds = {item["name"]: item["index"] for item in interpreter.get_input_details()}
    fetches = [item["index"] for item in interpreter.get_output_details()]

    def run(sample: dict[str, np.ndarray]) -> object:
        for name, array in sample.items():
            interpreter.set_tensor(feeds[name], array)
        interpreter.invoke()
        return [interpreter.get_tensor(index) for index in fetches]

    return run


def runtime_onnx(path: Path, artifact: Artifact) -> Callable[[dict[str, np.ndarray]], object]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [spec.name for spec in artifact.outputs]
    return lambda sample: session.run(names, sample)


def main(path: Path) -> None:
    bundle = Bundle.open(path)
    reference = bundle.reference()
    for artifact in bundle.manifest.artifacts:
        if any(spec.quantized for spec in (*artifact.inputs, *artifact.outputs)):
            print(f"{artifact.label}: skipped, because its inputs or outputs are quantized")
            continue
        open_runtime = {"tflite": runtime_tflite, "onnx": runtime_onnx}[artifact.format]
        sample = {
            spec.name: np.ascontiguousarray(reference[f"input/{spec.name}"][:1], spec.dtype)
            for spec in artifact.inputs
        }
        calls: dict[str, Callable[[dict[str, np.ndarray]], object]] = {
            "runtime": open_runtime(bundle.artifact_path(artifact), artifact),
            "edgeattn": edgeattn.load(path, format=artifact.format, scheme=artifact.scheme),
        }
        microseconds: dict[str, list[float]] = {name: [] for name in calls}
        for turn in range(ROUNDS):
            for name in sorted(calls, reverse=bool(turn % 2)):
                start = time.perf_counter()
                for _ in range(CALLS):
                    calls[name](sample)
                microseconds[name].append((time.perf_counter() - start) / CALLS * 1e6)
        alone, ours = median(microseconds["runtime"]), median(microseconds["edgeattn"])
        print(
            f"{artifact.label}: runtime {alone:.2f} us, edgeattn.load {ours:.2f} us, "
            f"ratio {ours / alone:.3f}"
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
