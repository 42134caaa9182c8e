"""An artifact that fails does not prevent the others."""

import artifacts
import pytest

import edgeattn_converters
from edgeattn import errors

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


def test_mistake_in_the_options_concerns_all_artifacts(tmp_path):
    with pytest.raises(errors.UsageError, match="no such layer"):
        write(tmp_path, errors.UsageError("no such layer"))
