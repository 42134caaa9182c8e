"""Layers of the user's own classes, and the error for classes that nobody defines."""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeattn_converters.loading.config_inspection import (
    Config,
    abbreviated,
    is_model,
    layer_name,
    python_name,
    registered_name,
    unqualified,
)
from edgeattn_converters.loading.migrate import attention_package, keras2, same_names
from edgeattn_converters.loading.migrate.context import (
    Context,
    Missing,
    missing_error,
    registered_layer,
    safe_name,
)
from edgeattn_converters.loading.own_code import local_packages, own_functions
from edgeattn_converters.loading.own_code.custom_objects import (
    accepts_keywords,
    parameters,
)
from edgeattn_converters.loading.own_code.own_classes import is_of_library
from edgeattn_converters.loading.safety.allowed_classes import (
    LAYERS,
    is_keras_module,
    is_operation_module,
)

# Wrappers for training, with the functions of their package that load and remove them.
_STRIPPED = {
    "PruneLowMagnitude": ("sparsity.keras.prune_scope", "sparsity.keras.strip_pruning"),
    "ClusterWeights": ("clustering.keras.cluster_scope", "clustering.keras.strip_clustering"),
}
BASE = "Layer"  # the class of all layers
# Packages that define layers, with the names under which they are installed.
_PACKAGES = {
    "keras_hub": "keras-hub",
    "keras_nlp": "keras-nlp",
    "keras_cv": "keras-cv",
    "tensorflow_addons": "tensorflow-addons",
    "tensorflow_probability": "tensorflow-probability",
    "keras_multi_head": "keras-multi-head",
    "keras_self_attention": "keras-self-attention",
}
# A module of the user may have this name too.
_INSTALLED_AS = {**_PACKAGES, "tcn": "keras-tcn"}
# Classes of packages that .h5 files store without a module: the package, and arguments of the
# class. Other classes may have these names, but not these arguments, too.
_CLASSES_OF_PACKAGES = {
    "MultiHead": ("keras_multi_head", {"layers", "reg_index", "reg_slice", "reg_factor"}),
    "SeqSelfAttention": ("keras_self_attention", {"attention_width", "attention_activation"}),
    "SeqWeightedAttention": ("keras_self_attention", {"use_bias", "return_attention"}),
    "TCN": ("tcn", {"nb_filters", "nb_stacks", "dilations", "use_skip_connections"}),
}
# Modules of classes that a notebook or a program defines itself.
_UNNAMED = ("", "builtins", "__main__")
_REGISTERED_PREFIXES = {"Addons": "tensorflow_addons"}
# Arguments of the base class Layer, of any Keras version.
LAYER_ARGUMENTS = frozenset(
    {"name", "trainable", "dtype", "batch_input_shape", "batch_shape", "dynamic",
     "activity_regularizer", "input_dtype", "input_shape", "autocast"}
)  # fmt: skip


def is_from_keras(item: Config) -> bool:
    """Return whether the file contains a Keras module as the module of the layer."""
    module = item.get("module")
    return isinstance(module, str) and is_keras_module(module)


def is_unknown(item: Config) -> bool:
    """Return whether the class of a layer is not one of Keras, which may have its name."""
    registered = item.get("registered_name")
    custom = isinstance(registered, str) and ">" in registered
    foreign = item.get("module") is not None and not is_from_keras(item)
    class_name = str(item.get("class_name"))
    if class_name not in LAYERS or custom or foreign:
        return True
    config = item.get("config") or {}
    # The class of all layers has no other arguments.
    is_own = class_name == BASE and not set(config) <= LAYER_ARGUMENTS
    return not is_from_keras(item) and (is_own or bool(same_names.lacking(class_name, config)))


def is_custom(item: Config, ctx: Context) -> bool:
    """Return whether the class of a layer is defined in the user's file, see :func:`is_own`."""
    return is_own(item, ctx.custom_objects)


def is_own(item: Config, objects: Mapping[str, Any]) -> bool:
    """Return whether the class of a layer is one of ``objects``, those in the user's file.

    If Keras has a class of that name too, the stored arguments decide: the layer is the user's if
    its constructor accepts all of them.
    """
    class_name = str(item.get("class_name"))
    custom = objects.get(unqualified(class_name))
    if not inspect.isclass(custom) or is_from_keras(item):
        return False
    if class_name not in LAYERS or ">" in class_name or item.get("module") is not None:
        return True
    return set(item.get("config") or {}) - LAYER_ARGUMENTS <= parameters(custom)


def with_own_names(stored: Config, objects: Mapping[str, Any]) -> Config:
    """Return a stored model in which a class of the user has no name of a class of Keras.

    ``objects`` are those of the user. Each of their classes, also inside wrappers, gets the name
    under which Keras finds it, ``"edgeattn_user>Embedding"``. A class that derives from the class
    of Keras with its name keeps that name, because it is stored and migrated like it.
    """
    if not any(inspect.isclass(item) for item in objects.values()):
        return stored
    return _with_own_name(stored, objects)


def _with_own_name(item: Config, objects: Mapping[str, Any]) -> Config:
    config = item.get("config")
    if isinstance(config, list):  # a Sequential of Keras 1
        return {**item, "config": [_with_own_name(layer, objects) for layer in config]}
    if not is_model(item) and is_own(item, objects) and _may_be_own(item, objects):
        return {**item, "class_name": own_name(item, objects)}
    if not isinstance(config, Mapping):
        return item
    inner: dict[str, Any] = {
        key: _with_own_name(config[key], objects)
        for key in ("layer", "backward_layer", "forward_layer", "cell")
        if is_layer(config.get(key))
    }
    for key in ("cells", "layers"):
        items = config.get(key)
        if isinstance(items, list) and all(map(is_layer, items)):
            inner[key] = [_with_own_name(layer, objects) for layer in items]
    return {**item, "config": {**config, **inner}} if inner else item


def is_layer(value: Any) -> bool:
    """Return whether a value in a config is that of a layer."""
    return isinstance(value, Mapping) and "class_name" in value


def own_name(item: Config, objects: Mapping[str, Any]) -> str:
    """Return the name of a class of the user in a config, see :func:`with_own_names`."""
    class_name = str(item.get("class_name"))
    name = unqualified(class_name)
    parents = inspect.getmro(objects[name])
    if any(
        cls.__name__ == python_name(name) and is_keras_module(cls.__module__) for cls in parents
    ):
        return class_name
    return registered_name(class_name)


def may_be_custom(item: Config, ctx: Context) -> bool:
    """Return whether the user's file has the class of an item, which is no operation of Keras.

    A ``.keras`` file stores the module of an operation. An ``.h5`` file does not; the arguments
    decide unless the item is trainable, as layers are.
    """
    return _may_be_own(item, ctx.custom_objects)


def _may_be_own(item: Config, objects: Mapping[str, Any]) -> bool:
    name = unqualified(str(item.get("class_name")))
    custom, module = objects.get(name), item.get("module")
    if custom is None or isinstance(module, str):
        return custom is not None and not is_operation_module(str(module))
    config = item.get("config") or {}
    if "trainable" in config or not inspect.isclass(custom):
        return True
    return set(config) - LAYER_ARGUMENTS <= parameters(custom)


def migrate(item: Config, ctx: Context) -> dict[str, Any]:
    """Return the layer with the registered name of the user's class.

    Raises :class:`UnsupportedModelError` if the user's file does not define the class.
    """
    class_name = str(item.get("class_name"))
    if unqualified(class_name) not in ctx.custom_objects:
        # Layers of unknown classes are not migrated, so this is the whole model.
        raise missing_error([missing_class(item, owner="The model", script=ctx.script)])
    own_functions.check_names(item.get("config") or {}, ctx.custom_objects)
    custom = ctx.custom_objects[unqualified(class_name)]
    config = {
        name: value
        for name, value in (item.get("config") or {}).items()
        if name not in ("batch_input_shape", "dynamic", "input_dtype")
    }
    if ctx.major < 3 and isinstance(config.get("dtype"), dict):
        config["dtype"] = (config["dtype"].get("config") or {}).get("name", "float32")
    name = config.get("name") or item.get("name")
    if isinstance(name, str):
        if not config.get("name"):
            ctx.unnamed.add(safe_name(name))
        config["name"] = safe_name(name)
    if ctx.major < 3 and inspect.isclass(custom):
        config = _with_arguments_of_keras_3(custom, config, ctx)
    layer = registered_layer(registered_name(class_name), config)
    if inspect.isclass(custom):
        own = own_name(item, ctx.custom_objects)
        # Not the name of a class of Keras, unless it derives from that.
        layer["class_name"] = own if own == registered_name(class_name) else unqualified(own)
    build = item.get("build_config")
    if isinstance(build, dict) and "input_shape" in build and ctx.major < 3:
        build = {**build, "input_shape": _as_in_keras_2(build["input_shape"])}
    return {**layer, "build_config": build} if build else layer


def _as_in_keras_2(shape: Any) -> Any:
    """Return a stored shape, or several, as ``build`` gets it: only several are a list.

    Follows ``Layer.build_from_config`` of Keras 2 with ``convert_shapes``.
    """
    if isinstance(shape, dict):
        return {key: _as_in_keras_2(part) for key, part in shape.items()}
    if not isinstance(shape, list | tuple):
        return shape
    if all(axis is None or isinstance(axis, int) for axis in shape):
        return tuple(shape)
    return [_as_in_keras_2(part) for part in shape]


def _with_arguments_of_keras_3(cls: type, config: dict[str, Any], ctx: Context) -> dict[str, Any]:
    """Return the config of a class derived from a layer of Keras with that layer's new arguments.

    The arguments of the class itself are unchanged.
    """
    base = next((parent.__name__ for parent in cls.__mro__ if is_of_library(parent.__module__)), "")
    accepted = ctx.accepted(base)
    if base not in LAYERS or accepted is None or not accepts_keywords(cls):
        return config
    own = {key: value for key, value in config.items() if key in parameters(cls) - accepted}
    of_base = {key: value for key, value in config.items() if key not in own}
    if base in ("GRU", "GRUCell"):
        of_base = {"units": config.get("units"), **of_base}
    return keras2.migrate(base, of_base, ctx)[1] | own


def _package(item: Config) -> str | None:
    """Return the import name of a known package that defines the class of a layer."""
    registered = str(item.get("registered_name") or item.get("class_name"))
    prefix = registered.split(">")[0].split(".")[0] if ">" in registered else ""
    roots = (str(item.get("module") or "").split(".")[0], _REGISTERED_PREFIXES.get(prefix, prefix))
    return next((root for root in roots if root in _PACKAGES), None)


def _package_by_arguments(item: Config) -> str | None:
    """Return the package with a class of this name and these arguments; None for other modules."""
    class_name = unqualified(str(item.get("class_name")))
    package, arguments = _CLASSES_OF_PACKAGES.get(class_name, (None, set()))
    module = item.get("module")
    differs = isinstance(module, str) and module.split(".")[0] not in (package, *_UNNAMED)
    return None if differs or not arguments <= set(item.get("config") or {}) else package


def _class_of_package(item: Config, owner: str, package: str, script: Path | None) -> Missing:
    class_name, module = unqualified(str(item.get("class_name"))), str(item.get("module"))
    own = ""
    if package == _package_by_arguments(item):
        module = package
        own = " (or the file that defines the class, if it is yours)"
    elif module.split(".")[0] != package:
        module = f"{package}.layers"
    line = f"'from {module} import {class_name}'"
    if not local_packages.is_found(package, script):
        hint = (
            f"Run: pip install {_INSTALLED_AS[package]}. Then write {line} in a Python file and "
            f"pass it: --custom-objects FILE.py{own}"
        )
    elif script is None:
        hint = f"Write {line} in a Python file and pass it: --custom-objects FILE.py{own}"
    else:
        hint = (
            f"Write {line} in {script.name}{own}. If it has no such class, install the version of "
            f"{_INSTALLED_AS[package]} with which the model was saved."
        )
    return Missing(
        f"{owner} needs the class {class_name} of the package {package}.",
        definition=class_name,
        hint=hint,
    )


def _wrapper_of_training(class_name: str, owner: str) -> Missing:
    scope, strip = _STRIPPED[class_name]
    return Missing(
        f"{owner} is {class_name}, a wrapper of the package tensorflow-model-optimization "
        "(tfmot) that is for training only.",
        definition=class_name,
        hint=f"Where the model was trained, load it within tfmot.{scope}(), remove the wrappers "
        f"and save it: model = tfmot.{strip}(model), then model.save('model.h5')",
    )


def missing_class(item: Config, owner: str | None = None, *, script: Path | None = None) -> Missing:
    """Return what is missing for a layer of an unknown class, with its stored arguments.

    ``owner`` is ``"The model"`` if the class is that of the whole model. ``script`` is the user's
    file of classes, if there is one.
    """
    class_name = unqualified(str(item.get("class_name")))
    config = item.get("config") or {}
    base = _base_class(item) if owner is None else "keras.Model"
    owner = owner or f"Layer {layer_name(item)!r}"
    if class_name in _STRIPPED and isinstance(config.get("layer"), Mapping):
        return _wrapper_of_training(class_name, owner)
    if (package := _package(item) or _package_by_arguments(item)) is not None:
        return _class_of_package(item, owner, package, script)
    definition = f"class {class_name} (a {base})"
    lacking = same_names.lacking(class_name, config)
    if class_name == "Attention" and "units" not in config and lacking:
        definition += f", which is neither Keras' Attention nor {attention_package.REGISTERED},"
    arguments = {key: value for key, value in config.items() if key not in LAYER_ARGUMENTS}
    saved_with = f" It was saved with {abbreviated(arguments)}." if arguments else ""
    module = item.get("module")
    defined = isinstance(module, str) and module not in _UNNAMED and not is_from_keras(item)
    title = f"{class_name!r} of the module {module!r}" if defined else repr(class_name)
    reason = "which Keras does not have"
    if lacking and not defined:
        reason = f"which is not that of Keras: it was saved without {lacking}"
    return Missing(
        f"{owner} needs the class {title}, {reason}.{saved_with}",
        definition,
        line=_line(str(module), class_name, script) if defined else "",
    )


def _line(module: str, class_name: str, script: Path | None) -> str:
    """Return the line that imports a class; empty if nothing of this name can be imported."""
    parts = (*module.split("."), class_name)
    found = all(map(str.isidentifier, parts)) and local_packages.is_found(parts[0], script)
    return f"from {module} import {class_name}" if found else ""


def _base_class(item: Config) -> str:
    """Return the class from which that of a layer is derived, as far as the file shows it.

    Only models store how they were compiled, which not all versions of Keras do.
    """
    return "keras.Model" if "compile_config" in item else "keras.layers.Layer or keras.Model"
