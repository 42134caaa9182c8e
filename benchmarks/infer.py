"""Run model files on the emulated processor and read the instruction count around each inference.

    python infer.py FOLDER

``FOLDER/plan.json`` is a list of ``{"path", "runtime"}``, with ``"inputs"`` for the file of its
sequences if it is not ``inputs.npy``. The outputs are written to ``FOLDER/NUMBER.npy``, and a line
of JSON per file to stdout. An inference sets the input, runs the graph and reads the output of one
sequence.
"""

import contextlib
import json
import os
import platform
import sys
from pathlib import Path

import numpy as np

COUNT_REQUEST = 0x0ED6EA77  # recognized by count.c and fetch.c


def request_count(requests):
    requests.append(None)
    with contextlib.suppress(OSError):
        os.getpriority(os.PRIO_PROCESS, COUNT_REQUEST)


def litert(path):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=path, num_threads=1)
    interpreter.allocate_tensors()
    input_index = interpreter.get_input_details()[0]["index"]
    output_index = interpreter.get_output_details()[0]["index"]

    def run(x):
        interpreter.set_tensor(input_index, x)
        interpreter.invoke()
        return interpreter.get_tensor(output_index)

    return run


def onnxruntime(path):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    input_name, output_names = session.get_inputs()[0].name, [session.get_outputs()[0].name]
    return lambda x: session.run(output_names, {input_name: x})[0]


def main(folder):
    os.chdir(folder)
    plan = json.loads(Path("plan.json").read_text())
    print(json.dumps({"machine": platform.machine(), "python": platform.python_version()}))
    for number, item in enumerate(plan):
        x = np.load(item.get("inputs", "inputs.npy"))
        rows = [np.ascontiguousarray(x[i : i + 1]) for i in range(len(x))]
        requests = []
        try:
            run = {"tflite": litert, "onnx": onnxruntime}[item["runtime"]](item["path"])
            for row in rows:
                run(row)
            outputs = []
            for row in rows:
                request_count(requests)
                output = run(row)
                request_count(requests)
                outputs.append(np.array(output))
        except Exception as error:
            report = {"failed": (str(error).strip() or type(error).__name__).splitlines()[0][:200]}
        else:
            np.save(f"{number}.npy", np.concatenate(outputs))
            report = {}
        report |= {"number": number, "readings": len(requests)}
        print(json.dumps(report), flush=True)
        run = None


main(sys.argv[1])
