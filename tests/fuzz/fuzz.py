"""A seeded fuzzer that opens damaged and hostile variants of real files with edgeattn.

    python tests/fuzz/fuzz.py --count 10000 --seed 0 [--kind artifact|bundle|keras]

Keras files are loaded and inspected, artifacts and bundles are validated (``damaged_bundles.py``).
Every variant must open or raise an error of edgeattn other than exit code 70, within the time limit
and without writing a file, and what passes must compute what the undamaged file does. Runtimes that
crash do so in a worker process. Everything else is a finding; that of a Keras file is saved.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import damaged_bundles
from edgeattn.errors import ConversionError, EdgeattnError
from edgeattn.inspection import file_kind
from edgeattn.process.worker import WorkerDiedError
from edgeattn_converters.worker.client import ConversionWorker
from mutations import write_variant

ROOT = Path(__file__).parents[2]
# Longest time that loading one variant may take; generous, so that busy machines pass.
SECONDS = 600.0
KERAS = "keras"


@dataclass(frozen=True)
class Finding:
    """A variant that was not handled as required.

    Attributes:
        seed: seed that creates the variant.
        source: name of the file that it is a variant of.
        outcome: what happened.
    """

    seed: int
    source: str
    outcome: str


def outcome_of(path: Path, converter: ConversionWorker) -> str:
    """Open a file: return ``opened``, the class of the error, ``died``, ``hang`` or ``fault``."""
    try:
        if file_kind(path) == KERAS:
            arguments = {"source": {"path": str(path)}, "attempt_conversion": False}
            converter.audit(path, None)
            converter.call("inspect", arguments, activity=f"loading {path.name}", timeout=SECONDS)
        return "opened"
    except (WorkerDiedError, ConversionError) as error:
        # The audit has a time limit of its own; a file that passes it must load or fail.
        return "hang" if "took longer" in error.message else "died"
    except EdgeattnError as error:
        return type(error).__name__ if error.exit_code != 70 else f"fault: {error.message}"


def fuzz_keras_files(
    sources: list[Path], count: int, seed: int, *, findings_folder: Path | None = None
) -> tuple[Counter[str], list[Finding]]:
    """Open ``count`` variants; return the number of each outcome, and the findings.

    Variants that are findings are moved to ``findings_folder``.
    """
    outcomes: Counter[str] = Counter()
    findings: list[Finding] = []
    with (
        ConversionWorker() as converter,
        tempfile.TemporaryDirectory() as top,
    ):
        for number in range(seed, seed + count):
            generator = random.Random(number)
            source = sources[number % len(sources)]
            folder = Path(top) / str(number)
            folder.mkdir()
            path = write_variant(source, folder, generator)
            before = _listing(Path(top))
            try:
                outcome = outcome_of(path, converter)
            except Exception as error:  # any other exception is a finding
                outcome = f"fault: {type(error).__name__}: {error}"
            outcomes[outcome.split(":")[0]] += 1
            if _listing(Path(top)) != before:
                outcome = "fault: a file was written"
            if outcome.startswith(("fault", "hang")):
                findings.append(Finding(number, source.name, outcome))
                if findings_folder is not None:
                    findings_folder.mkdir(parents=True, exist_ok=True)
                    shutil.move(path, findings_folder / f"{number}-{path.name}")
            shutil.rmtree(folder, ignore_errors=True)
    return outcomes, findings


def _listing(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


def keras_files() -> list[Path]:
    """Small Keras files of several versions."""
    bank = ROOT / "tests" / "specimens"
    models = sorted(bank.glob("*/*.h5"))[::7] + sorted(bank.glob("*/*.keras"))[::4]
    return [path for path in models if path.stat().st_size < 60_000]


def main() -> int:
    kinds = ("artifact", "bundle", KERAS)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000, help="of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", choices=kinds, action="append")
    parser.add_argument("--keep", type=Path, default=ROOT / ".out" / "fuzz")
    arguments = parser.parse_args()
    failed = False
    for kind in arguments.kind or kinds:
        print(f"{arguments.count:,} variants of {kind}s, from seed {arguments.seed}", flush=True)
        if kind == KERAS:
            outcomes, findings = fuzz_keras_files(
                keras_files(), arguments.count, arguments.seed, findings_folder=arguments.keep
            )
            names: Iterable[str] = [name for name, _ in outcomes.most_common()]
            lines = [f"seed {item.seed} of {item.source}: {item.outcome}" for item in findings]
        else:
            outcomes, wrong = damaged_bundles.fuzz_in_memory(kind, arguments.count, arguments.seed)
            names = damaged_bundles.OUTCOMES
            lines = [f"{w.name}, seed {w.seed} ({w.variant}): {w.reason}" for w in wrong]
        for name in names:
            print(f"{outcomes[name]:7}  {name}")
        print(*lines, sep="\n", flush=True)
        failed |= bool(lines)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
