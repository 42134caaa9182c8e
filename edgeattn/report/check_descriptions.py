"""What the checks are, for people who have not read how they are computed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeattn.report.markup import number

if TYPE_CHECKING:
    from edgeattn.validation.validate import Check

# name: (a few words, a sentence)
CHECKS = {
    "changed_files": ("files changed", "Files that are not those the bundle was made with."),
    "custom_operators": (
        "operators that devices lack",
        "Operators outside the runtime's own, which no device has.",
    ),
    "state_variables": (
        "state kept",
        "Variables that would carry one sequence over into the next.",
    ),
    "cell_clip": ("cell cut", "The value at which an LSTM's cell is cut; Keras does not cut it."),
    "weights_in_scheme": ("weights in the scheme", "Share of the weights stored as was asked."),
    "operators_in_scheme": ("operators in the scheme", "Operators that compute as was asked."),
    "missing": ("output missing", "The artifact does not have this output."),
    "wrong_shape": ("shape wrong", "The output came in another shape than Keras'."),
    "non_finite": ("NaN or infinity", "Values that are not finite where Keras' are."),
    "repeat_error": (
        "change when repeated",
        "How far the first sequence's answer moved when it came again after all others.",
    ),
    "max_abs_error": ("largest error", "The largest |artifact - Keras|."),
    "mean_abs_error": ("mean error", "The mean |artifact - Keras|."),
    "cosine": ("cosine", "1 where the outputs are Keras' up to a factor."),
    "minimal_atol": (
        "tightest tolerance",
        "The smallest absolute tolerance with which a comparison would have passed.",
    ),
    "tolerance_ratio": (
        "share of the tolerance used",
        "The largest |artifact - Keras| / (atol + rtol |Keras|); numpy's allclose is 1 or less.",
    ),
    "snr_db": (
        "signal to noise, dB",
        "10 log10(sum Keras² / sum (artifact - Keras)²): 20 dB is an error of a tenth.",
    ),
    "top1_agreement": (
        "same class",
        "Share of samples whose largest score is the same, near ties left out.",
    ),
    "top3_agreement": (
        "same three classes",
        "Share of samples whose three largest scores are the same, near ties left out.",
    ),
    "jensen_shannon": (
        "divergence of the map",
        "Mean Jensen-Shannon divergence of attention rows, in nats: 0 where equal, 0.69 apart.",
    ),
    "row_sum_error": ("mass lost", "The largest change of a row's sum, which is one in Keras."),
    "masked_mass": ("mass on padding", "The most that a row gives to steps Keras masks."),
    "entropy_shift": ("width of the look", "The largest change of a row's entropy, in nats."),
    "topk_overlap": (
        "same three steps",
        "Mean share of the three most attended steps that are Keras' too.",
    ),
    "argmax_stability": ("same step", "Share of rows that look most where Keras looks most."),
    "difference_from_host": (
        "difference from the host",
        "How far the device's answers are from this machine's.",
    ),
    "same_class_as_host": (
        "same class as the host",
        "Share of samples on which device and host say the same.",
    ),
}


def title(metric: str) -> str:
    """A few words for a metric; its own name where there are none."""
    return CHECKS.get(metric, (metric.replace("_", " "), ""))[0]


def sentence(check: Check) -> str:
    """A check that failed, in words."""
    of = f" of {check.output}" if check.output else ""
    on = f" on {check.data}" if check.data else ""
    if check.limit is None:
        return f"{title(check.metric)}{of}{on}: {number(check.value)}"
    bounds = {"<=": "at most {} is allowed", ">=": "at least {} is needed"}
    bound = bounds[check.better].format(number(check.limit))
    return f"{title(check.metric)}{of}{on} is {number(check.value)}; {bound} ({check.metric})"
