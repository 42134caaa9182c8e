"""The report on files for microcontrollers has the sizes of flash and arena."""

import artifacts
import pytest

from edgeattn.schemes import MICRO

pytest.importorskip("jinja2")
pytest.importorskip("tflite_micro")


@pytest.mark.parametrize("micro", [True, False])
def test_sizes(micro, tmp_path, edgeattn):
    bundle = artifacts.write_dense_bundle(tmp_path / "dense.edge", formats=("tflite",))

    def change(data):
        data["artifacts"][0]["runtimes"] = {MICRO: ">=0"}
        data["artifacts"][0]["achieved"]["arena_bytes"] = 4321

    if micro:
        artifacts.edit_manifest(bundle.path, change)
    result = edgeattn("validate", bundle.path, "--report", tmp_path / "report.html")
    assert result.code == 0
    assert ("tflite-micro" in result.out) == micro
    html = (tmp_path / "report.html").read_text("utf-8")
    assert ("4.3 kB" in html) == micro
    assert (">arena<" in html) == micro
