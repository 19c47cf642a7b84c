"""Trials on a Ray cluster, whose machines share the file system with this one."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Generator, Mapping, Sequence
from typing import Any

import ray
from ray.exceptions import RayError

from nas_apps.core.errors import UserError
from nas_apps.core.sweep_run import STOP_SECONDS, Ended, Work, here


def connect(address: str) -> None:
    """Join the cluster at an address; `local` starts one here, for this sweep alone."""
    wrong = f"--ray: got {address!r}; allowed: local, auto, HOST:PORT of a cluster"
    host, _, port = address.rpartition(":")
    try:
        if address not in ("local", "auto"):
            socket.create_connection((host, int(port)), timeout=10).close()  # Ray itself would wait for minutes
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, ValueError, OverflowError, RuntimeError) as error:
        raise UserError(f"{wrong} ({str(error).splitlines()[0]})") from None


def on_ray(works: Sequence[Work], jobs: int) -> Generator[list[Ended]]:
    """Run trials as tasks of one CPU and, where the cluster has any and the recipe is not for a CPU, one GPU each."""
    gpus = ray.cluster_resources().get("GPU", 0) > 0
    told = {name: os.environ[name] for name in ("OMP_NUM_THREADS",) if name in os.environ}
    task = ray.remote(num_cpus=1, max_retries=0)(_on_worker)
    waiting, flying = list(works), dict[Any, Work]()
    try:
        while waiting or flying:
            while waiting and len(flying) < jobs:
                work = waiting.pop(0)
                flying[task.options(num_gpus=int(gpus and work.gpu)).remote(work, told)] = work
            done, _ = ray.wait(list(flying), timeout=1)
            yield [Ended(flying.pop(over).name, _failure(over)) for over in done]
    finally:
        for running in flying:
            ray.cancel(running)
        if flying:
            ray.wait(list(flying), num_returns=len(flying), timeout=STOP_SECONDS)
        ray.shutdown()


def _on_worker(work: Work, environment: Mapping[str, str]) -> str | None:
    return next(ended.failure for over in here([work], [environment]) for ended in over)


def _failure(task: Any) -> str | None:
    try:
        failure: str | None = ray.get(task)
    except RayError as error:
        return f"ray: {str(error).strip().splitlines()[-1]}"
    return failure
