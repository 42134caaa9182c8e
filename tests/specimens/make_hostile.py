"""Writes model files that must be refused; none of them is stored in the repository.

    from make_hostile import make_all
    for case in make_all(folder): ...      # {"name", "path", "danger", "expect"}

expect is "refuse" (unsafe), "error" (malformed or unknown: a readable error and no crash) or "accept" (harmless
counterparts of the others, so that a loader that refuses everything fails the test). `python make_hostile.py FOLDER`
writes all files.

Needs h5py and NumPy, no Keras. The payloads are harmless: if one is run, it creates the file in the environment
variable EDGEATTN_CANARY, so a test sets the variable and checks that the file does not exist. Bytecode is that of the
running Python, the only version that could run it.
"""

from __future__ import annotations

import base64
import copy
import io
import json
import marshal
import pickle
import stat
import struct
import sys
import zipfile
from pathlib import Path

import h5py
import numpy as np

CANARY = "EDGEATTN_CANARY"
PAYLOAD = f"lambda x: (open(__import__('os').environ.get({CANARY!r}, '/dev/null'), 'w').close(), x)[1]"
BYTECODE = base64.b64encode(marshal.dumps(eval(PAYLOAD).__code__)).decode("ascii")
HARMLESS_BYTECODE = base64.b64encode(marshal.dumps((lambda x: x).__code__)).decode("ascii")
STEPS, FEATURES, UNITS = 7, 5, 3
CASES = {}


def case(danger, suffix, expect="refuse"):
    """Register a function that writes one file to the path it gets; its name is the name of the file."""

    def register(function):
        CASES[function.__name__ + suffix] = (function, danger, expect)
        return function

    return register


# --- pieces of innocent files ---------------------------------------------------------------------------------------


def layer(class_name, three, module=None, registered_name=None, **config):
    """Return the entry of a layer in a config, as Keras 3 (`three`) or Keras 2 writes it."""
    common = {"name": class_name.lower(), "dtype": "float32"}
    if class_name != "InputLayer":
        common["trainable"] = True
    config = dict(common, **config)
    if not three:
        return {"class_name": class_name, "config": config}
    return {
        "module": module or "keras.layers",
        "class_name": class_name,
        "config": config,
        "registered_name": registered_name,
    }


def model_config(three, *extra, dense=None, shape=(None, STEPS, FEATURES)):
    """Return a Sequential of an input, the extra layers and Dense(3)."""
    entrance = layer("InputLayer", three, **{"batch_shape" if three else "batch_input_shape": list(shape)})
    last = layer(
        "Dense",
        three,
        **dict({"units": UNITS, "activation": "linear", "use_bias": True}, **(dense or {})),
    )
    model = layer("Sequential", three, layers=[entrance, *extra, last])
    if three:
        model["module"] = "keras"
    return model


def write_weights(group, three):
    random = np.random.RandomState(7)
    values = random.randn(FEATURES, UNITS).astype("float32"), random.randn(UNITS).astype("float32")
    if three:
        for i, value in enumerate(values):
            group.create_dataset(f"layers/dense/vars/{i}", data=value)
        return
    names = np.array([b"dense/kernel:0", b"dense/bias:0"])
    group.attrs["layer_names"] = np.array([b"dense"])
    group.attrs["keras_version"], group.attrs["backend"] = b"2.15.0", b"tensorflow"
    dense = group.create_group("dense")
    dense.attrs["weight_names"] = names
    for name, value in zip(names, values, strict=True):
        dense.create_dataset(name.decode(), data=value)


def write_h5(path, config=None, training=None, text=None, weights=write_weights):
    with h5py.File(path, "w") as f:
        f.attrs["model_config"] = text or json.dumps(config or model_config(False))
        f.attrs["keras_version"], f.attrs["backend"] = b"2.15.0", b"tensorflow"
        if training:
            f.attrs["training_config"] = json.dumps(training)
        weights(f.create_group("model_weights"), False)


def weights_bytes(weights=write_weights):
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as f:
        weights(f, True)
    return buffer.getvalue()


def entries(config=None, text=None, weights=write_weights):
    return [
        (
            "metadata.json",
            json.dumps({"keras_version": "3.10.0", "date_saved": "2025-01-01@00:00:00"}),
        ),
        ("config.json", text if text is not None else json.dumps(config or model_config(True))),
        ("model.weights.h5", weights_bytes(weights)),
    ]


def write_zip(path, parts, method=zipfile.ZIP_STORED):
    import warnings

    with warnings.catch_warnings(), zipfile.ZipFile(path, "w", method) as z:
        warnings.simplefilter("ignore")  # duplicate names are the point of one case
        for name, data in parts:
            z.writestr(name, data)


def write_keras(path, config=None, text=None, weights=write_weights):
    write_zip(path, entries(config, text, weights))


@case("none", ".h5", expect="accept")
def control(path):
    write_h5(path)


@case("none", ".keras", expect="accept")
def control_zip(path):
    write_keras(path)


# --- code -----------------------------------------------------------------------------------------------------------


def legacy_lambda(**config):
    return layer(
        "Lambda",
        False,
        **dict(
            {
                "function": [BYTECODE, None, None],
                "function_type": "lambda",
                "module": "builtins",
                "output_shape": None,
                "output_shape_type": "raw",
                "arguments": {},
            },
            **config,
        ),
    )


def modern_lambda(function=None, **config):
    code = {
        "class_name": "__lambda__",
        "config": {"code": BYTECODE, "defaults": None, "closure": None},
    }
    return layer("Lambda", True, **dict({"function": function or code, "arguments": {}}, **config))


@case("Lambda bytecode", ".h5")
def lambda_bytecode(path):
    write_h5(path, model_config(False, legacy_lambda()))


@case("Lambda bytecode", ".keras")
def lambda_bytecode_zip(path):
    write_keras(path, model_config(True, modern_lambda()))


@case("Lambda bytecode whose layer has the name of a harmless one", ".h5")
def lambda_in_disguise(path):
    write_h5(path, model_config(False, legacy_lambda(name="last_hidden_state")))


@case("Lambda bytecode in output_shape, the function itself is harmless", ".h5")
def lambda_output_shape(path):
    write_h5(
        path,
        model_config(
            False,
            legacy_lambda(
                function=[HARMLESS_BYTECODE, None, None],
                output_shape=[BYTECODE, None, None],
                output_shape_type="lambda",
            ),
        ),
    )


@case("Lambda bytecode inside TimeDistributed inside a nested model", ".h5")
def lambda_nested(path):
    wrapped = layer("TimeDistributed", False, layer=legacy_lambda())
    write_h5(path, model_config(False, layer("Sequential", False, name="inner", layers=[wrapped])))


@case("Lambda bytecode as the loss", ".h5")
def lambda_loss(path):
    code = {
        "class_name": "__lambda__",
        "config": {"code": BYTECODE, "defaults": None, "closure": None},
    }
    write_h5(
        path,
        training={
            "loss": code,
            "metrics": [],
            "optimizer_config": {"class_name": "SGD", "config": {}},
        },
    )


@case("Lambda bytecode as an activation", ".keras")
def lambda_activation(path):
    code = {
        "class_name": "__lambda__",
        "config": {"code": BYTECODE, "defaults": None, "closure": None},
    }
    write_keras(path, model_config(True, dense={"activation": code}))


@case("Lambda that names a function of the keras package (CVE-2025-8747)", ".keras")
def lambda_get_file(path):
    function = {
        "module": "keras.utils",
        "class_name": "function",
        "config": "get_file",
        "registered_name": "get_file",
    }
    arguments = {
        "origin": "https://example.invalid/x",
        "cache_dir": "somewhere",
        "force_download": True,
    }
    write_keras(path, model_config(True, modern_lambda(function, arguments=arguments)))


@case("config that switches safe mode off (CVE-2025-9906)", ".keras")
def unsafe_switch(path):
    switch = {
        "module": "keras.config",
        "class_name": "function",
        "config": "enable_unsafe_deserialization",
        "registered_name": "enable_unsafe_deserialization",
    }
    write_keras(path, model_config(True, modern_lambda(switch), modern_lambda(name="second")))


@case("module that no model needs (CVE-2025-1550)", ".keras")
def foreign_module(path):
    call = {
        "module": "os",
        "class_name": "function",
        "config": "getcwd",
        "registered_name": "getcwd",
    }
    write_keras(path, model_config(True, dense={"activation": call}))


@case("layer class of a module that nobody knows", ".keras", expect="error")
def unknown_module(path):
    write_keras(
        path,
        model_config(
            True,
            layer(
                "Thing",
                True,
                module="a_package_of_someone.layers",
                registered_name="a_package_of_someone>Thing",
            ),
        ),
    )


@case("layer class that nobody knows", ".h5", expect="error")
def unknown_class(path):
    write_h5(path, model_config(False, layer("Thing", False, units=3)))


@case("the class is given twice, a reader may believe either", ".keras")
def duplicate_keys(path):
    config = model_config(True)
    dense = json.dumps(config["config"]["layers"][-1])
    both = dense[:-1] + ", " + json.dumps(modern_lambda())[1:]
    write_keras(path, text=json.dumps(config).replace(dense, both))


@case("nested SavedModel (CVE-2026-1462)", ".keras")
def tfsm_layer(path):
    write_keras(
        path,
        model_config(
            True,
            layer(
                "TFSMLayer",
                True,
                filepath="somewhere/saved_model",
                call_endpoint="serve",
                call_training_endpoint=None,
            ),
        ),
    )


@case("pickled torch module", ".keras")
def torch_module(path):
    code = base64.b64encode(pickle.dumps(Canary())).decode("ascii")
    write_keras(path, model_config(True, layer("TorchModuleWrapper", True, module=code)))


class Canary:
    """Creates the canary file when it is unpickled."""

    def __reduce__(self):
        return eval, (f"({PAYLOAD})(0)",)


@case("pickled objects instead of numbers", ".npz")
def pickled_samples(path):
    np.savez(path, x=np.array([Canary()], dtype=object))


@case("weights as .npz with pickled objects", ".keras")
def pickled_weights(path):
    buffer = io.BytesIO()
    np.savez(buffer, **{"layers/dense": np.array([Canary()], dtype=object)})
    write_zip(path, [*entries()[:2], ("model.weights.npz", buffer.getvalue())])


# --- files and addresses that a config names (CVE-2025-12058) ---------------------------------------------------------


@case("file path in a config", ".keras")
def vocabulary_path(path):
    write_keras(path, model_config(True, layer("StringLookup", True, vocabulary="/nonexistent/words.txt")))


@case("address in a config", ".keras")
def vocabulary_url(path):
    write_keras(
        path,
        model_config(True, layer("TextVectorization", True, vocabulary="https://example.invalid/words.txt")),
    )


@case("file address in the config of an ordinary layer", ".h5")
def initializer_path(path):
    reader = {"class_name": "Constant", "config": {"value": "file:///nonexistent/weights.npy"}}
    write_h5(path, model_config(False, dense={"kernel_initializer": reader}))


# --- HDF5 (CVE-2026-1669, CVE-2026-0897) -----------------------------------------------------------------------------


def secret(path):
    """Return a file outside the model; a link to it would load its values as weights."""
    other = Path(path).with_name(Path(path).stem + "_secret.h5")
    with h5py.File(other, "w") as f:
        f["kernel"] = np.full((FEATURES, UNITS), 42.0, "float32")
    return other


def kernel_as(put):
    """Write the usual weights, with the kernel created by a function."""

    def weights(group, three):
        write_weights(group, three)
        where = group["layers/dense/vars"] if three else group["dense/dense"]
        name = "0" if three else "kernel:0"
        del where[name]
        put(where, name)

    return weights


@case("HDF5 external link", ".h5")
def external_link(path):
    other = secret(path)
    write_h5(
        path,
        weights=kernel_as(lambda g, n: g.__setitem__(n, h5py.ExternalLink(str(other.absolute()), "/kernel"))),
    )


@case("HDF5 external link inside the zip", ".keras")
def external_link_zip(path):
    other = str(secret(path).absolute())
    write_keras(path, weights=kernel_as(lambda g, n: g.__setitem__(n, h5py.ExternalLink(other, "/kernel"))))


@case("HDF5 external storage", ".h5")
def external_storage(path):
    raw = Path(path).with_suffix(".raw")
    raw.write_bytes(np.full((FEATURES, UNITS), 42.0, "float32").tobytes())
    write_h5(
        path,
        weights=kernel_as(
            lambda g, n: g.create_dataset(
                n,
                (FEATURES, UNITS),
                "float32",
                external=[(str(raw.absolute()), 0, raw.stat().st_size)],
            )
        ),
    )


@case("HDF5 virtual dataset", ".h5")
def virtual_dataset(path):
    other = secret(path)
    layout = h5py.VirtualLayout((FEATURES, UNITS), "float32")
    layout[:] = h5py.VirtualSource(str(other), "kernel", (FEATURES, UNITS))
    write_h5(path, weights=kernel_as(lambda g, n: g.create_virtual_dataset(n, layout)))


@case("HDF5 virtual dataset inside the zip", ".keras")
def virtual_dataset_zip(path):
    other = secret(path)
    layout = h5py.VirtualLayout((FEATURES, UNITS), "float32")
    layout[:] = h5py.VirtualSource(str(other), "kernel", (FEATURES, UNITS))
    write_keras(path, weights=kernel_as(lambda g, n: g.create_virtual_dataset(n, layout)))


@case("HDF5 soft link", ".h5")
def soft_link(path):
    write_h5(
        path,
        weights=kernel_as(lambda g, n: g.__setitem__(n, h5py.SoftLink("/model_weights/dense/dense/bias:0"))),
    )


@case("HDF5 soft link to itself", ".h5")
def soft_link_loop(path):
    write_h5(path, weights=kernel_as(lambda g, n: g.__setitem__(n, h5py.SoftLink(g.name + "/" + n))))


@case("HDF5 group that contains itself", ".h5")
def hard_link_loop(path):
    write_h5(path)
    with h5py.File(path, "r+") as f:
        f["model_weights/dense/again"] = f["model_weights"]


@case("HDF5 groups nested 3,000 deep", ".h5")
def deep_groups(path):
    write_h5(path)
    with h5py.File(path, "r+") as f:
        f.create_group("model_weights/" + "/".join(["a"] * 3000))


@case("shape bomb: 4 TiB declared, nothing stored", ".h5")
def shape_bomb(path):
    write_h5(
        path,
        weights=kernel_as(lambda g, n: g.create_dataset(n, (2**20, 2**20), "float32", chunks=(64, 64))),
    )


@case("shape bomb inside the zip", ".keras")
def shape_bomb_zip(path):
    write_keras(
        path,
        weights=kernel_as(lambda g, n: g.create_dataset(n, (2**20, 2**20), "float32", chunks=(64, 64))),
    )


@case("gzip bomb inside HDF5: 64 MiB of zeros in a few KiB", ".h5")
def gzip_dataset(path):
    zeros = np.zeros((2**12, 2**12), "float32")
    write_h5(
        path,
        weights=kernel_as(lambda g, n: g.create_dataset(n, data=zeros, compression="gzip", chunks=(2**11, 2**11))),
    )


@case("HDF5 dataset of strings where numbers belong", ".h5", expect="error")
def weights_of_text(path):
    write_h5(path, weights=kernel_as(lambda g, n: g.create_dataset(n, data=[b"no", b"numbers"])))


@case("HDF5 dataset of object references where numbers belong", ".h5", expect="error")
def weights_of_references(path):
    def put(group, name):
        data = group.create_dataset(name, (2,), dtype=h5py.ref_dtype)
        data[0] = group.ref

    write_h5(path, weights=kernel_as(put))


@case("weights of another shape than the config says", ".h5", expect="error")
def wrong_shape(path):
    write_h5(
        path,
        weights=kernel_as(lambda g, n: g.create_dataset(n, data=np.zeros((UNITS, FEATURES), "float32"))),
    )


@case("shape bomb in the config: Dense with 2**40 units", ".keras")
def config_bomb(path):
    write_keras(path, model_config(True, dense={"units": 2**40}))


@case("shape bomb in the config: RepeatVector of 10**12", ".h5")
def repeat_bomb(path):
    write_h5(path, model_config(False, layer("Flatten", False), layer("RepeatVector", False, n=10**12)))


# --- zip ------------------------------------------------------------------------------------------------------------


@case("zip bomb: ratio over 900", ".keras")
def zip_bomb(path):
    write_zip(path, [*entries(), ("assets/zeros.bin", b"\x00" * 2**25)], zipfile.ZIP_DEFLATED)


@case("zip bomb: the weights themselves", ".keras")
def zip_bomb_weights(path):
    padded = weights_bytes() + b"\0" * 2**25
    write_zip(path, [*entries()[:2], ("model.weights.h5", padded)], zipfile.ZIP_DEFLATED)


@case("zip entry that says it is smaller than it is", ".keras")
def zip_liar(path):
    config = json.dumps(model_config(True)).encode() + b" " * 2**20
    write_zip(
        path,
        [e for e in entries() if e[0] != "config.json"] + [("config.json", config)],
        zipfile.ZIP_DEFLATED,
    )
    data = Path(path).read_bytes()
    Path(path).write_bytes(data.replace(struct.pack("<I", len(config)), struct.pack("<I", 1000)))


@case("zip with 20,000 entries", ".keras")
def zip_of_many(path):
    write_zip(path, entries() + [(f"assets/{i}", b"") for i in range(20000)])


def evil_entry(name, target):
    def write(path):
        write_zip(path, [*entries(), (target, b"outside")])

    write.__name__ = name
    case("zip path " + repr(target), ".keras")(write)


evil_entry("zip_parent", "../outside.txt")
evil_entry("zip_deep_parent", "assets/../../outside.txt")
evil_entry("zip_absolute", "/tmp/edgeattn_outside.txt")
evil_entry("zip_windows_parent", "..\\outside.txt")
evil_entry("zip_drive", "C:\\outside.txt")


@case("zip entry that is a symbolic link", ".keras")
def zip_symlink(path):
    link = zipfile.ZipInfo("assets/link")
    link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    write_zip(path, [*entries(), (link, "/etc")])


@case("zip with two config.json, the second one has a Lambda", ".keras")
def zip_duplicate(path):
    write_zip(path, [*entries(), ("config.json", json.dumps(model_config(True, modern_lambda())))])


@case("zip entry marked as encrypted", ".keras")
def zip_encrypted(path):
    write_keras(path)
    data = bytearray(Path(path).read_bytes())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.find(mark) + offset] |= 1
    Path(path).write_bytes(bytes(data))


@case("zip without config.json", ".keras", expect="error")
def zip_no_config(path):
    write_zip(path, [e for e in entries() if e[0] != "config.json"])


@case("zip without weights", ".keras", expect="error")
def zip_no_weights(path):
    write_zip(path, entries()[:2])


# --- JSON -----------------------------------------------------------------------------------------------------------


@case("JSON nested 100,000 deep", ".keras")
def deep_json(path):
    write_keras(path, text='{"class_name":' + "[" * 100000 + "]" * 100000 + "}")


@case("JSON nested 100,000 deep", ".h5")
def deep_json_h5(path):
    write_h5(path, text="[" * 100000 + "]" * 100000)


@case("models nested 200 deep", ".h5")
def deep_models(path):
    inner = layer("Sequential", False, layers=[layer("Flatten", False)])
    for i in range(200):
        inner = layer("Sequential", False, name=f"level{i}", layers=[inner])
    write_h5(path, model_config(False, inner))


@case("JSON of 32 MiB", ".keras")
def huge_json(path):
    config = model_config(True)
    config["config"]["name"] = "n" * 2**25
    write_keras(path, config)


@case("50,000 layers", ".keras")
def many_layers(path):
    config = model_config(True)
    flatten = layer("Activation", True, activation="linear")
    config["config"]["layers"][1:1] = [copy.copy(flatten) for _ in range(50000)]
    write_keras(path, config)


@case("number of 10,000 digits", ".keras", expect="error")
def huge_number(path):
    write_keras(path, text=json.dumps(model_config(True)).replace('"units": 3', '"units": ' + "9" * 10000))


@case("numbers that are none: NaN and Infinity", ".keras", expect="error")
def not_a_number(path):
    write_keras(
        path,
        text=json.dumps(model_config(True)).replace('"units": 3', '"units": NaN, "unroll": Infinity'),
    )


@case("config that is no text", ".keras", expect="error")
def not_utf8(path):
    write_zip(path, [(n, b"\xff\xfe\xfa" if n == "config.json" else d) for n, d in entries()])


@case("config of a type that no model has", ".keras", expect="error")
def config_is_a_list(path):
    write_keras(path, text="[1, 2, 3]")


@case("config whose fields have the wrong types", ".h5", expect="error")
def wrong_types(path):
    write_h5(path, {"class_name": ["Sequential"], "config": "no object"})


@case("layers that feed each other in a circle", ".h5", expect="error")
def graph_loop(path):
    def node(name, source):
        return {
            "class_name": "Dense",
            "name": name,
            "config": {"name": name, "units": UNITS},
            "inbound_nodes": [[[source, 0, 0, {}]]],
        }

    write_h5(
        path,
        {
            "class_name": "Functional",
            "config": {
                "name": "model",
                "layers": [node("a", "b"), node("b", "a")],
                "input_layers": [["a", 0, 0]],
                "output_layers": [["b", 0, 0]],
            },
        },
    )


# --- files that are not what they say ---------------------------------------------------------------------------------


def raw_file(name, suffix, danger, data, expect="error"):
    def write(path):
        Path(path).write_bytes(data() if callable(data) else data)

    write.__name__ = name
    case(danger, suffix, expect)(write)


def cut_in_half(write):
    buffer = io.BytesIO()
    write(buffer)
    return buffer.getvalue()[: len(buffer.getvalue()) // 2]


raw_file("empty", ".h5", "empty file", b"")
raw_file("empty_zip", ".keras", "zip without entries", b"PK\x05\x06" + b"\0" * 18)
raw_file("text", ".h5", "no HDF5 at all", b"{}\n" * 100)
raw_file("half", ".h5", "truncated HDF5", lambda: cut_in_half(write_h5))
raw_file("half_zip", ".keras", "truncated zip", lambda: cut_in_half(write_keras))
raw_file(
    "noise",
    ".h5",
    "HDF5 signature, then noise",
    lambda: b"\x89HDF\r\n\x1a\n" + np.random.RandomState(3).bytes(4000),
)
raw_file("pickle", ".h5", "pickle with a code payload", lambda: pickle.dumps(Canary()), "refuse")

# A .tflite is a FlatBuffer: root offset, "TFL3", and tables found through offsets. Each of these lies about one.
raw_file("tiny", ".tflite", "malformed: shorter than its header", b"\x1c\0\0\0TFL")
raw_file("no_mark", ".tflite", "malformed: no TFL3", b"\x1c\0\0\0" + b"\0" * 60)
raw_file(
    "root_outside",
    ".tflite",
    "malformed: root outside the file",
    struct.pack("<I", 2**31) + b"TFL3" + b"\0" * 60,
)
raw_file(
    "vtable_outside",
    ".tflite",
    "malformed: vtable outside the file",
    struct.pack("<I", 16) + b"TFL3" + b"\0" * 8 + struct.pack("<i", 2**30) + b"\0" * 40,
)
raw_file(
    "endless_vector",
    ".tflite",
    "malformed: vector of 2**31 elements",  # version 3, subgraphs far too many
    struct.pack("<I4sHHHHHHiIII", 20, b"TFL3", 10, 12, 4, 0, 8, 0, 12, 3, 4, 2**31) + b"\0" * 16,
)
raw_file(
    "tflite_noise",
    ".tflite",
    "malformed: noise after the mark",
    lambda: struct.pack("<I", 28) + b"TFL3" + np.random.RandomState(5).bytes(4000),
)
raw_file(
    "external_group",
    ".tflite",
    "external data: weights in another file",  # version 3 and one group of external buffers, named "data"
    struct.pack("<I4s12HiII", 32, b"TFL3", 24, 12, 4, *[0] * 7, 8, 0, 24, 3, 4)
    + struct.pack("<IIHHHHiII4sI", 1, 12, 6, 8, 4, 0, 8, 4, 4, b"data", 0),
    "refuse",
)


# --- ONNX (CVE-2022-25882, 2024-27318, 2026-27489, -34446) ---------------------------------------------------------


def varint(n):
    out = bytearray()
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    return bytes(out) + bytes([n])


def field(number, value):
    """Return one protobuf field: an integer, or length-prefixed bytes, text or message."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value


def onnx_model(*where):
    """Return y = x @ w, w of shape (5, 3) stored externally as in `where` (key, value pairs), or inside if empty."""
    if where:
        storage = b"".join(field(13, field(1, k) + field(2, v)) for k, v in where) + field(14, 1)
    else:
        storage = field(9, np.ones((FEATURES, UNITS), "<f4").tobytes())
    tensor = field(1, FEATURES) + field(1, UNITS) + field(2, 1) + field(8, "w") + storage

    def value_info(name, *shape):
        dims = b"".join(field(1, field(1, d)) for d in shape)
        return field(1, name) + field(2, field(1, field(1, 1) + field(2, dims)))

    node = field(1, "x") + field(1, "w") + field(2, "y") + field(4, "MatMul")
    graph = (
        field(1, node)
        + field(2, "g")
        + field(5, tensor)
        + field(11, value_info("x", 1, FEATURES))
        + field(12, value_info("y", 1, UNITS))
    )
    return field(1, 8) + field(7, graph) + field(8, field(1, "") + field(2, 13))


@case("none", ".onnx", expect="accept")
def control_onnx(path):
    Path(path).write_bytes(onnx_model())


@case("ONNX external data above the folder", ".onnx")
def onnx_parent(path):
    Path(path).write_bytes(onnx_model(("location", "../outside.bin")))


@case("ONNX external data with an absolute path", ".onnx")
def onnx_absolute(path):
    Path(path).write_bytes(onnx_model(("location", "/etc/hostname")))


@case("ONNX external data through a symbolic link", ".onnx")
def onnx_symlink(path):
    link = Path(path).with_name("onnx_link.bin")
    link.unlink(missing_ok=True)
    link.symlink_to("/etc/hostname")
    Path(path).write_bytes(onnx_model(("location", link.name)))


@case("ONNX external data beyond the end of its file", ".onnx")
def onnx_beyond(path):
    Path(path).with_name("onnx_beyond.bin").write_bytes(b"\0" * 8)
    Path(path).write_bytes(onnx_model(("location", "onnx_beyond.bin"), ("offset", str(2**40)), ("length", "60")))


@case("ONNX weights behind an unknown group, which hides them from careless parsers", ".onnx")
def onnx_group(path):
    Path(path).write_bytes(b"\xa3\x06\xa4\x06" + onnx_model(("location", "../outside.bin")))


raw_file("onnx_noise", ".onnx", "malformed: noise", lambda: np.random.RandomState(9).bytes(500))
raw_file("onnx_half", ".onnx", "malformed: truncated", lambda: onnx_model()[:60])


def make(name, folder):
    function, danger, expect = CASES[name]
    path = Path(folder) / name
    function(str(path))
    return {"name": name, "path": path, "danger": danger, "expect": expect}


def make_all(folder):
    """Write every case to a folder (about 120 MiB) and return the list of them."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    return [make(name, folder) for name in CASES]


if __name__ == "__main__":
    for made in make_all(sys.argv[1]):
        print(f"{made['name']:28} {made['path'].stat().st_size:10}  {made['expect']:7} {made['danger']}")
