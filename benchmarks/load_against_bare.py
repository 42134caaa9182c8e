"""``edgeattn.load`` against the bare runtime, interleaved, on a bundle that is given.

    python benchmarks/load_against_bare.py model.edge

The bare loop is what a user would paste: set_tensor, invoke, get_tensor, or session.run. The
medians of rounds that alternate are compared; their ratio is what the wrapper costs.
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


def bare_tflite(path: Path, artifact: Artifact) -> Callable[[dict[str, np.ndarray]], object]:
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


def bare_onnx(path: Path, artifact: Artifact) -> Callable[[dict[str, np.ndarray]], object]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [spec.name for spec in artifact.outputs]
    return lambda sample: session.run(names, sample)


def main(bundle: Path) -> None:
    opened = Bundle.open(bundle)
    reference = opened.reference()
    for artifact in opened.manifest.artifacts:
        if any(spec.quantized for spec in (*artifact.inputs, *artifact.outputs)):
            print(f"{artifact.label}: its ends are integers, the bare loop does less; left out")
            continue
        make = {"tflite": bare_tflite, "onnx": bare_onnx}[artifact.format]
        ours = edgeattn.load(bundle, format=artifact.format, scheme=artifact.scheme)
        bare = make(opened.artifact_path(artifact), artifact)
        sample = {
            spec.name: np.ascontiguousarray(reference[f"input/{spec.name}"][:1], spec.dtype)
            for spec in artifact.inputs
        }
        ways: dict[str, Callable[[dict[str, np.ndarray]], object]] = {"bare": bare, "load": ours}
        spent: dict[str, list[float]] = {name: [] for name in ways}
        for turn in range(ROUNDS):
            for name in sorted(ways, reverse=bool(turn % 2)):
                start = time.perf_counter()
                for _ in range(CALLS):
                    ways[name](sample)
                spent[name].append((time.perf_counter() - start) / CALLS * 1e6)
        a, b = median(spent["bare"]), median(spent["load"])
        print(f"{artifact.label}: bare {a:.2f} us, edgeattn.load {b:.2f} us, ratio {b / a:.3f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
