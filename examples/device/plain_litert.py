"""Run a ``.tflite`` file of a bundle with ai-edge-litert, without edgeattn.

Usage: ``python plain_litert.py model.edge/model.float32.tflite samples.npy``
"""

import sys

import numpy as np
from ai_edge_litert.interpreter import Interpreter

model, samples = sys.argv[1:]
interpreter = Interpreter(model_path=model, num_threads=1)
interpreter.allocate_tensors()
# Inputs and outputs are addressed by name, because their order in the file may change.
run = interpreter.get_signature_runner()
(name,) = run.get_input_details()
dtype = run.get_input_details()[name]["dtype"]

for sample in np.load(samples):
    for output, value in run(**{name: sample[None].astype(dtype)}).items():
        print(output, *value.ravel())
