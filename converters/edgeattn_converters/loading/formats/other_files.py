"""Files that are no Keras models: what they are, and what to do instead.

They are recognized by their first bytes, or by their names if their content does not show what they
are. Nothing of them is opened by a library.
"""

import itertools
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from edgeattn import first_bytes
from edgeattn.errors import EdgeattnError, UnsafeModelError, UnsupportedModelError
from edgeattn.printable import counted

SAVE_AGAIN = "Save the whole trained model in Keras: model.save('model.keras')"
_KERAS_ONLY = "edgeattn converts models of Keras: pass the .keras or .h5 file, if there is one."
_UNPACK = "Unpack it, and pass the model that it contains."
_LOAD_AND_SAVE = (
    "In the program that builds the model, assign these weights and save the whole model: "
    "model.save('model.keras')"
)
_ARRAYS = (
    "Inputs are passed with --samples. For weights, in the program that builds the model: "
    "model.set_weights([...]); model.save('model.keras')"
)
_PICKLE = re.compile(rb"\x80[\x02-\x05]")
_PICKLES = frozenset({".pkl", ".pickle", ".joblib", ".sav", ".dill"})
# The first object in a file of torch.save before PyTorch 1.6, a number, in any protocol of pickles.
_TORCH = re.compile(rb"\x80.{1,16}\nl\xfc\x9cF\xf9 j\xa8P\x19", re.DOTALL)
_WEB_PAGE = re.compile(
    rb"\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*<(!doctype html|html|head|body|title)\b",
    re.IGNORECASE | re.DOTALL,
)
_DOWNLOAD = "Download the model again, from the link to the file itself."
# A model in a folder is looked for among this many files.
_MOST_FILES = 10_000
_CHECKPOINT = re.compile(r"\.index$|\.data-\d{5}-of-\d{5}$|\.meta$")
# First bytes: what the file is.
_ARCHIVES = {
    b"\x1f\x8b": "a gzip archive",
    b"BZh": "a bzip2 archive",
    b"\xfd7zXZ\0": "an xz archive",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"Rar!": "a RAR archive",
    b"\x28\xb5\x2f\xfd": "a zstd archive",
}
_OTHER = {
    b"\x89PNG": "an image",
    b"\xff\xd8\xff": "an image",
    b"GIF8": "an image",
    b"%PDF": "a PDF document",
}
_TAR, _TAR_POSITION = b"ustar", 257
_SAFETENSORS_HEADER = 100_000_000
# Formats without a magic number, by suffix.
_BY_SUFFIX = {
    ".mlmodel": "a Core ML model",
    ".caffemodel": "a Caffe model",
    ".weights": "a weights file of Darknet",
    ".params": "a weights file of MXNet",
    ".pdparams": "a weights file of Paddle",
    ".pdmodel": "a Paddle model",
    ".engine": "a TensorRT engine",
    ".plan": "a TensorRT engine",
}
_SAVED_MODEL_FILES = frozenset({"saved_model.pb", "keras_metadata.pb", "fingerprint.pb"})


def error_of_file(path: Path, head: bytes) -> EdgeattnError:
    """Return the error for a file that is neither HDF5 nor zip; ``head`` are its first bytes."""
    if error := _of_tensorflow(path, head):
        return error
    if _TORCH.match(head):
        return pytorch_file(path)
    if _PICKLE.match(head) or path.suffix.lower() in _PICKLES:
        return UnsafeModelError(
            f"Refused {path.name}: it is a Python pickle, which runs code when it is opened.",
            hint=f"{SAVE_AGAIN}, in the program that wrote it.",
        )
    content, hint = _identify(path, head)
    return UnsupportedModelError(
        f"{path.name} is not a Keras model (HDF5 or zip): it is {content}.", hint=hint
    )


def is_of_saved_model(path: Path) -> bool:
    """Return whether the file is one of those in the folder of a SavedModel."""
    return path.name in _SAVED_MODEL_FILES


def pytorch_file(path: Path) -> UnsupportedModelError:
    """Return the error for a file of ``torch.save``."""
    return UnsupportedModelError(
        f"{path.name} is a PyTorch file, not a Keras model.",
        hint="Convert it with torch.onnx.export; edgeattn converts models of Keras.",
    )


def checkpoint(path: Path, prefix: str) -> UnsupportedModelError:
    """Return the error for a file or folder of a checkpoint, which contains weights only."""
    return UnsupportedModelError(
        f"{path.name} is a TensorFlow checkpoint, which contains weights only.",
        hint="In the program that builds the model, load it and save the model: "
        f"model.load_weights({prefix!r}); model.save('model.keras')",
    )


def weights_of_keras_0(path: Path, groups: Sequence[str]) -> UnsupportedModelError:
    """Return the error for a file of ``save_weights`` before Keras 1.0, which has no ``save``.

    Keras 1 loads those of a Sequential; it has no Graph, whose arrays are in the order of nodes.
    """
    load = f"load these weights and save it: model.load_weights({path.name!r})"
    if "graph" in groups:
        load = (
            "assign param_0, param_1, ... to its layers in the order of the nodes and save it: "
            "layer.set_weights([...])"
        )
    return UnsupportedModelError(
        f"{path.name} contains weights of Keras 0.x, a format that edgeattn does not "
        f"support: {', '.join(groups[:5])}.",
        hint=f"In Keras 1.2, build the model, {load}; model.save('model.h5')",
    )


def error_of_missing_file(path: Path) -> UnsupportedModelError | None:
    """Return the error for a path that is no file but the prefix of a checkpoint, else None."""
    if path.name and path.with_name(f"{path.name}.index").is_file():
        return checkpoint(path, path.name)
    return None


def error_of_folder(path: Path) -> UnsupportedModelError:
    """Return the error for a folder that is neither a SavedModel nor a bundle."""
    prefix = next((file.stem for file in sorted(path.glob("*.index"))), None)
    if prefix is not None:
        return checkpoint(path, f"{path.name}/{prefix}")
    if all((path / name).is_file() for name in ("config.json", "model.weights.h5")):
        names = ("config.json", "metadata.json", "model.weights.h5")
        files = " ".join(str(path / name) for name in names if (path / name).is_file())
        return UnsupportedModelError(
            f"The folder {path} contains the files of a .keras file.",
            hint=f"Pack them: python -m zipfile -c model.keras {files}",
        )
    if path.suffix.lower() in (".mlpackage", ".mlmodelc"):
        return UnsupportedModelError(f"{path} is a Core ML model.", hint=_KERAS_ONLY)
    if (path / "model.json").is_file() and any(path.glob("*.bin")):
        return UnsupportedModelError(
            f"{path} is a model of TensorFlow.js.", hint=_of_tensorflow_js(path / "model.json")
        )
    inside = itertools.islice(path.rglob("*"), _MOST_FILES)
    inner = min((file for file in inside if _is_model(file)), default=None)
    return UnsupportedModelError(
        f"The folder {path} contains no model: it has neither saved_model.pb nor manifest.json.",
        hint=SAVE_AGAIN if inner is None else f"Pass the model in it: {inner}",
    )


def _is_model(path: Path) -> bool:
    """Return whether a path has the name of a model, a SavedModel in its folder included."""
    return path.suffix.lower() in (".keras", ".h5") or (path / "saved_model.pb").is_file()


def error_of_zip(path: Path, names: Sequence[str]) -> UnsupportedModelError | None:
    """Return the error for a zip archive of something else than a Keras model, else None."""
    if any(name.endswith("/data.pkl") for name in names):
        return pytorch_file(path)
    if names and all(name.endswith(".npy") for name in names):
        return UnsupportedModelError(
            f"{path.name} contains {counted(len(names), 'NumPy array')}, not a model.",
            hint=_ARRAYS,
        )
    arrays = [name for name in names if name.endswith((".npz", ".npy", ".csv"))]
    if len(arrays) == len(names) > 0:
        return UnsupportedModelError(
            f"{path.name} is an archive of samples, not a model: {arrays[0]}.",
            hint="Unpack it, and pass the samples with --samples.",
        )
    inside = [name for name in names if name.endswith((".h5", ".keras", ".hdf5", "saved_model.pb"))]
    if inside and "config.json" not in names:
        return UnsupportedModelError(
            f"{path.name} is an archive that contains a model: {inside[0]}.", hint=_UNPACK
        )
    return None


def _of_tensorflow(path: Path, head: bytes) -> UnsupportedModelError | None:
    """Return the error for a file that TensorFlow writes, None for other files."""
    if is_of_saved_model(path):
        return UnsupportedModelError(
            f"{path.name} is one file of a SavedModel.", hint=f"Pass its folder: {path.parent}"
        )
    if _CHECKPOINT.search(path.name):
        folder = path.parent.parent
        if path.parent.name == "variables" and (folder / "saved_model.pb").is_file():
            return UnsupportedModelError(
                f"{path.name} is one file of a SavedModel.", hint=f"Pass its folder: {folder}"
            )
        return checkpoint(path, _CHECKPOINT.sub("", path.name))
    if path.suffix.lower() == ".ckpt":
        return checkpoint(path, path.name)
    if path.suffix.lower() == ".pb" or b"node {" in head[:4096]:
        return UnsupportedModelError(
            f"{path.name} is a graph of TensorFlow without its Keras layers.",
            hint="Pass the .keras or .h5 file that it was made from, or save it with a signature, "
            "as a folder: tf.saved_model.save(module, folder, signatures=module.f)",
        )
    return None


def _identify(path: Path, head: bytes) -> tuple[str, str]:
    """Return what a file contains, and the hint for it."""
    for applies, content, hint in _CONTENTS:
        if applies(head):
            return content, hint
    for magic, content in _ARCHIVES.items():
        if head.startswith(magic):
            return content, _UNPACK
    for magic, content in _OTHER.items():
        if head.startswith(magic):
            return content, "Pass the .keras or .h5 file."
    if path.suffix.lower() in _BY_SUFFIX:
        return _BY_SUFFIX[path.suffix.lower()], _KERAS_ONLY
    if b'"modelTopology"' in head:
        return "a model of TensorFlow.js", _of_tensorflow_js(path)
    if _is_architecture(head):
        hint = "Pass the file of its weights instead"
        if head.lstrip()[:1] == b"{":
            return "an architecture without weights", f"{hint}, and --architecture {path.name}"
        return (
            "an architecture without weights",
            f"{hint}, and the architecture as JSON (model.to_json()): --architecture FILE.json",
        )
    if path.suffix.lower() in (".py", ".ipynb"):
        hint = "Run it, and save the trained model at its end: model.save('model.keras')"
        return "a program", hint
    return "text" if _is_text(head) else "a file of an unknown format", SAVE_AGAIN


def _of_tensorflow_js(path: Path) -> str:
    return (
        "Convert it to a Keras file: tensorflowjs_converter --input_format=tfjs_layers_model "
        f"--output_format=keras {path} model.h5"
    )


def _is_architecture(head: bytes) -> bool:
    if head.lstrip()[:1] == b"{":
        return b'"class_name"' in head
    return re.search(rb"^class_name: ", head, re.MULTILINE) is not None


def _is_safetensors(head: bytes) -> bool:
    """Return whether the bytes start with the length of a header in JSON, and the header."""
    length = int.from_bytes(head[:8], "little")
    return head[8:9] == b"{" and 2 <= length <= _SAFETENSORS_HEADER


def _is_core_ml(head: bytes) -> bool:
    """Return whether a version is followed by a description, where ONNX files have the producer."""
    is_protobuf = len(head) > 16 and head[0] == 0x08 and head[2] == 0x12
    return is_protobuf and not first_bytes.may_be_onnx(head)


# The first bytes of the file that Git has in place of a large one.
LFS_POINTER = b"version https://git-lfs"
PULL = "Download the file that it points to: git lfs pull"
_CONTENTS: tuple[tuple[Callable[[bytes], bool], str, str], ...] = (
    # First, because the length of its header may be any character.
    (_is_safetensors, "a safetensors file, which contains weights only", _LOAD_AND_SAVE),
    (
        lambda head: head.startswith(LFS_POINTER),
        "a Git LFS pointer",
        PULL,
    ),
    (lambda head: b"<net " in head[:4096], "an OpenVINO model", _KERAS_ONLY),
    (lambda head: _WEB_PAGE.match(head) is not None, "a web page", _DOWNLOAD),
    (lambda head: head.lstrip()[:1] == b"<" and _is_text(head), "an XML document", _DOWNLOAD),
    (
        lambda head: re.match(rb"....ET\d\d", head, re.DOTALL) is not None,
        "a model of ExecuTorch",
        _KERAS_ONLY,
    ),
    (lambda head: head.startswith(b"GGUF"), "a GGUF file", _KERAS_ONLY),
    (_is_core_ml, "a Core ML model", _KERAS_ONLY),
    (
        lambda head: head.startswith(b"\x93NUMPY"),
        "a NumPy array",
        _ARRAYS,
    ),
    (lambda head: head[_TAR_POSITION:].startswith(_TAR), "a tar archive", _UNPACK),
)


def _is_text(head: bytes) -> bool:
    try:
        return head[:4096].decode("utf-8").isprintable() or b"\0" not in head[:4096]
    except UnicodeDecodeError:
        return False
