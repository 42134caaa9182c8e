"""Counts the hostile specimens of the tests, for the table of docs/security.md.

    python tests/hostile_specimens.py

writes the table. A specimen is one file, reply or stream that a test passes to edgeattn and that
must be refused, or answered with an error. pytest collects them.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs" / "security.md"
START, END = "<!-- specimens -->", "<!-- end of specimens -->"
# Tests by what is hostile. Every parameter of a test is a specimen.
SOURCES: dict[str, dict[str, str]] = {
    "Keras files": {
        "converters/loading/test_audit.py": """
            test_hostile_files test_unsafe_config_is_refused test_damaged_compression
            test_files_without_a_model test_truncated_file
        """,
        "converters/loading/test_absurd_sizes.py": """
            test_absurd_sizes_are_refused test_the_values_of_an_output_are_limited
        """,
        "converters/loading/test_lambdas.py": """
            test_other_code_is_not_recognized test_code_that_unpacks_without_end
            test_code_that_repeats_operations_without_end
        """,
    },
    "artifacts": {
        "runners/test_external_data.py": """
            test_weights_in_other_files_are_refused test_malformed_files_are_refused
            test_what_protobuf_reads_and_this_parser_does_not_is_refused
            test_weights_of_functions_in_other_files_are_refused
            test_deeply_nested_graphs_are_searched_or_refused
            test_the_runtime_never_reads_its_own_format
        """,
        "file_structure/test_file_contents.py": """
            test_malformed_onnx test_two_graphs_in_onnx_are_refused
            test_signatures_must_name_the_same_tensors test_nested_graphs_are_limited
        """,
    },
    "bundles": {
        "bundle/test_bundle.py": """
            test_malformed_manifests test_manifests_with_missing_or_invalid_values
            test_paths_outside_the_bundle_are_refused test_linked_files_are_refused
            test_files_in_linked_folders_are_refused test_huge_manifests_are_refused
            test_changed_and_missing_files_are_refused test_the_manifest_is_no_artifact
            test_two_entries_for_one_file_are_refused test_artifacts_of_one_label_are_refused
            test_a_reference_that_decompresses_without_end test_newer_layouts_are_refused
            test_a_reference_that_is_not_an_npz_file
        """,
        "bundle/test_signing.py": """
            test_a_changed_manifest_is_refused test_a_changed_file_is_refused
            test_a_replaced_artifact_is_refused test_malformed_signatures_are_refused
            test_unknown_signers_are_refused test_signatures_for_another_purpose_are_refused
        """,
    },
    "packed bundles": {
        "bundle/test_pack.py": """
            test_hostile_names test_links_are_refused test_compressed_entries_are_refused
            test_false_sizes_are_refused test_entries_that_share_bytes_are_refused
            test_too_many_files_are_refused test_a_manifest_with_a_path_outside_the_bundle
            test_files_that_are_not_packed_bundles
        """,
    },
    "devices": {
        "deployment/test_hostile_device.py": """
            test_outputs_that_are_not_those_of_keras_are_refused test_malformed_replies
            test_one_artifact_that_does_not_run test_complex_outputs_are_refused
            test_malformed_measurements test_every_selected_format_needs_a_runtime
        """,
        "deployment/test_old_bundles.py": """
            test_malformed_times_are_refused test_malformed_replies_to_a_rollback
            test_rollback_to_a_version_that_nobody_allowed_signed
            test_rollback_to_a_version_that_was_changed_with_its_hashes
        """,
        "process/test_worker.py": """
            test_malformed_replies test_incomplete_replies test_malformed_errors
            test_the_arrays_of_a_reply_are_limited_together
        """,
        "targets/test_replies.py": """
            test_malformed_machines test_malformed_checks test_malformed_identities
            test_malformed_numbers_of_processors
        """,
    },
    "streams": {
        "inference/test_stream.py": """
            test_a_malformed_line_gives_an_error_and_the_stream_continues
            test_a_line_that_is_too_long test_an_array_of_objects_is_refused
            test_an_array_with_a_malformed_header_ends_the_stream test_arrays_with_errors
        """,
    },
}


def counts() -> dict[str, int]:
    """The number of specimens by kind. Raises :class:`ValueError` if a test does not exist."""
    files = [str(TESTS / file) for tests in SOURCES.values() for file in tests]
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"]
    listing = subprocess.run(
        [*command, *files], capture_output=True, text=True, check=True, cwd=TESTS.parent
    ).stdout
    collected = Counter(re.findall(r"^tests/(\S+?::\w+)", listing, re.M))
    sums = {}
    for kind, tests in SOURCES.items():
        names = [
            f"{file}::{name}" for file, functions in tests.items() for name in functions.split()
        ]
        missing = [name for name in names if not collected[name]]
        if missing:
            raise ValueError(f"no such test: {', '.join(missing)}")
        sums[kind] = sum(collected[name] for name in names) - (kind == "Keras files") * _harmless()
    return sums


def _harmless() -> int:
    """The files of ``make_hostile.py`` that must be accepted, so that not everything is refused."""
    text = (TESTS / "specimens" / "make_hostile.py").read_text("utf-8")
    keras = re.findall(r'@case\("[^"]*", "\.(?:h5|keras)", expect="accept"\)', text)
    return len(keras)


def table(specimens: dict[str, int]) -> str:
    lines = [START, "| hostile | specimens | tests |", "|---|--:|---|"]
    for kind, count in specimens.items():
        files = ", ".join(f"`{file}`" for file in SOURCES[kind])
        lines.append(f"| {kind} | {count} | {files} |")
    return "\n".join([*lines, END])


def main() -> None:
    text = PAGE.read_text("utf-8")
    before, after = text[: text.index(START)], text[text.index(END) + len(END) :]
    PAGE.write_text(before + table(counts()) + after, "utf-8")


if __name__ == "__main__":
    main()
