"""Every command that takes a bundle names what else it was given."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import numpy as np
import pytest

from edgeattn.cli.commands import COMMANDS, load_command

# What each command requires beside BUNDLE.
OTHER_ARGUMENTS = {
    "bench": [],
    "deploy": ["user@host"],
    "fleet mender-artifact": ["--artifact-name", "one", "--device-type", "board"],
    "pack": [],
    "run": ["--input", "x.npy"],
    "serve": [],
    "sign": ["--key", "key"],
    "validate": [],
}


def commands_of_bundles() -> Iterator[str]:
    """The commands, and those in groups, that have an argument BUNDLE."""
    for name in COMMANDS:
        command = load_command(name)
        inner = command.commands if isinstance(command, click.Group) else {"": command}
        for second, item in inner.items():
            if any(isinstance(p, click.Argument) and p.name == "bundle" for p in item.params):
                yield f"{name} {second}".strip()


def test_all_commands_are_tested() -> None:
    assert set(commands_of_bundles()) == set(OTHER_ARGUMENTS)


def zipped(*names: str, compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", compression) as archive:
        for name in names:
            archive.writestr(name, "{}" * 100)
    return content.getvalue()


def npz() -> bytes:
    content = io.BytesIO()
    np.savez_compressed(content, x=np.zeros(100))
    return content.getvalue()


KERAS = ("config.json", "metadata.json", "model.weights.h5")
# Path of a file in the current folder, its content, the path that is passed, words of the message
# and of what to do.
GIVEN = [
    ("m.h5", b"\x89HDF\r\n\x1a\n" + bytes(16), "m.h5", "Keras model", "edgeattn convert m.h5"),
    ("m.keras", zipped(*KERAS), "m.keras", "Keras model", "edgeattn convert m.keras"),
    (
        "stored.keras",
        zipped(*KERAS, compression=zipfile.ZIP_STORED),
        "stored.keras",
        "Keras model",
        "edgeattn convert stored.keras",
    ),
    ("saved/saved_model.pb", b"\x08\x01", "saved", "Keras model", "edgeattn convert saved"),
    ("m.tflite", b"\x1c\0\0\0TFL3" + bytes(64), "m.tflite", "m.tflite is", ""),
    ("m.onnx", b"\x08\x09\x12\x07tf2onnx" + bytes(64), "m.onnx", "m.onnx is", ""),
    ("m.pt", zipped("m/data.pkl", "m/version"), "m.pt", "PyTorch file", "torch.onnx.export"),
    ("old.pt", b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "old.pt", "PyTorch file", "torch"),
    ("x.npz", npz(), "x.npz", "file of samples", "edgeattn run BUNDLE --input x.npz"),
    ("s.zip", zipped("x.npz", "y.npz"), "s.zip", "archive of samples", "Unpack it"),
    ("m.zip", zipped("a/m.keras"), "m.zip", "contains a model", "Unpack it"),
    ("e.zip", zipped("m.edge/manifest.json"), "e.zip", "in the folder m.edge", "Unpack it"),
    ("other.zip", zipped("a.txt"), "other.zip", "not a packed bundle", "edgeattn pack"),
    ("folder/a.txt", b"a", "folder", "the folder folder has no manifest.json", "convert"),
    ("outer/m.edge/manifest.json", b"{}", "outer", "Not a bundle", "in it: outer/m.edge"),
    ("models/m.keras", b"PK", "models", "Not a bundle", "edgeattn convert models/m.keras"),
    ("a.txt", b"a", "a.txt", "Not a bundle", "edgeattn convert"),
    ("empty", b"", "empty", "Not a bundle", "edgeattn convert"),
]


@pytest.mark.parametrize("name", OTHER_ARGUMENTS)
def test_what_is_no_bundle_is_named(edgeattn: Callable, name: str, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((1, 2), "float32"))
    for file, content, passed, message, hint in GIVEN:
        path = tmp_path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        result = edgeattn(*name.split(), passed, *OTHER_ARGUMENTS[name])
        error, following = result.err.splitlines()
        assert (result.code, result.out) == (2, ""), passed
        assert message in error, passed
        assert hint in following, passed


def test_inspect_of_an_archive_of_samples(edgeattn: Callable, tmp_path: Path) -> None:
    """It was refused because the samples might be pickles."""
    (tmp_path / "s.zip").write_bytes(zipped("x.npz", "y.npz"))
    result = edgeattn("inspect", "s.zip")
    assert result.code == 3
    assert "s.zip is an archive of samples, not a model: x.npz" in result.err
    assert "--samples" in result.err


@pytest.mark.parametrize(
    ("files", "message", "commands"),
    [
        (["m.edge/manifest.json"], "1 bundle (m.edge)", "it: edgeattn inspect all/m.edge"),
        (
            ["b.edge/manifest.json", "a.edge/manifest.json", "m.keras", "notes.txt"],
            "2 bundles (a.edge, b.edge) and 1 model (m.keras)",
            "one: edgeattn inspect all/a.edge, edgeattn inspect all/b.edge or edgeattn inspect "
            "all/m.keras",
        ),
        (
            ["saved/saved_model.pb", "m.tflite", "m.onnx", "m.edge.zip"],
            "1 bundle (m.edge.zip) and 3 models (m.onnx, m.tflite, saved)",
            "edgeattn inspect all/m.edge.zip",
        ),
        (
            ["steps-5/manifest.json", "steps-20/manifest.json"],
            "no bundle (a bundle for each sequence length). It contains 2 bundles",
            "edgeattn inspect all/steps-20",
        ),
        (["m.edge/steps-5/manifest.json"], "1 bundle (m.edge)", "inspect all/m.edge"),
    ],
)
def test_inspect_of_a_folder_of_bundles_and_models(
    edgeattn: Callable, tmp_path: Path, files: list[str], message: str, commands: str
) -> None:
    for name in files:
        (tmp_path / "all" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "all" / name).touch()
    result = edgeattn("inspect", "all")
    error, following = result.err.splitlines()
    assert (result.code, result.out) == (2, "")
    assert message in error
    assert commands in following
