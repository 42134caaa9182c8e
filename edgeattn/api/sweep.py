"""``edgeattn.sweep``"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeattn.api.arguments import (
    StrPath,
    check_positive,
    check_writable,
    optional_path,
    refuse_access,
)
from edgeattn.api.result import Result
from edgeattn.cluster import libraries
from edgeattn.converters import import_converters
from edgeattn.errors import UsageError
from edgeattn.files import check_suffix
from edgeattn.printable import counted

if TYPE_CHECKING:
    from edgeattn_converters.sweep.boards import BoardPools, DeviceSummary
    from edgeattn_converters.sweep.comparison import Change
    from edgeattn_converters.sweep.run import SweepSummary


@dataclass(frozen=True, repr=False)
class SweepResult(Result):
    """What a sweep did, and the rows of its table.

    Attributes:
        summary: Numbers of bundles, the rows, and errors of bundles without a result.
        changes: Differences to an earlier table, if one was given.
        devices: What was measured on boards, if there were any.
    """

    summary: SweepSummary
    changes: tuple[Change, ...] | None = None
    devices: DeviceSummary | None = None

    @property
    def rows(self) -> tuple[dict[str, Any], ...]:
        """The rows of the table: dictionaries with its columns."""
        return self.summary.rows

    @property
    def exit_code(self) -> int:
        """0 if every result is stored and none is a failure, 1 for failures, else that of an
        error that prevented a result from being stored, or 5 if boards failed."""
        failed = self.devices is not None and bool(self.devices.errors)
        return max(self.summary.exit_code, 5 if failed else 0)

    @property
    def counts(self) -> dict[str, int]:
        """The number of rows of each verdict, or of each status of rows without a verdict."""
        return dict(Counter(row.get("verdict") or row["status"] for row in self.rows))

    def _document(self) -> dict[str, Any]:
        summary = self.summary
        changes = self.changes
        return {
            "results": summary.results,
            "bundles": summary.bundles,
            "pending": list(summary.pending),
            "selected": summary.selected,
            "done": summary.done,
            "estimated_seconds": summary.estimate_s,
            "dry_run": summary.dry_run,
            "rows": len(self.rows),
            "counts": self.counts,
            "errors": {label: error.message for label, error in summary.errors.items()},
            **({} if changes is None else {"changes": [item.to_json() for item in changes]}),
            **({} if self.devices is None else {"devices": self.devices.to_json()}),
        }

    def _summary(self) -> str:
        counts = ", ".join(f"{count} {name}" for name, count in self.counts.items())
        return f"{counted(len(self.rows), 'row')}: {counts}" if counts else "no rows"

    def _table(self) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
        header = ["model", "lowering", "format", "scheme", "data", "status", "verdict"]
        return header, [[str(row.get(name) or "") for name in header] for row in self.rows]


def sweep(
    plan: StrPath,
    *,
    where: Mapping[str, str] | None = None,
    limit: int | None = None,
    jobs: int | None = None,
    scheduler: str | None = None,
    retry: bool = False,
    dry_run: bool = False,
    compare: StrPath | None = None,
    report: StrPath | None = None,
    devices: Sequence[str] = (),
    python: str | None = None,
    ssh_config: StrPath | None = None,
) -> SweepResult:
    """Convert and validate many models, and write one table of all artifacts.

    Args:
        plan: A TOML file, or its URL.
        where: Patterns by property (``model``, ``target``, ``lowering``, ``data``), such as
            ``{"model": "digits*"}``: only these bundles are computed.
        limit: The largest number of bundles to compute.
        jobs: Bundles in parallel on this machine; default: one per core.
        scheduler: The address of a Dask scheduler, whose workers compute the bundles.
        retry: Whether to compute results again that are failures.
        dry_run: Whether to compute and write nothing.
        compare: An earlier table, or its URL: :attr:`SweepResult.changes` has what differs.
        report: A summary page to write, as HTML.
        devices: Pools of boards that measure what passes: ``NAME=USER@HOST,USER@HOST``, or
            ``NAME`` if the boards joined the scheduler, or ``NAME=COUNT`` to wait for some.
            ``python`` and ``ssh_config`` say how listed boards are reached.

    Results in the store are not computed again. Raises :class:`UsageError` for an invalid plan,
    and :class:`DeviceError` if the scheduler does not respond.
    """
    check_positive(limit=limit, jobs=jobs)
    page = optional_path(report)
    if page is not None and dry_run:
        raise UsageError(
            "--report has no effect with --dry-run, which writes nothing.", hint="Omit one of them."
        )
    check_writable(page)
    check_suffix(page, ".html", ".htm")
    if page is not None:
        from edgeattn.report.sweep_page import require_libraries

        require_libraries()
    # The store and the table need more packages than the converters do.
    libraries.require(*libraries.STORE, purpose="edgeattn sweep")
    module = import_converters("edgeattn_converters.sweep.run")
    options = module.SweepOptions(dict(where or {}), limit, jobs, scheduler, retry, dry_run)
    comparison = import_converters("edgeattn_converters.sweep.comparison")
    earlier = None if compare is None else comparison.read_table(str(compare))
    boards = _boards(devices, python, optional_path(ssh_config), scheduler)
    if boards is not None and not dry_run:
        boards.check()
    summary = module.sweep(str(plan), options)
    measured = None
    if boards is not None and not dry_run:
        measured = boards.measure(summary.rows, summary.results)
    changes = None if earlier is None else tuple(comparison.changes(earlier, summary.rows))
    if page is not None:
        _write_page(page, summary, changes)
    return SweepResult(summary, changes, measured)


def _boards(
    devices: Sequence[str], python: str | None, config: Path | None, scheduler: str | None
) -> BoardPools | None:
    """The boards; None if there are none."""
    if not devices:
        refuse_access(python, config, without="--device")
        return None
    pools = import_converters("edgeattn_converters.boards.pools").parse_pools(
        devices, python, config, scheduler=scheduler is not None
    )
    boards: BoardPools = import_converters("edgeattn_converters.sweep.boards").BoardPools(
        pools, scheduler
    )
    return boards


def _write_page(page: Path, summary: SweepSummary, changes: Sequence[Change] | None) -> None:
    from edgeattn.files import write_text
    from edgeattn.report.sweep_page import render_sweep

    listed = None if changes is None else [item.to_json() for item in changes]
    write_text(page, render_sweep(summary.rows, results=summary.results, changes=listed))
