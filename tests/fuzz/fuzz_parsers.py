"""A coverage-guided fuzzer (atheris) of edgeattn's own parsers, see ``parsers.py``.

    python tests/fuzz/fuzz_parsers.py --seconds 60

Every parser runs in a process of its own, which is limited in memory (2 GiB) and in time for one
input (20 s). An input that raises anything but the documented error, or exceeds a limit, is a
finding: it is saved, and the exit code is 1. Inputs that reached new code are kept for the next
run. Needs atheris: make fuzz-parsers.
"""

from __future__ import annotations

import argparse
import random
import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".out" / "fuzz-parsers"
MEMORY_MIB, INPUT_SECONDS, MAX_BYTES = 2048, 20, 65536


def fuzz(name: str, arguments: list[str]) -> None:
    """Fuzz one parser in this process, with the arguments of libFuzzer; does not return."""
    import atheris

    with atheris.instrument_imports(include=["edgeattn", "edgeattn_converters"]):
        import parsers

        parser = parsers.PARSERS[name]
        seeds = list(parser.seeds())
        # Also what is imported when it is used.
        assert all(map(parser.parse, seeds))

    def run(data: bytes) -> None:
        parser.parse(data)

    def mutate(data: bytes, max_size: int, seed: int) -> bytes:
        generator = random.Random(seed)
        # libFuzzer's own changes, which combine inputs that reached new code, and ours.
        if generator.random() < 0.5:
            return bytes(atheris.Mutate(data, max_size))
        return parser.mutate(bytes(data), generator)[:max_size]

    corpus = Path(arguments[-1])
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds):
        (corpus / f"seed-{number}").write_bytes(seed)
    atheris.Setup([sys.argv[0], *arguments], run, custom_mutator=mutate)
    atheris.Fuzz()


def run_parser(name: str, seconds: int) -> tuple[int, str]:
    """Fuzz one parser in another process: the exit status, and a line of the table."""
    slug = name.replace(" ", "-")
    findings = FOLDER / "findings"
    findings.mkdir(parents=True, exist_ok=True)
    command = [
        *(sys.executable, __file__, "--parser", name, "--", f"-max_total_time={seconds}"),
        *(f"-rss_limit_mb={MEMORY_MIB}", f"-timeout={INPUT_SECONDS}", f"-max_len={MAX_BYTES}"),
        *("-print_final_stats=1", f"-artifact_prefix={findings}/{slug}-"),
        str(FOLDER / "corpus" / slug),
    ]
    start = time.monotonic()
    ended = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    log = ended.stdout + ended.stderr
    (FOLDER / f"{slug}.log").write_text(log, "utf-8")
    inputs = re.search(r"stat::number_of_executed_units:\s*(\d+)", log)
    edges = re.findall(r"cov: (\d+)", log)
    line = (
        f"{name:16} {inputs[1] if inputs else '?':>9} {edges[-1] if edges else '?':>7} "
        f"{time.monotonic() - start:7.0f}  {'ok' if not ended.returncode else 'FINDING'}"
    )
    return ended.returncode, line


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="for each parser")
    parser.add_argument("--parser", help="only this parser")
    parser.add_argument("libfuzzer", nargs="*", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.libfuzzer:
        fuzz(arguments.parser, arguments.libfuzzer)
    import parsers

    names = [arguments.parser] if arguments.parser else list(parsers.PARSERS)
    print(f"{'parser':16} {'inputs':>9} {'edges':>7} {'seconds':>7}")
    status = 0
    for name in names:
        code, line = run_parser(name, arguments.seconds)
        status |= code != 0
        print(line, flush=True)
    if status:
        print(f"Inputs of the findings: {FOLDER / 'findings'}; logs: {FOLDER}")
    return status


if __name__ == "__main__":
    sys.exit(main())
