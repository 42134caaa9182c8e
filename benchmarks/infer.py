"""Runs on the emulated processor: files on the same sequences, asking for the count around each.

    python infer.py FOLDER

``FOLDER/plan.json`` is a list of ``{"path", "runtime"}``, ``FOLDER/inputs.npy`` the sequences.
The answers go to ``FOLDER/NUMBER.npy``, a line of JSON about each file to stdout. An inference is
what a program does for one sequence: the input set, the graph run, the output read.
"""

import contextlib
import json
import os
import platform
import sys
from pathlib import Path

import numpy as np

ASKED = 0x0ED6EA77  # what count.c listens for


def ask():
    with contextlib.suppress(OSError):
        os.getpriority(os.PRIO_PROCESS, ASKED)


def litert(path):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=path, num_threads=1)
    interpreter.allocate_tensors()
    into = interpreter.get_input_details()[0]["index"]
    out = interpreter.get_output_details()[0]["index"]

    def run(x):
        interpreter.set_tensor(into, x)
        interpreter.invoke()
        return interpreter.get_tensor(out)

    return run


def onnxruntime(path):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    into, out = session.get_inputs()[0].name, [session.get_outputs()[0].name]
    return lambda x: session.run(out, {into: x})[0]


def main(folder):
    os.chdir(folder)
    plan = json.loads(Path("plan.json").read_text())
    x = np.load("inputs.npy")
    rows = [np.ascontiguousarray(x[i : i + 1]) for i in range(len(x))]
    print(json.dumps({"machine": platform.machine(), "python": platform.python_version()}))
    for number, item in enumerate(plan):
        try:
            run = {"tflite": litert, "onnx": onnxruntime}[item["runtime"]](item["path"])
            for row in rows:
                run(row)
            answers = []
            for row in rows:
                ask()
                answer = run(row)
                ask()
                answers.append(np.array(answer))
        except Exception as error:
            told = {"failed": (str(error).strip() or type(error).__name__).splitlines()[0][:200]}
        else:
            np.save(f"{number}.npy", np.concatenate(answers))
            told = {"counted": len(rows)}
        print(json.dumps({"number": number, **told}), flush=True)
        run = None


main(sys.argv[1])
