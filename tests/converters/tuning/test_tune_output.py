"""What ``edgeattn tune`` prints: what was not tried, and the score of every output."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from edgeattn.api.sources import Workspace
from edgeattn.api.tune import TuneResult, as_document
from edgeattn.cli.tune import as_text
from edgeattn_converters.tuning.result import TuningResult, untried_candidates
from edgeattn_converters.tuning.search import Candidate, Result, SearchResult
from edgeattn_converters.tuning.tuning_options import TuningOptions

CHOSEN = Result(
    Candidate("tflite", "dynamic_int8"),
    "pass",
    bytes=2000,
    output="no",
    score=0.75,
    drop=(0.01, 0.0, 0.015),
    scores={"yes": 0.875, "no": 0.75},
)
OTHER = Candidate("onnx", "float16")


@pytest.fixture
def complete() -> TuningResult:
    return TuningResult(
        bundle=SimpleNamespace(path=Path("model.tuned.edge")),
        chosen=CHOSEN,
        best_uniform=CHOSEN,
        results=(CHOSEN,),
        frontier=(CHOSEN,),
        reference_scores={"yes": 0.9, "no": 0.76},
        options=TuningOptions(max_candidates=1, calibration="c.npy"),
    )


def test_a_complete_search_found_the_smallest(complete: TuningResult) -> None:
    text = as_text(complete, table=True)
    assert "Smallest artifact that passes: tflite dynamic_int8" in text
    assert "Not tried" not in text
    assert as_document(complete)["untried"] == []


def test_the_result_in_python(complete: TuningResult, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    result = TuneResult(complete, Path("model.h5"), Workspace())
    assert (result.verdict, result.exit_code) == ("pass", 0)
    assert repr(result) == (
        "<TuneResult model.tuned.edge: pass, tflite dynamic_int8, 2,000 bytes, 1 candidate>"
    )
    assert result.to_dict()["chosen"]["bytes"] == 2000
    assert "<td>tflite dynamic_int8</td><td>2.0</td><td>0.7500</td>" in result._repr_html_()
    assert len(result.plot().axes) == 2
    result.save_plot(tmp_path / "plot.svg")
    assert (tmp_path / "plot.svg").read_text("utf-8").count("<svg") == 1


def test_an_incomplete_search_does_not_claim_the_smallest(complete: TuningResult) -> None:
    searched = SearchResult((CHOSEN,), (OTHER,), mixtures=False)
    untried = untried_candidates(searched, complete.results, complete.options)
    text = as_text(replace(complete, untried=untried), table=True)
    assert "Smallest artifact" not in text
    assert "Smallest tried artifact that passes: tflite dynamic_int8" in text
    assert "Not tried (--most 1): onnx float16, mixtures of schemes." in text
    document = as_document(replace(complete, untried=untried))
    assert document["untried"][0] == {"what": "onnx float16", "reason": "--most 1"}


def test_schemes_without_calibration_are_not_tried(complete: TuningResult) -> None:
    options = TuningOptions()
    untried = untried_candidates(SearchResult((CHOSEN,)), (CHOSEN,), options)
    assert untried == (("int8", "no --calibration"),)
    named = TuningOptions(schemes=("float16",))
    assert untried_candidates(SearchResult((CHOSEN,)), (CHOSEN,), named) == ()


def test_several_outputs_have_named_scores(complete: TuningResult) -> None:
    text = as_text(complete, table=True)
    header = next(line for line in text.splitlines() if "candidate" in line and "score" in line)
    assert header.index("score of yes") < header.index("score of no")
    row = next(line for line in text.splitlines() if line.startswith("*"))
    assert row.index("0.8750") < row.index("0.7500")
    assert "Score of Keras: yes 0.9000, no 0.7600" in text
    entry = as_document(complete)["chosen"]
    assert (entry["output"], entry["scores"]) == ("no", {"yes": 0.875, "no": 0.75})


def test_one_output_has_one_score(complete: TuningResult) -> None:
    chosen = replace(CHOSEN, output="y", scores={"y": 0.75})
    single = replace(
        complete,
        chosen=chosen,
        results=(chosen,),
        frontier=(chosen,),
        reference_scores={"y": 0.76},
    )
    text = as_text(single, table=True)
    assert "score of" not in text
    assert "Score of Keras: 0.7600" in text
