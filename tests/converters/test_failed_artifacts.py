"""An artifact that fails does not prevent the others."""

from dataclasses import replace

import artifacts
import pytest

import edgeattn_converters
from edgeattn import errors
from edgeattn.cli.artifact_lines import not_converted_line
from edgeattn.schemes import MICRO

REQUEST = {
    "options": {"schemes": ["float32", "float16"], "formats": ["tflite"]},
    "source": {"path": "model.keras"},
}


class FakeWorker:
    """Writes empty files, and raises an error instead of writing the scheme that fails."""

    def __init__(self, folder, scheme, error):
        self.folder, self.scheme, self.error = folder, scheme, error

    def call(self, task, arguments, *, activity):
        path = self.folder / f"model.{arguments['scheme']}.{arguments['format']}"
        path.write_bytes(b"")
        if arguments["scheme"] == self.scheme:
            raise self.error
        return artifacts.artifact(path, scheme=arguments["scheme"]).to_json()


def write(folder, error, *, failing="float16", named=()):
    request = {**REQUEST, "folder": str(folder)}
    worker = FakeWorker(folder, failing, error)
    return edgeattn_converters._write_artifacts(worker, request, named)


@pytest.mark.parametrize(
    ("error", "required"),
    [
        (errors.ArtifactError("the runtime cannot load the file"), True),
        (errors.ConversionError("the converter crashed"), True),
        (errors.RuntimeUnavailableError("no runtime"), True),
        (errors.EdgeattnError("ValueError: an internal error"), True),
        (errors.SchemeError("not achieved"), False),
    ],
)
@pytest.mark.parametrize("failing", ["float32", "float16"])
def test_other_artifacts_are_written(error, required, failing, tmp_path):
    written, failures = write(tmp_path, error, failing=failing)
    (artifact,) = written
    assert artifact.scheme != failing
    (failure,) = failures
    assert (failure["scheme"], failure["reason"]) == (failing, error.message)
    assert failure["required"] == required
    assert [path.name for path in tmp_path.iterdir()] == [artifact.path]


def test_scheme_that_was_named_is_required(tmp_path):
    _, (failure,) = write(tmp_path, errors.SchemeError("not achieved"), named=("float16",))
    assert failure["required"]


@pytest.mark.parametrize("hint", [None, "Omit --lowering."])
def test_lines_of_artifacts_that_failed_have_their_hints(hint, tmp_path):
    _, (failure,) = write(tmp_path, errors.SchemeError("not achieved.", hint=hint))
    line = not_converted_line(failure)
    assert line == "tflite float16: not achieved." + (" Omit --lowering." if hint else "")


def test_mistake_in_the_options_concerns_all_artifacts(tmp_path):
    with pytest.raises(errors.UsageError, match="no such layer"):
        write(tmp_path, errors.UsageError("no such layer"))


class MicroWorker:
    """Writes files for Lite Micro that need arenas of different sizes."""

    def __init__(self, folder):
        self.folder = folder

    def call(self, task, arguments, *, activity):
        scheme = arguments["scheme"]
        path = self.folder / f"model.{scheme}.tflite"
        writers = {"int8": artifacts.write_int8_tflite, "int16x8": artifacts.write_dense_tflite}
        writers[scheme](path)
        entry = artifacts.artifact(path, scheme=scheme)
        return replace(entry, runtimes={MICRO: ">=0"}).to_json()


def write_micro(folder, arena):
    schemes = ["int8", "int16x8"]
    options = {"schemes": schemes, "formats": ["tflite"], "arena": arena}
    request = {**REQUEST, "options": options, "folder": str(folder)}
    return edgeattn_converters._write_artifacts(MicroWorker(folder), request, schemes)


def test_a_model_that_is_too_large_for_the_arena(tmp_path, monkeypatch):
    monkeypatch.setattr(edgeattn_converters, "arena_bytes", lambda path, _: path.stat().st_size)
    written, failures = write_micro(tmp_path, None)
    assert not failures
    small, large = sorted(written, key=lambda artifact: artifact.achieved["arena_bytes"])
    size = large.achieved["arena_bytes"]
    # The largest that is allowed is allowed.
    assert write_micro(tmp_path, size) == (written, ())
    written, (failure,) = write_micro(tmp_path, size - 1)
    assert written == (small,)
    assert failure["scheme"] == large.scheme
    assert f"needs {size:,} bytes, and --arena allows {size - 1:,}" in failure["reason"]
    # Conversion.exit_code is 3 if a required artifact is missing.
    assert failure["required"]
    assert [path.name for path in tmp_path.iterdir()] == [small.path]
    with pytest.raises(errors.ConversionError, match="too large for the requested arena") as caught:
        write_micro(tmp_path, 1)
    assert caught.value.exit_code == 3
    assert not list(tmp_path.iterdir())
