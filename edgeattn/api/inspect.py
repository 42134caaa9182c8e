"""``edgeattn.inspect``"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgeattn.api.arguments import ModelLoading, StrPath, optional_path
from edgeattn.api.result import Result
from edgeattn.api.sources import (
    BundleLike,
    KerasModel,
    Workspace,
    bundle_path,
    is_keras_model,
    keras_file,
)
from edgeattn.errors import BundleError, UnsupportedModelError
from edgeattn.printable import counted


@dataclass(frozen=True, repr=False)
class InspectionResult(Result):
    """The contents of a Keras file, a .tflite or .onnx file, or a bundle.

    Attributes:
        kind: ``keras``, ``tflite``, ``onnx`` or ``bundle``.
        document: What :meth:`to_dict` returns.
    """

    kind: str
    document: Mapping[str, Any]

    @property
    def exit_code(self) -> int:
        """3 if a Keras file cannot be loaded, the code of bundles if one is damaged, else 0."""
        if not self.document.get("loads", True):
            return UnsupportedModelError.exit_code
        is_damaged = self.kind == "bundle" and any(
            "problem" in item for item in self.document["artifacts"]
        )
        return BundleError.exit_code if is_damaged else 0

    def _document(self) -> dict[str, Any]:
        return dict(self.document)

    def _summary(self) -> str:
        document = self.document
        if self.kind == "bundle":
            count = len(document["artifacts"])
            return f"bundle of {document['model']['file']}: {counted(count, 'artifact')}"
        if not document.get("loads", True):
            return f"{document['file']}: cannot be loaded: {document['reason']}"
        if self.kind != "keras":
            return f"{document['file']}: {self.kind}, {document['bytes']:,} bytes"
        attention = ", ".join(document["attention"]) or "none"
        parameters = counted(document["parameters"], "parameter")
        return f"{document['file']}: {parameters}, attention: {attention}"

    def _table(self) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
        document = self.document
        if self.kind == "bundle":
            return ["format", "scheme", "size (kB)", "file"], [
                [item["format"], item["scheme"], f"{item['bytes'] / 1000:,.1f}", item["path"]]
                for item in document["artifacts"]
            ]
        if self.kind == "keras":
            return ["layer", "class", "parameters"], [
                [item["name"], item["class"], f"{item['parameters']:,}"]
                for item in document.get("layers", ())
            ]
        operators = document["operators"].items()
        return ["operator", "count"], [[name, str(count)] for name, count in operators]


def inspect(
    source: BundleLike | KerasModel,
    *,
    custom_objects: StrPath | None = None,
    architecture: str | None = None,
    signature: str | None = None,
    trust: str | None = None,
) -> InspectionResult:
    """Describe a Keras model, a .tflite or .onnx file, or a bundle.

    ``source`` is a path, a ``keras.Model``, or the result of another function. The other arguments
    are the options of ``edgeattn inspect``. No code in a file is executed.
    """
    from edgeattn import inspection

    loading = ModelLoading(
        custom_objects=optional_path(custom_objects),
        architecture=architecture,
        signature=signature,
        trust=trust,
    )
    workspace = Workspace()
    path = keras_file(source, workspace) if is_keras_model(source) else bundle_path(source)
    kind = inspection.file_kind(path)
    if kind == inspection.BUNDLE:
        document = inspection.inspect_bundle(path)
    elif kind == inspection.KERAS:
        document = inspection.inspect_keras(path, loading.to_json())
    else:
        document = inspection.inspect_artifact(path, kind)
    return InspectionResult(kind, document)
