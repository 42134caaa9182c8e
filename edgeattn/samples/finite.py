"""NaN and infinity in inputs and outputs, which are errors unless they are allowed."""

import numpy as np

from edgeattn.errors import ArtifactError, SampleError
from edgeattn.tensors import Array, Specs, Tensors, TensorSpec

ALLOW = "--allow-non-finite (in Python: allow_non_finite=True)"


def is_invalid(array: Array, spec: TensorSpec, *, allow_non_finite: bool) -> bool:
    """Whether real numbers for the input ``spec`` contain values that it does not take.

    Infinity saturates in a quantized input, but no integer represents NaN, even if it is allowed.
    """
    if array.dtype.kind != "f":
        return False
    if allow_non_finite:
        return spec.quantized and bool(np.isnan(array).any())
    return not np.isfinite(array).all()


def invalid_input(spec: TensorSpec, position: str = "", *, allow_non_finite: bool) -> SampleError:
    """The error for such values; ``position`` names the sample, such as ``"Line 3: "``."""
    if allow_non_finite:
        return SampleError(
            f"{position}Input {spec.name} is quantized and cannot represent NaN.",
            hint="Remove or repair this sample.",
        )
    beyond = " or infinite" if spec.quantized else f", infinite or beyond {spec.dtype}"
    return SampleError(
        f"{position}Input {spec.name} has values that are NaN{beyond}.",
        hint=f"Remove or repair this sample, or pass {ALLOW}.",
    )


def invalid_output(spec: TensorSpec, position: str = "") -> ArtifactError:
    return ArtifactError(
        f"{position}Output {spec.name} has values that are NaN or infinite.",
        hint=f"Check the artifact with edgeattn validate, or pass {ALLOW}.",
    )


def check_outputs(outputs: Tensors, specs: Specs) -> None:
    """Raise :class:`ArtifactError` for the first output with NaN or infinity."""
    for spec in specs:
        array = outputs[spec.name]
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            row = int(np.argwhere(~np.isfinite(array))[0][0])
            raise invalid_output(spec, f"Sample {row}: " if len(array) > 1 else "")
