"""Many machines by Ray."""

import os
from importlib.util import find_spec
from typing import Any, Literal

RunnerName = Literal["local", "ray"]
"""Where work is done: on this machine, or on a cluster of Ray."""
INSTALL = "Ray is not installed; run: pip install 'anomalib-memd[ray]'."


def require_ray() -> None:
    """Raise what to do if Ray cannot be used.

    Raises:
        RuntimeError: If it is not installed.
    """
    if find_spec("ray") is None:
        raise RuntimeError(INSTALL)


def connect() -> Any:
    """Connect to the cluster of ``RAY_ADDRESS``, or start one on this machine, unless that has been done.

    Returns:
        The package ``ray``.

    Raises:
        RuntimeError: If Ray is not installed, or there is no cluster at the address.
    """
    require_ray()
    # Ray would let workers build their environment anew where the driver was started by a package manager.
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    import ray  # noqa: PLC0415  an extra

    if not ray.is_initialized():
        try:
            ray.init(include_dashboard=False, log_to_driver=False, logging_level="warning")
        except ConnectionError as error:
            msg = (
                f"No Ray cluster at RAY_ADDRESS={os.environ.get('RAY_ADDRESS')} ({error}); start one: ray start --head."
            )
            raise RuntimeError(msg) from error
    return ray
