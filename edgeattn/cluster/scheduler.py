"""Calls on the workers of a Dask scheduler, some of which may die, as may the scheduler."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from edgeattn import progress
from edgeattn.cluster.libraries import DASK, require
from edgeattn.cluster.versions import SOURCE, package_versions
from edgeattn.errors import DeviceError, UsageError

# Seconds to wait for a scheduler at the start, and for one that was lost and may be restarted.
CONNECT_S, RESTART_S = 10.0, 90.0
# Losses of the scheduler in a row, without a call that ended in between.
MAX_LOSSES = 3
# What to do after the scheduler was lost, if the caller stores results.
RESUME = "Results so far are stored. Rerun the command to resume."

Item = TypeVar("Item")


@dataclass(frozen=True)
class EndedCall(Generic[Item]):
    """A call that ended: its value, or its error.

    ``died`` is whether every worker that ran it died, also when nothing else ran.
    """

    item: Item
    value: Any = None
    error: BaseException | None = None
    died: bool = False


class Cluster:
    """The workers of the scheduler at ``address``, which all have the same versions.

    Attributes:
        count: The number of workers at the start.
        versions: Versions of the packages on the workers.
    """

    def __init__(self, address: str, lost_hint: str = RESUME) -> None:
        self._address, self._lost_hint = address, lost_hint
        self._client = connect(address)
        try:
            # Workers that just died are started again by their nannies.
            with contextlib.suppress(TimeoutError):
                self._client.wait_for_workers(1, timeout=CONNECT_S)
            self.count = max(len(_workers_of(self._client)), 1)
            self.versions = common_versions(self._client)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Disconnect. Calls that have not ended are cancelled."""
        self._client.close()

    def check_versions(self) -> None:
        """Raise :class:`UsageError` if this process has other versions than the workers."""
        here = package_versions()
        for name in sorted(here.keys() & self.versions.keys()):
            if here[name] != self.versions[name]:
                raise UsageError(
                    f"The Dask workers have {name} {self.versions[name]}, and this process has "
                    f"{here[name]}.",
                    hint="Install the same versions everywhere.",
                )

    def run(
        self,
        function: Callable[..., Any],
        calls: Mapping[Item, tuple[Any, ...]],
        *,
        values: bool = True,
    ) -> Generator[EndedCall[Item], None, None]:
        """Call ``function`` with the arguments of each item, and yield the calls as they end.

        A call whose worker dies is started again on another, as often as the scheduler allows
        (``distributed.scheduler.allowed-failures``, by default 3 times), and after all others once
        more in the same way, alone. If the scheduler is lost, this waits for it to be started again
        with its workers, and starts the calls again that have not ended.

        Without ``values``, results stay on the workers, which may have died since.
        Raises :class:`DeviceError` if the scheduler does not come back.
        """
        suspects: dict[Item, tuple[Any, ...]] = {}
        for ended in self._run(function, calls, values):
            if ended.died:
                suspects[ended.item] = calls[ended.item]
            else:
                yield ended
        # Dask blames every call that waited on a worker that died. Only one that ends its workers
        # when nothing else runs is at fault.
        for item, arguments in suspects.items():
            yield from self._run(function, {item: arguments}, values)

    def _run(
        self, function: Callable[..., Any], calls: Mapping[Item, tuple[Any, ...]], values: bool
    ) -> Iterator[EndedCall[Item]]:
        waiting, losses = dict(calls), 0
        while waiting:
            for ended in self._until_lost(function, waiting, values):
                losses = 0
                del waiting[ended.item]
                yield ended
            if waiting:
                losses += 1
                self._reconnect(losses)

    def _until_lost(
        self, function: Callable[..., Any], calls: Mapping[Item, tuple[Any, ...]], values: bool
    ) -> Iterator[EndedCall[Item]]:
        """The calls as they end; fewer than all if the connection is lost."""
        from distributed import as_completed
        from distributed.client import FutureCancelledError
        from distributed.comm import CommClosedError
        from distributed.scheduler import KilledWorker

        try:
            futures = {
                self._client.submit(function, *arguments, pure=False): item
                for item, arguments in calls.items()
            }
            with self._client.as_current():
                completed = as_completed(futures)
            for future in completed:
                item = futures[future]
                if future.status == "finished":
                    yield EndedCall(item, value=future.result() if values else None)
                elif future.status == "error":
                    error = future.exception()
                    yield EndedCall(item, error=error, died=isinstance(error, KilledWorker))
                else:
                    return
        except (FutureCancelledError, CommClosedError):
            return

    def _reconnect(self, losses: int) -> None:
        """Wait until the scheduler and a worker are there again, with the same versions."""
        progress.report("the Dask scheduler was lost, waiting for it")
        with contextlib.suppress(Exception):
            self._client.close(timeout=1)
        lost = DeviceError(
            f"The connection to the Dask scheduler {self._address} was lost.",
            hint=self._lost_hint,
        )
        end = time.monotonic() + RESTART_S
        while losses <= MAX_LOSSES and time.monotonic() < end:
            with contextlib.suppress(DeviceError):
                self._client = connect(self._address)
                with contextlib.suppress(TimeoutError):
                    self._client.wait_for_workers(1, timeout=max(end - time.monotonic(), 1))
                if _workers_of(self._client):
                    self._check_same_versions()
                    return
                self._client.close()
            time.sleep(1)
        raise lost

    def _check_same_versions(self) -> None:
        versions = common_versions(self._client)
        for name in sorted({*versions, *self.versions}):
            before, now = (item.get(name) for item in (self.versions, versions))
            if before != now:
                raise UsageError(
                    f"{name} was {before} on the Dask workers, and is {now} since the scheduler "
                    "was restarted.",
                    hint="Rerun the command to use the new version.",
                )


@contextlib.contextmanager
def open_cluster(address: str, lost_hint: str = RESUME) -> Iterator[Cluster]:
    """The workers of the scheduler at ``address``; ``lost_hint`` says what to do if it is lost.

    Raises :class:`DeviceError` if it does not respond or has no workers, and :class:`UsageError`
    if it or a worker has other versions.
    """
    require(*DASK, purpose="--scheduler")
    cluster = Cluster(address, lost_hint)
    try:
        yield cluster
    finally:
        cluster.close()


def connect(address: str) -> Any:
    """A client of the scheduler at ``address``.

    Raises :class:`UsageError` for an invalid address, and :class:`DeviceError` if nothing responds.
    """
    from distributed import Client

    try:
        with warnings.catch_warnings():
            # Of versions, which are checked below: a scheduler needs no NumPy, for example.
            warnings.simplefilter("ignore")
            return Client(address, timeout=CONNECT_S, set_as_default=False)
    except ValueError as error:
        raise UsageError(
            f"--scheduler {address}: {error}", hint="Pass an address such as tcp://HOST:8786."
        ) from error
    except (OSError, RuntimeError) as error:
        raise DeviceError(
            f"The Dask scheduler {address} does not respond: {error}",
            hint="Start it with: dask scheduler",
        ) from error


def _workers_of(client: Any) -> list[str]:
    return list(client.scheduler_info(n_workers=-1)["workers"])


def common_versions(client: Any) -> dict[str, str]:
    """The versions on the workers, which must be equal, as those of Dask on all sides."""
    reported = client.get_versions(packages=[])
    sides = {"this process": reported["client"], "the scheduler": reported["scheduler"]}
    sides |= {f"the worker {name}": item for name, item in reported["workers"].items()}
    ours = sides["this process"]["packages"].get("distributed")
    for side, item in sides.items():
        other = (item or {}).get("packages", {}).get("distributed")
        if other != ours:
            raise UsageError(
                f"{side} has distributed {other}, and this process has {ours}.",
                hint="Install the same versions of dask and distributed everywhere.",
            )
    if not reported["workers"]:
        raise DeviceError(
            "The Dask scheduler has no workers.", hint="Start one with: dask worker ADDRESS"
        )
    try:
        versions = client.run(package_versions)
    except ImportError as error:
        raise UsageError(
            f"A Dask worker has no edgeattn: {error}",
            hint="Install it there with: pip install 'edgeattn[cluster,convert]'",
        ) from error
    first_name, first = next(iter(versions.items()))
    for name, other in versions.items():
        for package in sorted({*first, *other}, key=lambda name: (name == SOURCE, name)):
            if first.get(package) != other.get(package):
                raise UsageError(
                    f"Dask workers have different versions of {package}: "
                    f"{first.get(package)} on {first_name}, {other.get(package)} on {name}.",
                    hint="Install the same versions on all workers.",
                )
    return dict(first)
