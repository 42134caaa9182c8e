"""Code shared by the make_*.py scripts: random weights, random inputs, and one entry per file in index.json.

`python bank.py` regenerates the table of README.md from index.json. Runs on Python 2.7 and later and needs NumPy
only; Keras is passed as an argument.
"""

from __future__ import print_function

import fcntl
import io
import json
import os
import platform
import shutil

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
INDEX = os.path.join(HERE, "index.json")
ROWS = 13  # a prime number that is not the length of any other axis


def numbers(seed, *shape):
    """Return random inputs, large enough for gates to leave the linear range of hard_sigmoid."""
    return (np.random.RandomState(seed).randn(*shape) * 1.5).astype("float32")


def padded_words(seed, rows, steps, words, lengths):
    """Return word indices with zeros as padding on the right."""
    x = np.random.RandomState(seed).randint(1, words, size=(rows, steps)).astype("int32")
    for row, length in zip(x, lengths):
        row[length:] = 0
    return x


def randomise(model, seed):
    """Set all weights to random values: biases too, variances positive, integer counters unchanged."""
    random = np.random.RandomState(seed)
    for layer in model.layers:  # layer by layer, because Keras 1 orders model.weights and model.get_weights() differently
        if layer.weights:
            layer.set_weights([fresh(random, v, old) for v, old in zip(layer.weights, layer.get_weights())])
    return model


def fresh(random, variable, old):
    name = getattr(variable, "path", None) or variable.name or ""
    if old.dtype.kind != "f":
        return old
    if "variance" in name or "running_std" in name:
        return random.uniform(0.3, 2.0, old.shape).astype(old.dtype)
    if old.ndim < 2:
        return random.uniform(-1.3, 1.3, old.shape).astype(old.dtype)
    return (random.randn(*old.shape) * 0.9).astype(old.dtype)


def forget_folders(model):
    """Remove the folder from the source file name in the bytecode of Lambda layers, so that files are reproducible."""
    for layer in model.layers:
        for function in (getattr(layer, "function", None), getattr(layer, "_output_shape", None)):
            code = getattr(function, "__code__", None)
            if hasattr(code, "replace"):  # Python 3.8 and later; earlier versions store no folder
                function.__code__ = code.replace(co_filename=os.path.basename(code.co_filename))


def as_list(value):
    return list(value) if isinstance(value, (list, tuple)) else [value]


def folder(era):
    path = os.path.join(HERE, era)
    if not os.path.isdir(path):
        os.makedirs(path)
    return path


def size_of(path):
    if os.path.isfile(path):
        return os.path.getsize(path)
    return sum(os.path.getsize(os.path.join(top, n)) for top, _, names in os.walk(path) for n in names)


def write_truth(path, inputs, outputs, extra=None):
    """Write NAME.npz: `x` or one array per input name, `y` or `y_0`, `y_1`, ..., and the extra arrays."""
    arrays = dict(inputs) if isinstance(inputs, dict) else {"x": inputs}
    outputs = [np.asarray(y) for y in as_list(outputs)]
    for y in outputs:
        assert np.isfinite(y).all(), "outputs must be finite"
        assert y.shape[0] == ROWS and np.mean(np.ptp(y, axis=0) > 1e-3) > 0.5, "rows must differ: %s" % y[:3]
    if len(outputs) == 1:
        arrays["y"] = outputs[0]
    else:
        arrays.update(("y_%d" % i, y) for i, y in enumerate(outputs))
    arrays.update(extra or {})
    np.savez_compressed(path, **arrays)


def enter(entry):
    """Add an entry to index.json; it replaces an entry for the same file."""
    with open(os.path.join(HERE, "bank.py")) as lock:  # scripts may run at the same time
        fcntl.flock(lock, fcntl.LOCK_EX)
        entries = []
        if os.path.exists(INDEX):
            with io.open(INDEX, encoding="utf-8") as f:
                entries = json.load(f)
        entries = [e for e in entries if e["file"] != entry["file"]] + [entry]
        entries.sort(key=lambda e: e["file"])
        text = "[\n" + ",\n".join(" " + json.dumps(e, sort_keys=True) for e in entries) + "\n]\n"
        with open(INDEX, "wb") as f:
            f.write(text.encode("ascii"))
    print("%7d  %s  reloads: %s" % (size_of(os.path.join(HERE, entry["file"])), entry["file"], entry.get("reloads")))


class Era(object):
    """One Keras version: saves models, computes their outputs and loads the files again."""

    def __init__(self, name, keras, tensorflow_version, load=None, keras_name=None, keras_version=None):
        self.name, self.keras, self.tensorflow_version = name, keras, tensorflow_version
        self.keras_name = keras_name or "keras"
        self.load = load or keras.models.load_model
        self.keras_version = keras_version or keras.__version__
        self.folder = folder(name)

    def entry(self, file, truth, exercises, **more):
        entry = {
            "file": self.name + "/" + file,
            "truth": self.name + "/" + truth,
            "keras": self.keras_name,
            "keras_version": self.keras_version,
            "tensorflow_version": self.tensorflow_version,
            "python": platform.python_version(),
            "exercises": exercises,
        }
        entry.update(more)
        return entry

    def predict(self, model, inputs):
        inner = model if hasattr(model, "input_names") else getattr(model, "model", None)  # a Sequential of Keras 1
        names = getattr(inner, "input_names", None) or [t.name for t in getattr(model, "inputs", None) or []]
        if isinstance(inputs, dict) and not set(names) <= set(inputs):
            names = sorted(inputs)  # x_0, x_1, ...: the file does not name its inputs
        x = [inputs[n] for n in names] if isinstance(inputs, dict) else inputs
        return as_list(model.predict(x[0] if isinstance(x, list) and len(x) == 1 else x, verbose=0))

    def keep(
        self,
        model,
        name,
        inputs,
        exercises,
        suffixes=(".h5",),
        seed=None,
        extra=None,
        save=None,
        custom_objects=None,
        note=None,
        outputs=None,
        reload=True,
        edit=None,
        save_options=None,
    ):
        """Set random weights (if a seed is given), save with each suffix, write the outputs, load and compare.

        `edit(path)` changes a saved file; `outputs` are the expected outputs if an equivalent model computed them.
        """
        if seed is not None:
            randomise(model, seed)
        forget_folders(model)
        if outputs is None:
            outputs = self.predict(model, inputs)
        truth = os.path.join(self.folder, name + ".npz")
        write_truth(truth, inputs, outputs, extra)
        for suffix in suffixes:
            path = os.path.join(self.folder, name + suffix)
            if os.path.isdir(path):
                shutil.rmtree(path)
            elif os.path.exists(path):
                os.remove(path)
            (save or model.save)(path, **(save_options or {}))
            if edit:
                edit(path)
            more = {}
            if note:
                more["note"] = note
            if reload:
                more["reloads"] = self.reloads(path, inputs, outputs, custom_objects)
            enter(self.entry(name + suffix, name + ".npz", exercises, **more))

    def reloads(self, path, inputs, outputs, custom_objects):
        """Return True, the difference, or the first line of the error when this Keras version loads its own file."""
        try:
            return self.compare(self.load(path, custom_objects=custom_objects), inputs, outputs)
        except Exception as error:
            if "safe_mode" in str(error):
                try:
                    again = self.load(path, custom_objects=custom_objects, safe_mode=False)
                    return "with safe_mode=False: %s" % self.compare(again, inputs, outputs)
                except Exception as second:
                    error = second
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            return "%s: %s" % (type(error).__name__, lines[0][:160] if lines else "")

    def compare(self, model, inputs, outputs):
        worst = max(float(np.abs(a - b).max()) for a, b in zip(self.predict(model, inputs), outputs))
        return True if worst < 1e-5 else "differs by %.3g" % worst


def table():
    """Return the table of README.md: one line per file."""
    with io.open(INDEX, encoding="utf-8") as f:
        entries = json.load(f)
    lines = ["| file | saved by | TensorFlow | Python | exercises | reloads |", "|---|---|---|---|---|---|"]
    for e in entries:
        reloads = {True: "yes", None: "not tried"}.get(e.get("reloads"), e.get("reloads"))
        cells = [
            "`%s`" % e["file"],
            "%s %s" % (e["keras"], e["keras_version"]),
            e["tensorflow_version"],
            e["python"],
            "; ".join(e["exercises"]),
            str(reloads).split(". ")[0][:90].replace("|", "/"),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    readme = os.path.join(HERE, "README.md")
    with io.open(readme, encoding="utf-8") as f:
        before = f.read().split("<!-- table -->")[0]
    with io.open(readme, "w", encoding="utf-8") as f:
        f.write(before + "<!-- table -->\n\n" + table() + "\n")
