"""A user's own samples, segment by segment: the same result however the work is cut."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import artifacts
import numpy as np
import pytest

from edgeattn import progress
from edgeattn.errors import ArtifactError, SampleError, UsageError
from edgeattn.evaluation import checkpoint as partial
from edgeattn.evaluation import dataset as trials
from edgeattn.evaluation import evaluator as trial_run
from edgeattn.evaluation import task
from edgeattn.evaluation.accumulators import TaskTally
from edgeattn.metrics import pairwise as metrics
from edgeattn.metrics.limits import LIMITS
from edgeattn.metrics.running import Agreement
from edgeattn.runners.function import FunctionRunner
from edgeattn.samples.labels import LabelFacts
from edgeattn.validation.validate import validate, validate_isolated

COUNT = 330
TESTS = Path(__file__).parent


@pytest.fixture(autouse=True)
def small_segments(monkeypatch):
    monkeypatch.setattr(trials, "CHUNK", 64)
    monkeypatch.setattr(partial, "EVERY", 0.0)


def write_data(path, labels=True):
    x = artifacts.samples(COUNT)
    x[:, 1] += np.arange(COUNT) / 4
    y = artifacts.dense(x).argmax(1)
    y[::7] = 1 - y[::7]
    np.savez(path, x=x, **({"y": y} if labels else {}))
    return path


@pytest.fixture
def bundle(tmp_path):
    return artifacts.write_dense_bundle(tmp_path / "dense.edge")


@pytest.fixture
def data(tmp_path):
    return write_data(tmp_path / "test.npz")


def right(tensors):
    return {"score": artifacts.dense(tensors["x"])}


def noisy(tensors):
    """Wrong here and there, by what the sample is."""
    score = artifacts.dense(tensors["x"])
    score[tensors["x"][:, 0] > 7] *= -1
    return {"score": score + np.float32(1e-3) * np.sin(tensors["x"][:, :1])}


def judged(bundle, trial, function=noisy, **options):
    def opener(item):
        chosen = right if item.format == "tflite" else function
        return FunctionRunner(chosen, item.inputs, item.outputs)

    return validate(bundle, bundle.manifest.artifacts, opener, trial=trial, **options)


def text(report):
    return json.dumps(report.to_json(), sort_keys=True, allow_nan=False)


# The same, however it is cut


def test_all_cores_come_to_what_one_does(bundle, data):
    one, two = (
        validate_isolated(
            bundle, bundle.manifest.artifacts, trial=trials.open_stream(data, bundle), jobs=jobs
        )
        for jobs in (1, 3)
    )
    assert text(one) == text(two)
    (_, other) = one.artifacts
    assert other.task.outcomes[0].samples == COUNT


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit(143)])
def test_interrupted_work_goes_on_where_it_stood(bundle, data, tmp_path, interrupt):
    whole = text(judged(bundle, trials.open_stream(data, bundle)))
    kept, asked = tmp_path / "kept.npz", []

    def interrupted(tensors):
        asked.append(len(tensors["x"]))
        if asked.count(64) == 3:
            raise interrupt
        return noisy(tensors)

    stream = trials.open_stream(data, bundle)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        judged(bundle, stream, interrupted, resume=kept)
    assert kept.is_file()
    before, asked[:] = list(asked), []

    def counted(tensors):
        asked.append(len(tensors["x"]))
        return noisy(tensors)

    assert text(judged(bundle, stream, counted, resume=kept)) == whole
    assert not kept.exists()
    # Of the six segments two were done.
    assert (before.count(64), asked.count(64), asked.count(COUNT % 64)) == (3, 3, 1)


def test_killed_work_goes_on_where_it_stood(bundle, data, tmp_path):
    """After SIGKILL in the middle of the fourth segment, in a process of its own."""
    whole = text(judged(bundle, trials.open_stream(data, bundle)))
    kept = tmp_path / "kept.npz"
    program = textwrap.dedent(f"""
        import os, sys
        from pathlib import Path
        sys.path[:0] = [{str(TESTS)!r}, {str(TESTS.parent)!r}]
        import test_evaluator as t
        from edgeattn.bundle.bundle import Bundle
        t.trials.CHUNK, t.partial.EVERY = 64, 0.0
        asked = []
        def killed(tensors):
            asked.append(len(tensors["x"]))
            if asked.count(64) == 4 and sys.argv[1] == "kill":
                os.kill(os.getpid(), 9)
            return t.noisy(tensors)
        bundle = Bundle.open(Path({str(bundle.path)!r}))
        stream = t.trials.open_stream(Path({str(data)!r}), bundle)
        print(t.text(t.judged(bundle, stream, killed, resume=Path({str(kept)!r}))))
    """)

    def run(how):
        command = [sys.executable, "-c", program, how]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    assert run("kill").returncode == -signal.SIGKILL
    assert kept.is_file()
    assert int(np.load(kept)["next"]) == 3
    again = run("go on")
    assert again.stdout.strip() == whole, again.stderr
    assert not kept.exists()


def test_what_was_kept_of_other_work_is_refused(bundle, data, tmp_path):
    kept = tmp_path / "kept.npz"
    partial.Partial(kept, "another").save(1, {}, {})
    with pytest.raises(UsageError, match="of other artifacts, data or limits"):
        judged(bundle, trials.open_stream(data, bundle), resume=kept)
    for content in (b"", b"not this"):
        kept.write_bytes(content)
        with pytest.raises(UsageError, match="holds no unfinished validation"):
            judged(bundle, trials.open_stream(data, bundle), resume=kept)
    assert kept.read_bytes() == b"not this"


def test_an_artifact_that_broke_stays_broken_when_work_goes_on(bundle, data, tmp_path):
    kept, stream, calls = tmp_path / "kept.npz", trials.open_stream(data, bundle), []

    def breaks(tensors):
        calls.append(len(tensors["x"]))
        if calls.count(64) == 2:
            raise ArtifactError("out of breath")
        return right(tensors)

    def stops(tensors):
        if len(calls) > 3 and len(tensors["x"]) < 64:
            raise KeyboardInterrupt
        return right(tensors)

    def opener(item):
        chosen = stops if item.format == "tflite" else breaks
        return FunctionRunner(chosen, item.inputs, item.outputs)

    with pytest.raises(KeyboardInterrupt):
        validate(bundle, bundle.manifest.artifacts, opener, trial=stream, resume=kept)
    report = judged(bundle, stream, right, resume=kept)
    _, other = report.artifacts
    assert (other.verdict, other.reason) == ("fail", "out of breath")
    assert other.task.outcomes == ()


# What is counted


def test_agreement_in_parts_is_that_of_the_whole():
    generator = np.random.default_rng(4)
    want = generator.dirichlet(np.ones(5), 700)
    got = want + 0.02 * generator.standard_normal(want.shape)
    limits = LIMITS["int8"]
    tally = Agreement(limits)
    for part in np.array_split(np.arange(700), 9):
        tally.add(want[part], got[part])

    def check(metric, value, limit=None, better="<="):
        return metric, value

    found = dict(tally.checks(check, judged=True))
    expected = {
        "non_finite": 0.0,
        "max_abs_error": metrics.max_abs_error(want, got),
        "mean_abs_error": metrics.mean_abs_error(want, got),
        "cosine": metrics.cosine(want, got),
        "minimal_atol": metrics.minimal_atol(want, got, rtol=limits.rtol),
        "tolerance_ratio": metrics.tolerance_ratio(want, got, atol=limits.atol, rtol=limits.rtol),
        "snr_db": metrics.snr_db(want, got),
        "top1_agreement": metrics.top1_agreement(want, got, near_tie=limits.near_tie),
        "top3_agreement": metrics.topk_agreement(want, got, k=3, near_tie=limits.near_tie),
    }
    assert found == pytest.approx(expected)
    assert 0.9 < found["top1_agreement"] < 1


@pytest.mark.parametrize("kind", ["classes", "yes or no", "logits", "amounts", "steps"])
def test_a_task_in_parts_is_that_of_the_whole(kind):
    generator = np.random.default_rng(6)
    shapes = {"classes": (900, 5), "steps": (900, 7, 3)}
    before = generator.standard_normal(shapes.get(kind, (900, 1)))
    if kind == "yes or no":
        before = 1 / (1 + np.exp(-before))
    after = before + 0.1 * generator.standard_normal(before.shape)
    if kind in shapes:
        labels = (before + generator.standard_normal(before.shape)).argmax(-1)
    elif kind == "amounts":
        labels = before + 0.1 * generator.standard_normal(before.shape)
    else:
        labels = (before > np.median(before)).astype(int)
    whole = task.compare("a", labels, before, after, retention=0.9)
    facts = LabelFacts.of(labels[:1])
    for row in range(1, 900):
        facts |= LabelFacts.of(labels[row : row + 1])
    assert facts == LabelFacts.of(labels)
    tally = TaskTally("a", facts)
    for part in np.array_split(np.arange(900), 7):
        fresh = TaskTally("a", facts)
        fresh.state = tally.state
        tally = fresh
        tally.add(labels[part], before[part], after[part])
    found = tally.outcome(0.9)
    assert found.kind == {"logits": "yes or no", "steps": "classes"}.get(kind, kind)
    assert found.before == pytest.approx(whole.before)
    assert found.interval == pytest.approx(whole.interval)
    assert (found.verdict, found.needed) == (whole.verdict, whole.needed)
    assert (found.lost, found.gained, found.p_value) == (whole.lost, whole.gained, whole.p_value)
    if found.confusions is not None:
        np.testing.assert_array_equal(found.confusions, whole.confusions)


def test_steps_of_one_sample_are_one_throw_of_the_test():
    """Ten samples that lost all four of their decisions: not forty losses, but ten."""
    before = np.zeros((50, 4, 2))
    before[..., 0] = 1
    after = before.copy()
    after[:10] = after[:10, :, ::-1]
    found = task.compare("a", np.zeros((50, 4), int), before, after, retention=0.99)
    assert found.lost == 40
    assert found.p_value == pytest.approx(2 / 2**10)


# What is judged


def test_numbers_are_judged_by_keras_and_told_of_a_stand_in(bundle, data):
    stream = trials.open_stream(data, bundle)

    class Keras:
        def __call__(self, inputs):
            return {**right(inputs), "another": inputs["x"]}

        def close(self):
            closed.append(True)

    closed = []
    _, told = judged(bundle, stream).artifacts
    _, held = judged(bundle, stream.answered_by(Keras())).artifacts
    assert closed == [True]
    (limit,) = [c.limit for c in told.checks if c.data and c.metric == "tolerance_ratio"]
    assert limit is None
    failed = {(check.metric, check.data) for check in held.failed}
    assert ("tolerance_ratio", "test.npz") in failed
    assert held.task.reference == "Keras"
    assert held.to_json()["checks"][-1]["data"] == "test.npz"


def test_without_labels_numbers_are_judged_and_the_task_is_not_run(bundle, tmp_path):
    stream = trials.open_stream(write_data(tmp_path / "x.npz", labels=False), bundle)
    report = judged(bundle, stream.answered_by(right), right)
    for item in report.artifacts:
        assert (item.verdict, item.stages["task"]) == ("pass", "not run")
        assert item.task.reason == "x.npz holds no labels."
        assert max(c.value for c in item.checks if c.data and c.metric == "max_abs_error") == 0


def test_an_answer_of_another_shape_is_the_artifacts_fault(bundle, data):
    def flat(tensors):
        score = artifacts.dense(tensors["x"])
        return {"score": score if len(score) < 50 else score[:, :1]}

    _, other = judged(bundle, trials.open_stream(data, bundle), flat).artifacts
    assert other.verdict == "fail"
    assert "(64, 1)" in other.reason


def test_a_stand_in_that_stops_leaves_the_task_open(bundle, data):
    def stops(tensors):
        if len(tensors["x"]) == 64:
            raise ArtifactError("out of breath")
        return right(tensors)

    def opener(item):
        return FunctionRunner(
            stops if item.format == "tflite" else right, item.inputs, item.outputs
        )

    stream = trials.open_stream(data, bundle)
    report = validate(bundle, bundle.manifest.artifacts, opener, trial=stream)
    _, other = report.artifacts
    assert other.task.verdict == "not run"
    assert "in the place of Keras, stopped: out of breath" in other.task.reason


def test_a_file_that_changes_while_it_is_read_is_refused(bundle, data):
    stream = trials.open_stream(data, bundle)

    def touches(tensors):
        os.utime(data, ns=(1, 1))
        return right(tensors)

    with pytest.raises(SampleError, match="changed while it was read"):
        judged(bundle, stream, touches)


def test_a_segment_is_no_larger_than_its_memory(bundle):
    entry = bundle.manifest.artifacts[0]
    assert trials.segment_rows(entry, {"x": (10**6, 3)}) == 64
    # 16 MiB over 8 bytes of each of 500 x 1024 numbers, and 8 bytes of the answer.
    assert trials.segment_rows(entry, {"x": (10**6, 500, 1024)}) == 4


def test_progress_tells_how_far_it_is_and_what_is_left(bundle, data):
    told = []
    with progress.shown_by(told.append):
        judged(bundle, trials.open_stream(data, bundle))
    assert "looking through test.npz: 64 of 330 samples" in told
    assert "test.npz: 0 of 330 samples" in told
    assert any(line.startswith("test.npz: 330 of 330 samples, 0 s left") for line in told)
    assert trial_run._duration(89) == "89 s"
    assert trial_run._duration(600) == "10 min"
    assert trial_run._duration(7200) == "2.0 h"


# The command


def test_resume_is_beside_the_bundle_or_where_it_is_asked_for(
    edgeattn, bundle, data, tmp_path, monkeypatch
):
    written, save = [], partial.Partial.save

    def noted(self, *args):
        written.append(self.path.name)
        save(self, *args)

    monkeypatch.setattr(partial.Partial, "save", noted)
    for options in (("--resume",), ("--resume-file", tmp_path / "here.npz"), ()):
        ended = edgeattn("validate", bundle.path, "--data", data, "--jobs", 1, *options)
        assert ended.code == 0
        assert sorted(path.name for path in tmp_path.iterdir()) == ["dense.edge", "test.npz"]
    assert set(written) == {"dense.edge.test.unfinished.npz", "here.npz"}
    assert edgeattn("validate", bundle.path, "--resume").code == 2
    nowhere = edgeattn("validate", bundle.path, "--data", data, "--resume-file", "no/such/place")
    assert nowhere.code == 2


def test_samples_that_nothing_can_be_judged_on(edgeattn, bundle, tmp_path):
    ended = edgeattn(
        "validate", bundle.path, "--data", write_data(tmp_path / "x.npz", labels=False)
    )
    assert ended.code == 2
    assert "holds no labels" in ended.err
