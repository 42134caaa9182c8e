"""The packages of the extra ``cluster``, which only sweeps and ``--scheduler`` need."""

import importlib.util

from edgeattn.errors import UsageError

STORE = ("fsspec", "pyarrow")
DASK = ("dask", "distributed")


def require(*names: str, purpose: str) -> None:
    """Raise :class:`UsageError` if one of these packages is not installed."""
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(
            f"{purpose} requires packages that are not installed: {', '.join(missing)}.",
            hint="Install them with: pip install 'edgeattn[cluster]'",
        )
