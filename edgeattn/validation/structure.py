"""The structure stage: checks of a file that need no runtime."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from edgeattn.bundle.bundle import Bundle
from edgeattn.bundle.manifest import Artifact
from edgeattn.errors import ArtifactError
from edgeattn.file_structure.contents import FileContents, FileTensor
from edgeattn.file_structure.onnx import INT8_KERNELS, is_quantized_operator
from edgeattn.file_structure.read import read_contents
from edgeattn.metrics.limits import Check
from edgeattn.tensors import TensorSpec
from edgeattn.validation.rounding import WEIGHTS

# How each scheme stores weights, and the type it computes with, if that is not float32.
_WEIGHT_TYPES = {**WEIGHTS, "int4": "int4"}
_OPERATOR_TYPES = {"int8": "int8", "int16x8": "int16"}
# The lowest share of the large weights that have the type of the scheme.
_MIN_SHARE = 0.5
# Differences that a message lists.
_LISTED = 3


def structure_checks(
    path: Path, artifact: Artifact, maps: Collection[str] = (), content: bytes | None = None
) -> Iterator[Check]:
    """The checks of the structure stage: is the file what the manifest says, and was requested?

    Everything is counted in the file at ``path``; the manifest's counts are only compared with it.
    ``content`` are its bytes, if they have been read. A file that cannot be read fails. ``maps``
    are the attention maps that the artifact must have.
    """

    def check(
        metric: str,
        value: float,
        limit: float | None,
        relation: str = "<=",
        detail: str | None = None,
    ) -> Check:
        return Check(
            artifact.label, "structure", metric, value, limit, relation, detail=detail or None
        )

    yield check("changed_files", 0.0, 0.0)
    missing = [name for name in maps if name not in artifact.attention]
    yield check("missing_maps", float(len(missing)), 0.0, detail=", ".join(missing))
    try:
        specs = (*artifact.inputs, *artifact.outputs)
        own_names = all(spec.stored_name is None for spec in specs)
        contents = read_contents(path, artifact.format, content, own_names=own_names)
    except ArtifactError as error:
        yield check("malformed_file", 1.0, 0.0, detail=error.message)
        return
    yield from _file_checks(check, artifact, contents)
    differences = [
        *_tensor_differences("inputs", artifact.inputs, contents.inputs),
        *_tensor_differences("outputs", artifact.outputs, contents.outputs),
        *_fixed_axes(artifact, (*contents.inputs, *contents.outputs)),
    ]
    yield check("interface_differences", float(len(differences)), 0.0, detail=_listed(differences))
    size = path.stat().st_size if content is None else len(content)
    differences = _count_differences(artifact, contents, size)
    yield check("manifest_differences", float(len(differences)), 0.0, detail=_listed(differences))
    if artifact.scheme != "float32":
        yield from _scheme_checks(check, artifact, contents)


def required_maps(bundle: Bundle, reference: Collection[str]) -> tuple[str, ...]:
    """The attention maps that every artifact of a bundle must have: those of the model.

    Files have none if they were converted without attention maps. Older manifests do not say so;
    then the reference, whose arrays are named ``reference``, has none either.
    """
    model = bundle.manifest.model
    maps = {name for name in reference if name.startswith("attention/")}
    if model.get("attention_outputs"):
        maps |= {str(spec["name"]) for spec in model.get("attention", ())}
    return tuple(sorted(maps))


def _file_checks(
    check: Callable[..., Check], artifact: Artifact, contents: FileContents
) -> Iterator[Check]:
    """Checks of what no file may have."""
    custom = contents.custom
    yield check("custom_operators", float(len(custom)), 0.0, detail=", ".join(custom[:_LISTED]))
    if artifact.format == "tflite":
        yield check("state_variables", float(contents.states), 0.0)
    if contents.cell_clips:
        yield check("cell_clip", max(contents.cell_clips), 0.0)


def _scheme_checks(
    check: Callable[..., Check], artifact: Artifact, contents: FileContents
) -> Iterator[Check]:
    """Are weights and operators of the types that the scheme requests?"""
    scheme, achieved = artifact.scheme, artifact.achieved
    if contents.weights:
        dtypes = {_WEIGHT_TYPES[scheme]}
        # Weights of attention scores may have more bits, which preserves the attention map.
        dtypes.update({"float16"}.intersection(achieved.get("kept_weights", ())))
        # Sums and products of int16 values need int16 constants.
        dtypes.update({"int16"} if scheme == "int16x8" else ())
        exact = int(achieved.get("exact_weights", 0))
        contents = contents.without_float32(exact)
        # Small weights are not quantized, and a user may accept a file in float.
        limited = bool(contents.large_weights) and not achieved.get("fallback")
        limit = _MIN_SHARE if limited else None
        yield check("weights_in_scheme", contents.share_of(*dtypes), limit, ">=")
    if scheme in _OPERATOR_TYPES:
        computing = contents.computes_in.get(_OPERATOR_TYPES[scheme], {})
        yield check("operators_in_scheme", float(sum(computing.values())), 1.0, ">=")


def _tensor_differences(
    side: str, declared: Sequence[TensorSpec], actual: Sequence[FileTensor]
) -> list[str]:
    """How the inputs or outputs of the manifest differ from those of the file."""
    in_file = {tensor.name: tensor for tensor in actual}
    names = {spec.in_file for spec in declared}
    if len(in_file) != len(actual) or names != set(in_file):
        return [
            f"the manifest has the {side} {', '.join(sorted(names))}; the file has "
            f"{', '.join(sorted(tensor.name for tensor in actual)) or 'none'}"
        ]
    return [
        f"the manifest has {_described(spec)}; the file has {_described(in_file[spec.in_file])}"
        for spec in declared
        if not _agrees(spec, in_file[spec.in_file])
    ]


def _fixed_axes(artifact: Artifact, actual: Sequence[FileTensor]) -> Iterator[str]:
    """The axes that accept any length according to the manifest, but have one in the file."""
    stored = {spec.in_file: spec.name for spec in (*artifact.inputs, *artifact.outputs)}
    for tensor in actual:
        for axis in artifact.free_axes.get(stored.get(tensor.name, ""), ()):
            if tensor.shape is not None and tensor.shape[axis : axis + 1] != (None,):
                yield f"the manifest has {tensor.name} with any length; the file has {tensor}"


def _agrees(spec: TensorSpec, tensor: FileTensor) -> bool:
    """A file may accept any length where the manifest has a fixed one, but not the reverse."""
    if spec.dtype != tensor.dtype:
        return False
    if spec.scale is not None or tensor.scale is not None:
        wanted = (_rounded(spec.scale), spec.zero_point or 0)
        if wanted != (_rounded(tensor.scale), tensor.zero_point or 0):
            return False
    if tensor.shape is None:
        return True
    return len(spec.shape) == len(tensor.shape) and all(
        actual is None or actual == axis
        for axis, actual in zip(spec.shape, tensor.shape, strict=True)
    )


def _rounded(scale: float | None) -> float | None:
    """Files store scales as float32."""
    return None if scale is None else float(f"{scale:.6g}")


def _described(tensor: TensorSpec | FileTensor) -> str:
    if tensor.scale is None:
        return str(tensor)
    return f"{tensor} with scale {tensor.scale:.6g} and zero point {tensor.zero_point or 0}"


def _count_differences(artifact: Artifact, contents: FileContents, size: int) -> list[str]:
    """The counts of the manifest that differ from those of the file."""
    differences = []
    if artifact.bytes != size:
        differences.append(f"the manifest has {artifact.bytes:,} bytes, the file has {size:,}")
    # Earlier versions counted operators in float32 and the bytes of int4 weights differently.
    actual = {**contents.to_json(), "kept_weights": {}}
    for dtype in artifact.achieved.get("kept_weights", ()):
        actual["kept_weights"][dtype] = contents.weights.get(dtype, 0)
    for key in ("operators", "weights", "variables", "cell_clips", "opset", "kept_weights"):
        if key in artifact.achieved and key in actual and artifact.achieved[key] != actual[key]:
            differences.append(_difference(key, artifact.achieved[key], actual[key]))
    for dtype in ("int8", "int16") if "computes_in" in artifact.achieved else ():
        kinds = artifact.achieved["computes_in"].get(dtype, {})
        if dtype == "int8" and artifact.format == "onnx":
            # Earlier versions also counted what onnxruntime computes in float32.
            kinds = {
                k: n for k, n in kinds.items() if k in INT8_KERNELS or is_quantized_operator(k)
            }
        listed = sum(kinds.values())
        counted = sum(contents.computes_in.get(dtype, {}).values())
        if listed != counted:
            differences.append(
                f"the manifest has {listed} {dtype} in computes_in, the file has {counted}"
            )
    return differences


def _difference(key: str, listed: Any, actual: Any) -> str:
    """``the manifest has 5 Add in operators, the file has 4``."""
    if isinstance(listed, Mapping) and isinstance(actual, Mapping):
        name = next(k for k in sorted({*listed, *actual}) if listed.get(k) != actual.get(k))
        return (
            f"the manifest has {listed.get(name, 0):,} {name} in {key}, the file has "
            f"{actual.get(name, 0):,}"
        )
    return f"the manifest has {key} {listed}, the file has {actual}"


def _listed(differences: Sequence[str]) -> str:
    more = len(differences) - _LISTED
    return "; ".join(differences[:_LISTED]) + (f"; {more} more" if more > 0 else "")
