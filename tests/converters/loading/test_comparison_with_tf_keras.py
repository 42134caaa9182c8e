"""Programs and classes for Keras 2 are compared with the same text in tf_keras while they load."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tf_keras
from long_parameters import only

from edgeattn.errors import UnsupportedModelError
from edgeattn_converters.loading import load as loading
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model
from edgeattn_converters.loading.with_tf_keras import (
    graph_of_tf_keras,
    tf_keras_process,
    tf_keras_samples,
    tf_keras_worker,
)

pytestmark = pytest.mark.compared
# Imports under the names of several versions of Keras 2.
IMPORTS = """
import keras
import tensorflow as tf
from keras import backend as K
from keras.engine.topology import Layer
from keras.layers import Dense, Embedding, Input
from keras.layers.recurrent import LSTM
from tensorflow.keras.layers import Concatenate
from tensorflow.python.keras.layers import Activation
from keras.models import Model
"""
CLASS = """
class Pooled(Layer):
    def build(self, shape):
        self.score = self.add_weight(
            name="score", shape=(shape[-1], 1), initializer="uniform")
        super().build(shape)

    def call(self, x, mask=None):
        weights = K.squeeze(K.dot(x, self.score), -1)
        if mask is not None:
            weights -= 1e9 * (1 - K.cast(mask, "float32"))
        return K.sum(x * K.expand_dims(K.softmax(weights)), axis=1)

    def compute_mask(self, x, mask=None):
        return None

    def compute_output_shape(self, shape):
        return shape[0], shape[-1]
"""
FUNCTION = """
def build():
    words = Input((6,), name="words")
    x = LSTM(4, return_sequences=True)(Embedding(9, 3, mask_zero=True)(words))
    return Model(words, Activation("tanh")(Dense(2)(Pooled()(x))))
"""


def write(text: str, folder: Path, save: Callable[[Any], None], name: str = "build") -> Path:
    """Run a program with tf_keras, let ``save`` its model, and return the file of the program."""
    own = re.sub(r"keras\.engine(\.topology)?", "keras.layers", text).replace("CuDNN", "")
    own = re.sub(r"layers\.(recurrent|normalization|cudnn_recurrent)", "layers", own)
    own = own.replace("tensorflow.python.keras", "tf_keras").replace("tensorflow.keras", "tf_keras")
    own = own.replace("from keras", "from tf_keras").replace("import keras", "import tf_keras")
    names: dict[str, Any] = {"__name__": "own", "keras": tf_keras}
    exec(own, names)
    model = names[name]()
    generator = np.random.default_rng(17)
    values = [generator.normal(0, 0.5, value.shape) for value in model.get_weights()]
    of_variances = ["variance" in weight.name for weight in model.weights]
    model.set_weights([x**2 if of else x for of, x in zip(of_variances, values, strict=True)])
    save(model)
    (folder / "own.py").write_text(text)
    return folder / "own.py"


def saved_by(version: str, path: Path) -> None:
    with h5py.File(path, "a") as file:
        for group in (file, file.get("model_weights", file)):
            group.attrs["keras_version"] = version


def of_tf_keras(notes: tuple[str, ...]) -> list[str]:
    # Without those on the version that saved the file.
    own = ("The weights were saved by", "Your own layers")
    return [note for note in notes if "tf_keras" in note and not note.startswith(own)]


@pytest.fixture(autouse=True)
def only_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """The graph of tf_keras does not replace a model that is refused here."""
    monkeypatch.setattr(graph_of_tf_keras, "load_graph", lambda *_: None)


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Lets the loader change the last bias of a model."""
    load = loading._load

    def load_wrongly(*arguments: Any) -> Any:
        loaded = load(*arguments)
        bias = loaded.model.weights[-1]
        bias.assign(bias + load_wrongly.change)
        return loaded

    def change(value: float) -> None:
        load_wrongly.change = value
        monkeypatch.setattr(loading, "_load", load_wrongly)

    return change


@pytest.mark.parametrize("kind", only(["program", "classes"], "program"))
def test_a_model_that_is_loaded_wrongly_is_refused(
    kind: str, tmp_path: Path, faulty: Callable[[float], None]
) -> None:
    path = tmp_path / "m.h5"
    of_program = kind == "program"
    program = write(
        IMPORTS + CLASS + FUNCTION,
        tmp_path,
        lambda model: model.save_weights(path) if of_program else model.save(path),
    )
    options: dict[str, Any] = (
        {"architecture": f"{program}:build"} if of_program else {"custom_objects": program}
    )
    assert not of_tf_keras(load_model(audit_file(path), **options).notes)
    faulty(1.0)
    with pytest.raises(UnsupportedModelError) as caught:
        load_model(audit_file(path), **options)
    assert caught.value.exit_code == 3
    what = "runs the same program" if of_program else "loads the same file with the same classes"
    assert f"m.h5 would be loaded wrongly: tf_keras {tf_keras.__version__} {what}" in str(
        caught.value
    )
    assert "and saved the file" in str(caught.value)


@pytest.mark.long
def test_a_version_without_changes_does_not_explain_a_difference(
    tmp_path: Path, faulty: Callable[[float], None]
) -> None:
    path = tmp_path / "m.h5"
    program = write(IMPORTS + CLASS + FUNCTION, tmp_path, lambda model: model.save(path))
    saved_by("2.14.0", path)
    assert not of_tf_keras(load_model(audit_file(path), custom_objects=program).notes)
    faulty(1.0)
    with pytest.raises(UnsupportedModelError, match="no change of edgeattn explains that"):
        load_model(audit_file(path), custom_objects=program)
    faulty(5e-4)
    [note] = of_tf_keras(load_model(audit_file(path), custom_objects=program).notes)
    assert "computes different outputs (max error 6.4e-04" in note


@pytest.mark.long
def test_why_tf_keras_computed_nothing_is_reported(tmp_path: Path) -> None:
    """tf_keras does not have ``keras.ops``, so nothing was verified."""
    path = tmp_path / "m.h5"
    program = write(IMPORTS + CLASS + FUNCTION, tmp_path, lambda model: model.save_weights(path))
    text = program.read_text().replace("Model(words", "keras.ops.zeros((1,)); return Model(words")
    program.write_text(text.replace("return keras.ops", "keras.ops"))
    [note] = of_tf_keras(load_model(audit_file(path), architecture=f"{program}:build").notes)
    line = next(k for k, x in enumerate(text.splitlines(), 1) if "keras.ops" in x)
    assert note == (
        f"The model was not compared with tf_keras {tf_keras.__version__}: AttributeError: module "
        f"'tf_keras' has no attribute 'ops' (own.py, line {line})."
    )


@pytest.mark.long
@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import os; os._exit(3)", "its process ended with exit status 3"),
        ("raise SystemExit(4)", "its process ended with exit status"),
        ("import time; time.sleep(60)", "its process took longer than 9 s"),
        ("import numpy as np; np.ones(1 << 33)", "MemoryError: Unable to allocate 64.0 GiB"),
    ],
)
def test_programs_that_do_not_end_in_tf_keras(
    code: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.h5"
    program = write(IMPORTS + CLASS + FUNCTION, tmp_path, lambda model: model.save_weights(path))
    start = f"def build():\n    if keras.__name__ == 'tf_keras':\n        {code}\n"
    program.write_text(program.read_text().replace("def build():\n", start))
    if "sleep" in code:
        monkeypatch.setattr(tf_keras_process, "SECONDS", 9)
    [note] = of_tf_keras(load_model(audit_file(path), architecture=f"{program}:build").notes)
    assert note.startswith("The model was not compared with tf_keras")
    assert reason in note


@pytest.mark.compared
def test_a_file_without_a_version_that_was_not_compared_has_a_note(tmp_path: Path) -> None:
    path = tmp_path / "m.weights.h5"
    program = write(IMPORTS + GATES, tmp_path, lambda model: model.save_weights(path))
    start = "def build():\n    if keras.__name__ == 'tf_keras':\n        raise ValueError('no')\n"
    program.write_text(program.read_text().replace("def build():\n", start))
    [note] = of_tf_keras(load_model(audit_file(path), architecture=f"{program}:build").notes)
    assert "ValueError: no" in note
    assert note.endswith("may be wrong if Keras 2 or tf_keras saved it.")


PADDING = """
class Padding(Layer):
    def __init__(self, value=-3.0, **kwargs):
        super().__init__(**kwargs)
        self.value = value
        self.supports_masking = True

    def compute_mask(self, x, mask=None):
        return tf.reduce_any(tf.not_equal(x, VALUE), axis=-1)

    def call(self, x):
        return x

def build():
    a, b = Input((5, 3)), Input((5, 3))
    both = keras.layers.Add()([Padding()(a), Padding()(b)])
    return Model([a, b], LSTM(4)(both))
"""


@pytest.mark.long
@pytest.mark.parametrize(
    "value", [pytest.param("self.value", marks=pytest.mark.compared),
              pytest.param("-3.0", marks=pytest.mark.long)]
)  # fmt: skip
def test_samples_have_the_padding_of_classes_of_the_user(value: str, tmp_path: Path) -> None:
    """The sum is masked in other steps in Keras 3, which only samples with this padding show."""
    path = tmp_path / "m.weights.h5"
    text = IMPORTS + PADDING.replace("VALUE", value)
    program = write(text, tmp_path, lambda model: model.save_weights(path))
    with pytest.raises(UnsupportedModelError, match="does not contain its Keras version"):
        load_model(audit_file(path), architecture=f"{program}:build")


GATES = """
def build():
    steps = Input((5, 3))
    return Model(steps, Dense(2)(LSTM(4)(steps)))
"""


SMALL = """
def build():
    x = Input((5,))
    y = keras.layers.Rescaling(0.02)(Dense(4)(x))
    return Model(x, keras.layers.Activation("hard_sigmoid")(y))
"""


@pytest.mark.compared
def test_a_small_difference_of_a_file_without_a_version_is_refused(tmp_path: Path) -> None:
    """By 0.2 x + 0.5 in place of x / 6 + 0.5 for x near zero."""
    path = tmp_path / "m.weights.h5"
    program = write(IMPORTS + SMALL, tmp_path, lambda model: model.save_weights(path))
    with pytest.raises(UnsupportedModelError, match=r"max error [2-9]\.\de-03 of the largest"):
        load_model(audit_file(path), architecture=f"{program}:build")


@pytest.mark.long
def test_the_version_of_the_weights_explains_a_difference(tmp_path: Path) -> None:
    """LSTM had other gates before Keras 2.3."""
    path = tmp_path / "m.h5"
    program = write(IMPORTS + GATES, tmp_path, lambda model: model.save_weights(path))
    saved_by("2.1.5", path)
    [note] = of_tf_keras(load_model(audit_file(path), architecture=f"{program}:build").notes)
    assert "runs the same program and computes different outputs" in note
    assert note.endswith(
        "only because it does not make the changes listed here, which are those of Keras 2.1.5."
    )


INTERFACES = """
def pair():
    q, k = Input((5, 3), name="z"), Input((5, 3), name="a")
    x = Pooled()(Concatenate()([q, 2 * k]))
    return Model({"z": q, "a": k}, {"second": Dense(2)(x), "first": Dense(3)(x)})

def stateful():
    steps = Input(batch_shape=(3, 5, 3))
    return Model(steps, Dense(2)(LSTM(4, stateful=True)(steps)))

class Net(Model):
    def __init__(self):
        super().__init__()
        self.pool, self.dense = Pooled(), Dense(2)

    def call(self, left, right):
        return self.dense(self.pool(left * 2 + right)), self.dense(self.pool(right))

def subclass():
    model = Net()
    model(tf.ones((1, 5, 3)), right=tf.ones((1, 5, 3)))
    return model

def former():
    from keras.engine import InputSpec
    from keras.engine import Layer as Base
    from keras.layers.normalization import BatchNormalization
    from keras.layers.cudnn_recurrent import CuDNNGRU

    class Halved(Base):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.input_spec = InputSpec(ndim=2)

        def call(self, x):
            return 0.5 * x

    steps = Input((5, 3))
    x = keras.layers.CuDNNLSTM(4, return_sequences=True)(BatchNormalization()(steps))
    return Model(steps, Dense(2)(Halved()(CuDNNGRU(3)(x))))

def free():
    steps = Input((None, 3))
    return Model(steps, Dense(2)(Pooled()(steps)))
"""


@pytest.mark.long
@pytest.mark.parametrize("name", ["pair", "stateful", "subclass", "former", "free"])
@pytest.mark.parametrize("suffix", [".h5", ".weights.h5"])
def test_models_with_other_interfaces_are_compared(
    name: str, suffix: str, tmp_path: Path, faulty: Callable[[float], None]
) -> None:
    path = tmp_path / f"m{suffix}"
    program = write(IMPORTS + CLASS + INTERFACES, tmp_path, lambda m: m.save_weights(path), name)
    samples = tmp_path / "samples.npz"
    generator = np.random.default_rng(5)
    np.savez(samples, **{k: generator.normal(size=(4, 5, 3)) for k in ("left", "right")})
    options: dict[str, Any] = {"architecture": f"{program}:{name}", "time_steps": 5}
    if name == "subclass":
        options["samples"] = samples
    before = of_tf_keras(load_model(audit_file(path), **options).notes)
    assert not [note for note in before if "compare" in note or "different" in note]
    faulty(1.0)
    # Weights of a class are in groups of tf_keras; others may be those of Keras 3.
    known = suffix == ".h5" or name == "subclass"
    message = "would be loaded wrongly" if known else "does not contain its Keras version"
    with pytest.raises(UnsupportedModelError, match=message):
        load_model(audit_file(path), **options)


def test_nothing_that_is_stored_in_a_file_runs(tmp_path: Path) -> None:
    from tf_keras.src.saving import serialization_lib

    x = tf_keras.Input((3,))
    model = tf_keras.Model(x, tf_keras.layers.Lambda(lambda value: value + 1)(x))
    model.save(tmp_path / "m.h5")
    config = model.to_json()
    for text in (None, config):
        with (
            pytest.raises(Exception, match="whose stored code is not run"),
            tf_keras_worker._nothing_stored_runs(),
        ):
            tf_keras_worker._stored(text, tmp_path / "m.h5", {})
    own = {"module": "antigravity", "class_name": "Own", "config": {}, "registered_name": "Own"}
    with (
        pytest.raises(Exception, match="the file names the module antigravity"),
        tf_keras_worker._nothing_stored_runs(),
    ):
        serialization_lib.deserialize_keras_object(own)


@pytest.mark.long
def test_an_architecture_in_a_file_of_its_own_is_compared(
    tmp_path: Path, faulty: Callable[[float], None]
) -> None:
    path, architecture = tmp_path / "m.h5", tmp_path / "m.json"

    def save(model: Any) -> None:
        model.save_weights(path)
        architecture.write_text(model.to_json())

    program = write(IMPORTS + CLASS + FUNCTION, tmp_path, save)
    options: dict[str, Any] = {"architecture": str(architecture), "custom_objects": program}
    assert not of_tf_keras(load_model(audit_file(path), **options).notes)
    faulty(1.0)
    with pytest.raises(UnsupportedModelError, match="loads the same file with the same classes"):
        load_model(audit_file(path), **options)
    write(IMPORTS + GATES, tmp_path, save)
    with pytest.raises(UnsupportedModelError, match="loads the same file and computes different"):
        load_model(audit_file(path), architecture=str(architecture))


@pytest.mark.long
def test_samples_of_the_user_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The generated samples contain no word that the fault concerns."""
    path, samples = tmp_path / "m.h5", tmp_path / "samples.npz"
    program = write(IMPORTS + CLASS + FUNCTION, tmp_path, lambda model: model.save_weights(path))
    np.savez(samples, x=np.full((2, 6), 8))
    generated = tf_keras_samples.padded_groups

    def few_words(*arguments: Any) -> Any:
        return [[array % 4 for array in group] for group in generated(*arguments)]

    monkeypatch.setattr(tf_keras_samples, "padded_groups", few_words)
    load = loading._load

    def load_wrongly(*arguments: Any) -> Any:
        loaded = load(*arguments)
        words = loaded.model.weights[0]
        words.assign(np.where(np.arange(9)[:, None] == 8, 1.0, words))
        return loaded

    monkeypatch.setattr(loading, "_load", load_wrongly)
    options: dict[str, Any] = {"architecture": f"{program}:build"}
    assert not of_tf_keras(load_model(audit_file(path), **options).notes)
    with pytest.raises(UnsupportedModelError, match="would be loaded wrongly"):
        load_model(audit_file(path), **options, samples=samples)


ONE_SAMPLE = """
def build():
    steps = Input((5, 3))
    alone = Activation(lambda x: tf.reshape(x, (1, 5, 4)))(LSTM(4, return_sequences=True)(steps))
    return Model(steps, Dense(2)(alone))
"""


@pytest.mark.long
def test_models_of_one_sample_are_compared(tmp_path: Path, faulty: Callable[[float], None]) -> None:
    """Programs may reshape to the batch of one with which they build a model for inference."""
    path, samples = tmp_path / "m.h5", tmp_path / "samples.npz"
    text = IMPORTS + ONE_SAMPLE
    program = write(text, tmp_path, lambda model: model.save_weights(path))
    np.savez(samples, x=np.ones((2, 5, 3), "float32"))
    options: dict[str, Any] = {"architecture": f"{program}:build", "samples": samples}
    assert not of_tf_keras(load_model(audit_file(path), **options).notes)
    faulty(1.0)
    with pytest.raises(UnsupportedModelError, match="would be loaded wrongly"):
        load_model(audit_file(path), **options)


@pytest.mark.long
def test_outputs_that_are_no_numbers_verify_nothing(
    tmp_path: Path, faulty: Callable[[float], None]
) -> None:
    path = tmp_path / "m.h5"
    text = IMPORTS + GATES.replace("Dense(2)(", "Dense(2)(tf.math.log(-1.0) * ")
    program = write(text, tmp_path, lambda model: model.save_weights(path))
    [note] = of_tf_keras(load_model(audit_file(path), architecture=f"{program}:build").notes)
    assert note == (
        f"The output 'dense' was not compared with tf_keras {tf_keras.__version__}: there are "
        "values that are NaN or infinite for all samples."
    )


LOGARITHM = """
def build():
    steps = Input((5, 3))
    undefined = Activation(lambda x: tf.math.log(-1 - x * x), name="undefined")(steps)
    x = LSTM(4)(Activation(tf.math.log)(steps))
    return Model(steps, [undefined, Dense(2)(x)])
"""


@pytest.mark.long
@pytest.mark.parametrize("suffix", [".h5", ".weights.h5"])
def test_other_outputs_are_compared_with_numbers_for_which_they_are_defined(
    suffix: str, tmp_path: Path, faulty: Callable[[float], None]
) -> None:
    path = tmp_path / f"m{suffix}"
    program = write(IMPORTS + LOGARITHM, tmp_path, lambda model: model.save_weights(path))
    notes = load_model(audit_file(path), architecture=f"{program}:build").notes
    [note] = of_tf_keras(notes)
    assert "The output 'undefined' was not compared" in note
    assert note.endswith("saved it.") == (suffix == ".weights.h5")
    faulty(1.0)
    message = "would be loaded wrongly" if suffix == ".h5" else "does not contain its Keras version"
    with pytest.raises(UnsupportedModelError, match=message):
        load_model(audit_file(path), architecture=f"{program}:build")


TABLE = """
def build():
    steps = Input((6, 4))
    table = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], "float32")
    x = tf.nn.embedding_lookup(table, tf.cast(steps > 0, "int32"))
    return Model(steps, Dense(2)(Pooled()(tf.reshape(x, (-1, 6, 8)))))
"""


@pytest.mark.long
def test_constants_that_tf_keras_loads_in_another_shape(
    tmp_path: Path, faulty: Callable[[float], None]
) -> None:
    path = tmp_path / "m.h5"
    text = "import numpy as np" + IMPORTS + CLASS + TABLE
    program = write(text, tmp_path, lambda model: model.save(path))
    assert not of_tf_keras(load_model(audit_file(path), custom_objects=program).notes)
    faulty(1.0)
    with pytest.raises(UnsupportedModelError, match="would be loaded wrongly"):
        load_model(audit_file(path), custom_objects=program)
