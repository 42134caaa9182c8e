"""Titles and one-sentence explanations of the checks, for readers of the report."""

import math

from edgeattn.metrics.limits import Check
from edgeattn.report.number_formats import format_number

# metric: (title, explanation)
CHECKS = {
    "changed_files": (
        "changed files",
        "Files whose SHA-256 differs from the one recorded in the bundle.",
    ),
    "malformed_file": (
        "malformed file",
        "Whether the file's structure cannot be read.",
    ),
    "missing_maps": (
        "missing attention maps",
        "Attention maps of the model that the artifact does not have.",
    ),
    "interface_differences": (
        "other inputs or outputs",
        "Inputs and outputs whose name, shape, type or scale differs from the manifest's.",
    ),
    "manifest_differences": (
        "wrong counts in the manifest",
        "Counts of operators and weights in the manifest that differ from those in the file.",
    ),
    "preprocess": (
        "preprocessing",
        "The largest difference between the front end and the original preprocessing, of the "
        "largest value.",
    ),
    "custom_operators": (
        "custom operators",
        "Operators that are not built into the runtime, so that no device has them.",
    ),
    "state_variables": (
        "state variables",
        "Variables that would carry state from one sequence into the next.",
    ),
    "cell_clip": (
        "cell clipping",
        "The value at which an LSTM's cell state is clipped. Keras does not clip it.",
    ),
    "weights_in_scheme": (
        "weights in scheme",
        "Share of the weights that are stored in the type of the requested scheme.",
    ),
    "operators_in_scheme": (
        "operators in scheme",
        "Operators that compute in the type of the requested scheme.",
    ),
    "missing": ("missing output", "The artifact does not have this output."),
    "wrong_shape": ("wrong shape", "The shape of the output differs from that in Keras."),
    "non_finite": ("NaN or infinity", "Non-finite values where the values of Keras are finite."),
    "repeat_error": (
        "repeatability error",
        "The largest change of the first sequence's outputs when it runs again after all others.",
    ),
    "batch_error": (
        "batch error",
        "The largest change of a sample's outputs when it runs in a batch with other samples.",
    ),
    "batch_snr_db": (
        "signal-to-noise ratio in batches (dB)",
        "The lowest signal-to-noise ratio of batches of several sizes, compared with Keras.",
    ),
    "batch_equal_values": (
        "equal values in batches",
        "The lowest share of equal values of an integer output in batches of several sizes.",
    ),
    "batch_max_abs_error": (
        "max abs error in batches",
        "The largest error of batches of several sizes, compared with Keras.",
    ),
    "length_error": (
        "error at other lengths",
        "The largest error at other sequence lengths, as a multiple of its limit.",
    ),
    "max_abs_error": ("max abs error", "The maximum of |artifact - Keras|."),
    "samples_max_abs_error": (
        "max abs error on samples",
        "The maximum of |artifact - Keras| on the samples of the reference, without edge cases.",
    ),
    "mean_abs_error": ("mean abs error", "The mean of |artifact - Keras|."),
    "cosine": ("cosine similarity", "1 if the outputs equal those of Keras up to a factor."),
    "minimal_atol": (
        "minimal absolute tolerance",
        "The smallest absolute tolerance with which the comparison would have passed.",
    ),
    "tolerance_ratio": (
        "tolerance ratio",
        "The maximum of |artifact - Keras| / (atol + rtol |Keras|). numpy.allclose accepts 1.",
    ),
    "snr_db": (
        "signal-to-noise ratio (dB)",
        "10 log10(sum Keras² / sum (artifact - Keras)²). At 20 dB the error is one tenth.",
    ),
    "lost_values": (
        "lost values",
        "Values of an output, or heads of a map, that change in Keras, and that the artifact knows "
        "no better than a constant.",
    ),
    "worst_sample_db": (
        "signal-to-noise ratio of the worst sample (dB)",
        "The lowest ratio of one sample. That of all samples would hide a few with large errors.",
    ),
    "equal_values": (
        "equal values",
        "Share of the values of an integer output, such as classes, that equal those of Keras.",
    ),
    "top1_agreement": (
        "top-1 agreement",
        "Share of samples with the same highest class score. Near ties are excluded.",
    ),
    "top3_agreement": (
        "top-3 agreement",
        "Share of samples with the same three highest class scores. Near ties are excluded.",
    ),
    "jensen_shannon": (
        "attention divergence",
        "Mean Jensen-Shannon divergence of the attention rows in nats, from 0 (equal) to 0.69.",
    ),
    "exceeding_samples": (
        "samples beyond the tolerance",
        "Share of samples with a value whose tolerance ratio exceeds 1.",
    ),
    "exceeding_maps": (
        "maps beyond the limit",
        "Share of samples with a weight that is off by more than the scheme's max abs error.",
    ),
    "worst_jensen_shannon": (
        "attention divergence of the worst sample",
        "The largest divergence of a sample. A mean would hide a few samples with wrong maps.",
    ),
    "row_sum_error": (
        "row sum error",
        "The largest change of the sum of an attention row, which is 1 in Keras.",
    ),
    "masked_mass": (
        "attention on padding",
        "The largest attention of a row to steps that Keras masks.",
    ),
    "entropy_shift": (
        "entropy shift",
        "The largest change of the entropy of an attention row, in nats.",
    ),
    "topk_overlap": (
        "top-3 step overlap",
        "Mean share of the three most attended steps that are also the top three in Keras.",
    ),
    "argmax_stability": (
        "same most attended step",
        "Share of attention rows whose largest weight is at the same step as in Keras.",
    ),
    "difference_from_host": (
        "difference from the host",
        "The largest difference between the outputs of the device and those of this machine.",
    ),
    "same_class_as_host": (
        "same class as on the host",
        "Share of samples for which the device and this machine predict the same class.",
    ),
}


def title(metric: str) -> str:
    """The title of ``metric``, or its name with spaces if it is not in :data:`CHECKS`."""
    return CHECKS.get(metric, (metric.replace("_", " "), ""))[0]


def describe(check: Check) -> str:
    """The result of one check as a line of text: ``max abs error of score: 0.2, limit ≤ 0.1``."""
    of = f" of {check.output}" if check.output else ""
    on = f" on {check.data}" if check.data else ""
    text = f"{title(check.metric)}{of}{on}: {format_number(check.value)}"
    if check.limit is None:
        return text
    sign = {"<=": "≤", ">=": "≥"}[check.relation]
    detail = f": {check.detail}" if check.detail else ""
    return f"{text}, limit {sign} {format_number(check.limit)} ({check.metric}){detail}"


def percent_of_limit(check: Check) -> float | None:
    """The value in percent of an upper limit; None if that has no meaning."""
    if check.limit is None or check.relation != "<=" or check.limit <= 0:
        return None
    return 100 * check.value / check.limit if math.isfinite(check.value) else None
