"""The tables of docs/results.md, from recorded documents."""

import json

import pytest

pytestmark = pytest.mark.usefixtures("modules")


def item(**changed):
    return {
        "format": "tflite",
        "scheme": "int8",
        "runtime": "litert",
        "bytes": 25_000,
        "verdict": "pass",
        "stages": {},
        "kind": "accuracy",
        "score": 0.5,
        "interval": [0.2993, 0.7007],
        "samples": 20,
        "drop": 0.05,
        "drop_interval": [-0.1, 0.2],
        "attention": {"max_abs_error": 0.01, "jensen_shannon": 2e-4, "argmax_stability": 0.975},
        "latency_ratio": 0.5,
        "weights": {"type": "int8", "percent": 99, "count": 1234},
        "operators": {"float32": 5, "total": 9},
        "notes": ["two left out"],
        "failed": ["snr_db 9, limit 20"],
        **changed,
    }


DOCUMENT = {
    "example": "vowels",
    "command": "python examples/vowels.py --data PATH",
    "quick": False,
    "seed": 1,
    "date": "2026-01-02",
    "backend": "jax",
    "versions": {"python": "3.11"},
    "machine": "x86_64, 2 cores",
    "training": {"epochs": 3, "seconds": 120.0, "data": "random", "rows": 10},
    "figures": {"steps": 7},
    "parameters": 1234,
    "model_bytes": 1,
    "verdict": "pass",
    "keras": {"kind": "accuracy", "score": 0.55, "interval": [0.3, 0.8], "samples": 20},
    "artifacts": [item(scheme="float32", bytes=100_000), item()],
    "failures": [{"format": "onnx", "scheme": "int16x8", "reason": "unsupported"}],
}


@pytest.fixture
def page(tmp_path):
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "vowels.json").write_text(json.dumps(DOCUMENT))
    path = tmp_path / "page.md"
    path.write_text("before\n<!-- results: begin -->\nold\n<!-- results: end -->\nafter\n")
    return path


def run(page, *more):
    from click.testing import CliRunner

    import results

    arguments = ["--results", str(page.parent / "results"), "--page", str(page), *more]
    return CliRunner().invoke(results.main, arguments)


def test_tables_have_a_row_for_each_artifact(page):
    assert run(page).exit_code == 0
    text = page.read_text()
    assert text.startswith("before\n<!-- results: begin -->\n")
    assert text.endswith("<!-- results: end -->\nafter\n")
    assert "old" not in text
    assert (
        "| tflite | int8 | 25.0 | 0.25 | 99% int8 | 5 of 9 | 50.00% (29.93 to 70.07) | "
        "+5.00 (-10.00 to +20.00) | 1.0e-02 | 2.0e-04 | 97.5% | 0.50 | pass |"
    ) in text
    assert "Keras: 55.00% (30.00 to 80.00) on all 20 test samples." in text
    assert "- onnx int16x8: unsupported" in text
    assert "- steps: 7" in text
    assert "- tflite int8 failed: snr_db 9, limit 20\n" in text
    assert text.count("Note: two left out.") == 1


def test_check_fails_for_an_outdated_page(page):
    assert run(page, "--check").exit_code == 1
    assert "old" in page.read_text()
    run(page)
    assert run(page, "--check").exit_code == 0


def test_wilson_intervals():
    from result_document import wilson

    # Newcombe 1998, table I: 81 of 263, 15 of 148, 0 of 20 and 1 of 29.
    for successes, count, interval in (
        (81, 263, (0.2553, 0.3662)),
        (15, 148, (0.0624, 0.1605)),
        (0, 20, (0.0, 0.1611)),
        (1, 29, (0.0061, 0.1718)),
    ):
        assert wilson(successes / count, count) == pytest.approx(interval, abs=5e-5)


def test_results_with_the_same_dependencies_are_cached(tmp_path):
    from edge_formats import cached

    computed = []
    for key in (["a"], ["a"], ["b"], ["a"]):
        result = cached(tmp_path / "it.json", key, lambda k=key: computed.append(k) or [k, 0])
        assert result == [key, 0]
    assert computed == [["a"], ["b"], ["a"]]


def test_samples_and_calibration_exclude_test_rows(tmp_path):
    import numpy as np

    from edge_formats import write_samples
    from experiment import Experiment

    x = np.arange(12, dtype="float32").reshape(12, 1)
    options = Experiment("random", tmp_path, False, 1, True, False, "")
    write_samples(options, x, x[::3], calibration=5, samples=2)
    with np.load(tmp_path / "samples.npz") as file:
        samples = file["x"].ravel().tolist()
    with np.load(tmp_path / "calibration.npz") as file:
        calibration = file["x"].ravel().tolist()
    # 0, 3, 6 and 9 are test rows.
    assert len(samples) == 2
    assert len(calibration) == 5
    assert set(samples) | set(calibration) <= {1, 2, 4, 5, 7, 8, 10, 11}
    assert not set(samples) & set(calibration)
