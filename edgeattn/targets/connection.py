"""Calls to functions on a device, over an ssh connection."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from edgeattn.process.worker import Worker, WorkerDied
from edgeattn.targets.ssh import SSHHost

# Seconds after which a device hangs. A lost connection ends sooner, because ssh detects it.
CALL_TIMEOUT = 900.0


@dataclass(frozen=True)
class Connection:
    """A worker process on ``host``."""

    worker: Worker
    host: SSHHost

    def call(self, function: Callable[..., Any], **arguments: Any) -> Any:
        """The result of a module-level function, called on the device with ``arguments``.

        Raises :class:`DeviceError` if the connection ends, and the errors of the function.
        """
        return self.call_with_tensors(function, arguments)[0]

    def call_with_tensors(
        self,
        function: Callable[..., Any],
        arguments: Mapping[str, Any],
        tensors: Mapping[str, Any] | None = None,
        *,
        timeout: float = CALL_TIMEOUT,
    ) -> tuple[Any, Any]:
        """As :meth:`call`, with arrays in both directions; ``timeout`` is in seconds."""
        name = f"{function.__module__}:{function.__name__}"
        try:
            return self.worker.call(name, arguments, tensors, timeout=timeout)
        except WorkerDied as error:
            raise self.host.error_from(error.output or f"the connection {error.message}") from error
