"""Sequence lengths and shapes of single inputs: ``--time-steps INPUT=N``, ``--input-shape``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from corpus.routes import in_this_process

import edgeattn as package
import models
from edgeattn.api.input_sizes import joined_lengths, parse_lengths, parse_shape
from edgeattn.bundle.lengths import bundles_by_length, length_folder
from edgeattn.cli import options
from edgeattn.errors import UsageError
from edgeattn_converters import ConversionOptions, ModelSource
from edgeattn_converters.lengths import lengths_by_key
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.reference.other_lengths import other_lengths
from edgeattn_converters.sweep.plan import ModelEntry
from edgeattn_converters.tracing.free_time import free_model
from edgeattn_converters.tracing.trace import interface_of
from edgeattn_converters.worker import early_checks

layers = keras.layers
ROWS = 5


def of_two_inputs() -> Any:
    """A model of words and their characters, whose lengths differ; the dates have one."""
    text = keras.Input((None, 2), name="text")
    chars = keras.Input((None, 3), name="chars")
    date = keras.Input((4,), name="date")
    convolved = layers.Conv1D(4, 3, padding="same")(chars)
    hidden = [layers.GRU(3)(text), layers.GlobalMaxPooling1D()(convolved), date]
    outputs = layers.Dense(2, name="y")(layers.Concatenate()(hidden))
    return models.filled(keras.Model([text, chars, date], outputs))


def of_images() -> Any:
    image = keras.Input((None, None, 3), name="image")
    hidden = layers.Conv2D(4, 3, padding="same", activation="relu")(image)
    each = layers.Conv2D(2, 1, name="each")(hidden)
    mean = layers.Dense(2, name="y")(layers.GlobalAveragePooling2D()(hidden))
    return models.filled(keras.Model(image, [each, mean]))


def inputs(lengths: dict[str, int], rows: int = ROWS) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    shapes = {"text": (lengths["text"], 2), "chars": (lengths["chars"], 3), "date": (4,)}
    return {
        name: generator.normal(size=(rows, *shape)).astype("float32")
        for name, shape in shapes.items()
    }


@pytest.fixture(scope="module")
def two_inputs() -> Any:
    return of_two_inputs()


@pytest.fixture(scope="module")
def folder(two_inputs: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sizes")
    two_inputs.save(path / "two.keras")
    of_images().save(path / "image.keras")
    return path


def check(path: Path, **sizes: Any) -> None:
    early_checks.check(audit_file(path), ModelSource(path, **sizes), ConversionOptions())


@pytest.mark.parametrize(
    ("lengths", "message", "hint"),
    [
        ({}, "Input 'text' has shape (free, free, 2)", "--time-steps text=N,chars=N "),
        ({"text": 5}, "Input 'chars' has shape", "--time-steps text=5,chars=N "),
        ({"tekst": 5, "chars": 4}, "no input with this name", "edgeattn inspect"),
        ({"text": 5, "chars": 4, "y": 3}, "its inputs are text, chars, date", "edgeattn inspect"),
        ({"text": 5, "chars": 4, "date": 3}, "date=3: the input has another fixed", "Omit"),
        ({"text": 5, "chars": 100_001}, "chars=100001 is not between", "one sequence"),
        ({"text": 5, "chars": 10_001}, "10001: a model with recurrent", "one sequence"),
    ],
)
def test_lengths_that_do_not_fit(
    folder: Path, lengths: dict[str, int], message: str, hint: str
) -> None:
    with pytest.raises(UsageError) as caught:
        check(folder / "two.keras", lengths=tuple(lengths.items()))
    assert message in caught.value.message
    assert hint in str(caught.value.hint)


def test_a_similar_name(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"Did you mean text\?"):
        check(folder / "two.keras", lengths=[("tekst", 5)])


def test_lengths_that_fit(folder: Path) -> None:
    for sizes in (
        {"time_steps": 5},
        {"lengths": [("text", 5), ("chars", 8)]},
        {"lengths": [("text", 5), ("chars", 8), ("date", 4)]},
        {"time_steps": 5, "lengths": [("chars", 8)]},
        {"shapes": [("text", (5, 2)), ("chars", (8, 3))]},
    ):
        check(folder / "two.keras", **sizes)


def test_samples_determine_the_lengths_that_no_option_names(folder: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", **inputs({"text": 5, "chars": 8}))
    check(folder / "two.keras", samples=tmp_path / "x.npz")
    check(folder / "two.keras", samples=tmp_path / "x.npz", lengths=[("text", 5)])
    with pytest.raises(UsageError, match="text"):
        check(folder / "two.keras", samples=tmp_path / "x.npz", lengths=[("text", 6)])


@pytest.mark.parametrize(
    ("sizes", "message", "hint"),
    [
        ({}, "(free, free, free, 3)", "--input-shape image=HxWx3 "),
        ({"time_steps": 8}, "(free, free, free, 3)", "--input-shape image=8xWx3 "),
        ({"shapes": [("image", (8, 6, 4))]}, "image=8x6x4: the input has another", "Omit"),
        ({"shapes": [("imag", (8, 6, 3))]}, "no input with this name", "edgeattn inspect"),
        ({"shapes": [("image", (8, 0, 3))]}, "8x0x3: 0 is not between", "one sequence"),
    ],
)
def test_shapes_that_do_not_fit(
    folder: Path, sizes: dict[str, Any], message: str, hint: str
) -> None:
    with pytest.raises(UsageError) as caught:
        check(folder / "image.keras", **sizes)
    assert message in caught.value.message
    assert hint in str(caught.value.hint)


def test_samples_determine_the_shape_of_images(folder: Path, tmp_path: Path) -> None:
    images = np.zeros((ROWS, 8, 6, 3), "float32")
    np.savez(tmp_path / "x.npz", image=images)
    np.savez(tmp_path / "labeled.npz", image=images, y=np.zeros((ROWS, 2)))
    np.savez(tmp_path / "named_x.npz", x=images, each=np.zeros((ROWS, 8, 6, 2)))
    np.save(tmp_path / "x.npy", images)
    for file in tmp_path.iterdir():
        check(folder / "image.keras", samples=file)


def test_lengths_as_text() -> None:
    assert parse_lengths("20") == 20
    assert parse_lengths("text=20,chars=8") == {"text": 20, "chars": 8}
    assert parse_shape("image=64x32x3") == ("image", (64, 32, 3))
    for text in ("text=", "=5", "text=5,text=6", "text=5,8", "0", "text=0", "5.5", ""):
        with pytest.raises(UsageError):
            parse_lengths(text)
    for text in ("64x64", "image=64x", "image=0x3", "=64"):
        with pytest.raises(UsageError):
            parse_shape(text)


def test_an_input_that_is_named_again_begins_the_next_bundle() -> None:
    once = [{"text": 5}, {"chars": 8}]
    assert joined_lengths(once) == ({"text": 5, "chars": 8},)
    assert joined_lengths([*once, *once]) == ({"text": 5, "chars": 8},) * 2
    assert joined_lengths([5, 6]) == (5, 6)
    with pytest.raises(UsageError, match="2 sequence lengths"):
        options._one_length(None, None, [5, 6])
    assert options._one_length(None, None, once) == {"text": 5, "chars": 8}
    with pytest.raises(UsageError, match="two shapes of image"):
        options._shapes(None, None, [("image", (3,)), ("image", (4,))])


def test_bundles_of_several_lengths(tmp_path: Path) -> None:
    lengths = lengths_by_key([{"text": 5, "chars": 8}, {"chars": 9, "text": 5}])
    assert lengths == {
        (5, 8): {"text": 5, "chars": 8},
        (5, 9): {"text": 5, "chars": 9},
    }
    for different in ([{"text": 5}, {"chars": 8}], [5, {"text": 5}]):
        with pytest.raises(UsageError, match="do not name the same inputs"):
            lengths_by_key(different)
    for steps in lengths:
        (tmp_path / length_folder(steps)).mkdir()
        (tmp_path / length_folder(steps) / "manifest.json").touch()
    assert [path.name for path in bundles_by_length(tmp_path).values()] == [
        "steps-5-8",
        "steps-5-9",
    ]


def test_sizes_in_the_plan_of_a_sweep() -> None:
    entry = ModelEntry("m.keras", time_steps="text=5,chars=8", input_shapes=("image=8x6x3",))
    assert entry.sizes() == {
        "time_steps": {"text": 5, "chars": 8},
        "input_shapes": {"image": (8, 6, 3)},
    }
    assert ModelEntry("m.keras", time_steps=7).sizes() == {"time_steps": 7}
    with pytest.raises(ValueError, match="text="):
        ModelEntry("m.keras", time_steps="text=")


@pytest.mark.long
def test_a_length_of_each_input(two_inputs: Any, folder: Path) -> None:
    """Bundles of two pairs of lengths, of which the shapes of a sample select one."""
    pairs = [{"text": 5, "chars": 8}, {"text": 5, "chars": 4}]
    with in_this_process():
        result = package.convert(folder / "two.keras", time_steps=pairs, schemes="float32")
    assert result.exit_code == 0
    assert {path.name for path in result.path.iterdir()} == {"steps-5-8", "steps-5-4"}
    for format in ("tflite", "onnx"):
        loaded = package.load(result.path, format=format)
        for lengths in pairs:
            x = inputs(lengths)
            expected = two_inputs([x["text"], x["chars"], x["date"]])
            for row in range(ROWS):
                sample = {name: values[row] for name, values in x.items()}
                np.testing.assert_allclose(loaded(sample)["y"][0], expected[row], atol=1e-5)
    with pytest.raises(package.SampleError, match=r"\(6, 3\), but the sequence lengths"):
        package.load(result.path, format="tflite")(
            {k: v[0] for k, v in inputs({"text": 5, "chars": 6}).items()}
        )


@pytest.mark.long
def test_tune_takes_the_lengths_of_its_data(
    two_inputs: Any, folder: Path, edgeattn: Callable[..., Any]
) -> None:
    x = inputs({"text": 5, "chars": 8}, rows=60)
    y = np.argmax(two_inputs([x["text"], x["chars"], x["date"]]), axis=-1)
    np.savez("data.npz", **x, y=y)
    limits = ("--scheme", "float32", "--format", "tflite", "--most", 1)
    with in_this_process():
        result = edgeattn("tune", folder / "two.keras", "--data", "data.npz", *limits)
    assert result.code in (0, 6), result.err  # passed, or too few samples to tell
    loaded = package.load(folder / "two.tuned.edge")
    sample = {name: values[0] for name, values in x.items()}
    expected = two_inputs([x["text"][:1], x["chars"][:1], x["date"][:1]])
    np.testing.assert_allclose(loaded(sample)["y"], expected, atol=1e-5)


def test_reference_of_images_of_other_sizes() -> None:
    """Height and width change in different ways, so that a file cannot mix them up."""
    model = of_images()
    interface = interface_of(model, time_steps={"image": (16, 12, 3)})
    free = free_model(model, interface)
    assert free is not None
    images = np.random.default_rng(0).normal(size=(ROWS, 16, 12, 3)).astype("float32")
    arrays = other_lengths(free, {"image": images}, attention=False, row_bytes=1)
    sizes = {"steps-8": (8, 24), "steps-17": (17, 13), "steps-32": (32, 6)}
    assert {name: array.shape[1:3] for name, array in arrays.items() if "image" in name} == {
        f"{steps}/input/image": size for steps, size in sizes.items()
    }
    for steps in sizes:
        each, mean = model(arrays[f"{steps}/input/image"])
        np.testing.assert_allclose(arrays[f"{steps}/output/each"], each, atol=1e-5)
        np.testing.assert_allclose(arrays[f"{steps}/output/y"], mean, atol=1e-5)
    grown = arrays["steps-17/input/image"][0]
    np.testing.assert_array_equal(grown[:16, :12], images[0])
    np.testing.assert_array_equal(grown[16, :12], images[1, 0])


def of_segmentation() -> Any:
    """A small U-Net, of which Keras computes sizes that are multiples of two only."""
    image = keras.Input((None, None, 3), name="image")
    fine = layers.Conv2D(4, 3, padding="same", activation="relu")(image)
    coarse = layers.BatchNormalization()(layers.Conv2D(6, 3, strides=2, padding="same")(fine))
    grown = layers.Conv2DTranspose(4, 2, strides=2, padding="same")(coarse)
    joined = layers.Concatenate()([fine, grown])
    each = layers.Conv2D(2, 3, padding="same", activation="sigmoid", name="each")(joined)
    return models.filled(keras.Model(image, each))


def of_upsampling() -> Any:
    """Keras 3.15 cannot trace UpSampling2D with free sizes, so the ONNX file has one size."""
    image = keras.Input((None, None, 3), name="image")
    grown = layers.UpSampling2D(interpolation="bilinear")(layers.MaxPooling2D()(image))
    each = layers.Conv2D(2, 3, padding="same", name="each")(grown)
    return models.filled(keras.Model(image, each))


@pytest.mark.long
@pytest.mark.parametrize(
    ("build", "any_size"), [(of_images, True), (of_segmentation, True), (of_upsampling, False)]
)
def test_images_of_any_size(build: Callable[[], Any], any_size: bool, tmp_path: Path) -> None:
    model = build()
    with in_this_process():
        result = package.convert(
            model, tmp_path / "m.edge", input_shapes={"image": (16, 12, 3)}, schemes="float32"
        )
    assert result.exit_code == 0
    [onnx_file] = [item for item in result.bundle.manifest.artifacts if item.format == "onnx"]
    assert ("free axes" in onnx_file.achieved.get("fixed_length", "")) != any_size
    tflite, onnx = (package.load(result.path, format=name) for name in ("tflite", "onnx"))
    for shape in ((16, 12, 3), (6, 20, 3), (4, 4, 3)):
        image = np.random.default_rng(1).normal(size=shape).astype("float32")
        expected = model(image[None])
        expected = expected if isinstance(expected, list) else [expected]
        for run in (tflite, onnx):
            if shape == (16, 12, 3) or (run is onnx and any_size):
                np.testing.assert_allclose(run(image)["each"], expected[0], atol=1e-5)
            else:
                with pytest.raises(package.SampleError):
                    run(image)
