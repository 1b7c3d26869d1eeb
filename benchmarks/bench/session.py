"""Ray, as long as a grid lasts: one of our own on this machine, or a cluster that answers.

Ray itself tries for minutes to reach an address, whatever is there; here somebody knocks first.
"""

import os
import secrets
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench import environment
from sites.errors import InputError
from sites.home import home

KNOCK_SECONDS = 10
QUIET: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False}
THIS_MACHINE_ONLY = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Makes Ray listen to this machine alone, as it does on macOS: who reaches its ports may run any code as this user."""
_PASSWORD: dict[str, str] = {}
"""For a Ray of our own, lest other users of this machine do. Ray reads it once, when it loads."""


@contextmanager
def session(jobs: int, address: str | None) -> Iterator[Any]:
    """The module `ray`, connected; when the block ends, Ray's processes are gone and the environment is as it was.

    Args:
        jobs: Processors of a Ray of our own.
        address: That of a cluster, or None for a Ray of our own.

    Raises:
        InputError: There is no such cluster, or Ray cannot start.
    """
    before = dict(os.environ)
    on_sigterm = signal.getsignal(signal.SIGTERM)
    workers = {**environment.for_workers(), "FEDWARD_HOME": str(home())}
    os.environ.update(workers)  # Ray's own processes take theirs from here
    if address is None:
        if "ray" not in sys.modules:
            _PASSWORD.update({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)})
        os.environ.update({**environment.CLOSED_PROXY, **THIS_MACHINE_ONLY, **_PASSWORD})
        os.environ.pop("RAY_ADDRESS", None)
    try:
        import ray
        from ray._private import ray_constants

        ray_constants.ENABLE_RAY_CLUSTER = address is not None  # it may have been imported before
        _hush(ray)
        folder = None
        if address is None:
            folder = _start(ray, jobs)
        else:
            _join(ray, address, workers)
        if on_sigterm is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, on_sigterm)  # Ray has put its own in its place
        try:
            yield ray
        finally:
            ray.shutdown()
            if folder is not None:
                _remove(folder)
    finally:
        os.environ.clear()
        os.environ.update(before)


def _remove(folder: Path) -> None:
    """Delete a folder in which dying processes may still write their last lines."""
    for _ in range(10):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.1)


def _hush(ray: Any) -> None:
    """Keep Ray from writing what befell a worker to standard output, where a JSON document may be: no option does."""
    ray._private.worker.listen_error_messages = lambda _worker, _threads_stopped: None


def _start(ray: Any, jobs: int) -> Path:
    """A Ray of our own, whatever other Ray runs here; returns the folder of its logs and sockets."""
    try:
        started = ray.init("local", num_cpus=jobs, object_store_memory=256 * 2**20, include_dashboard=False, **QUIET)
    except (OSError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        raise InputError(f"Ray could not start on this machine ({error}); --jobs 1 does without") from error
    return Path(started.address_info["session_dir"])


def _join(ray: Any, address: str, workers: dict[str, str]) -> None:
    try:
        ray.init(_knocked(address), runtime_env={"env_vars": workers}, **QUIET)
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(
            f"found no Ray cluster to join at {address!r} ({error}); expected HOST:PORT of the head of one that this "
            "machine is a node of, or auto"
        ) from error


def knock(address: str) -> None:
    """See whether anybody listens at HOST:PORT.

    Raises:
        OSError: Nobody does.
        ValueError: This is no address.
    """
    host, _, port = address.rpartition(":")
    socket.create_connection((host.strip("[]"), int(port)), timeout=KNOCK_SECONDS).close()


def _knocked(address: str) -> str:
    """The address of a Ray head that answers.

    Raises:
        OSError: Nobody is there, or it is no Ray.
        ValueError: This is no address.
    """
    import grpc
    from ray._private.grpc_utils import init_grpc_channel
    from ray._private.services import canonicalize_bootstrap_address_or_die, find_node_ids
    from ray.core.generated.gcs_service_pb2 import CheckAliveRequest
    from ray.core.generated.gcs_service_pb2_grpc import NodeInfoGcsServiceStub

    if "://" in address:
        raise ValueError("an address has no ://")
    found: str = canonicalize_bootstrap_address_or_die(address)
    knock(found)
    channel = init_grpc_channel(found, [("grpc.enable_http_proxy", 0)])
    try:
        NodeInfoGcsServiceStub(channel).CheckAlive(CheckAliveRequest(), timeout=KNOCK_SECONDS)
    except grpc.RpcError as error:
        if error.code() is not grpc.StatusCode.UNAUTHENTICATED:  # else Ray itself says what is amiss
            raise ConnectionError("what answers there is not the head of a Ray cluster") from None
    finally:
        channel.close()
    deadline = time.monotonic() + KNOCK_SECONDS
    while not find_node_ids():  # a head that has just begun to answer is about to become one
        if time.monotonic() > deadline:
            raise ConnectionError(f"this machine is no node of it; `ray start --address {found}` makes it one")
        time.sleep(0.5)
    return found
