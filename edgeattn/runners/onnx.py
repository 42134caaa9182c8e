"""ONNX files in onnxruntime, on the CPU."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgeattn.bundle.verified_file import read_file
from edgeattn.errors import ArtifactError, RuntimeUnavailableError, first_line
from edgeattn.runners.batching import batches, join_batches
from edgeattn.runners.external_data import refuse_external_data
from edgeattn.tensors import Tensors, TensorSpec

# Samples per call: limits the memory of intermediate tensors.
BATCH = 64


def import_onnxruntime() -> Any:
    """Import onnxruntime; raise :class:`RuntimeUnavailableError` if it is not installed."""
    try:
        import onnxruntime
    except ImportError as error:
        raise RuntimeUnavailableError(
            "ONNX files require onnxruntime, which is not installed.",
            hint="Install it with: pip install 'edgeattn[onnx]'",
        ) from error
    return onnxruntime


# On x86 processors without VNNI, sums of int8 products saturate in 16 bits by default, which no
# other processor does. Without effect elsewhere.
_EXACT_SUMS = "session.x64quantprecision"


def session_options(*, exact_sums: bool = True) -> Any:
    """Options of a session on a file of a user."""
    options = import_onnxruntime().SessionOptions()
    # Never onnxruntime's own format, which it recognizes by the name or the first bytes of a file
    # and which is not searched for external data.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    options.add_session_config_entry(_EXACT_SUMS, str(int(exact_sums)))
    return options


def open_session(content: bytes, threads: int) -> tuple[Any, bool]:
    """The session on a file, and whether its sums of int8 products are exact on every processor.

    onnxruntime 1.32 cannot load some files with exact sums, such as those in which two products
    share int8 weights.
    """
    onnxruntime = import_onnxruntime()
    for exact in (True, False):
        options = session_options(exact_sums=exact)
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # The first error is not printed: a file that cannot be loaded at all raises the second one.
        options.log_severity_level = 4 if exact else 3
        try:
            session = onnxruntime.InferenceSession(
                content, options, providers=["CPUExecutionProvider"]
            )
        except Exception:
            if exact:
                continue
            raise
        # onnxruntime keeps the file for other providers, which are not used.
        session._model_bytes = None
        return session, exact
    raise AssertionError("the second attempt returns or raises")


class ONNXRunner:
    """Runs an ``.onnx`` file with a free or a fixed batch size."""

    def __init__(
        self,
        path: Path,
        inputs: tuple[TensorSpec, ...],
        outputs: tuple[TensorSpec, ...],
        *,
        threads: int = 1,
        batch: int = BATCH,
        sha256: str | None = None,
    ) -> None:
        onnxruntime = import_onnxruntime()
        content = read_file(path, sha256)
        refuse_external_data(path, content)
        try:
            self._session, exact = open_session(content, threads)
        except Exception as error:  # onnxruntime's exceptions have no public base class
            raise ArtifactError(
                f"onnxruntime cannot load {path.name}: {first_line(error)}"
            ) from error
        self.inputs = inputs
        self.outputs = outputs
        self.runtime = f"onnxruntime {onnxruntime.__version__}"
        if not exact:
            self.runtime += " (int8 sums may saturate on this processor)"
        self._fixed = inputs[0].shape[0] is not None
        self._batch = inputs[0].shape[0] or batch

    def run(self, tensors: Tensors, batch_sizes: Sequence[int] = ()) -> Tensors:
        sizes = batch_sizes if batch_sizes and not self._fixed else (self._batch,)
        names = [spec.in_file for spec in self.outputs]
        results: dict[str, list[Any]] = {name: [] for name in names}
        for feeds, count in batches(tensors, self.inputs, sizes, fixed=self._fixed):
            try:
                outputs = self._session.run(
                    names, {spec.in_file: feeds[spec.name] for spec in self.inputs}
                )
            except Exception as error:
                raise ArtifactError(
                    f"{self.runtime} failed during inference: {first_line(error)}"
                ) from error
            for name, array in zip(names, outputs, strict=True):
                results[name].append(array[:count] if self._fixed and array.ndim else array)
        return {spec.name: join_batches(results[spec.in_file], spec) for spec in self.outputs}

    def close(self) -> None:
        self._session = None
