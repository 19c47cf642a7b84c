"""Devices, ranks and precision. Launching is torchrun's: nothing here starts a process."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from nas_apps.core.errors import UserError


@dataclass(frozen=True)
class Runtime:
    """Where a run computes.

    device: of this rank. rank, world: this process among how many. bf16: autocast to bfloat16.
    """

    device: torch.device
    rank: int = 0
    world: int = 1
    bf16: bool = False

    @property
    def leads(self) -> bool:
        """Whether this rank writes the run folder."""
        return self.rank == 0

    def share(self, number: int) -> slice:
        """This rank's part of a batch of `number` items; the parts of all ranks make the whole."""
        return slice(self.rank * number // self.world, (self.rank + 1) * number // self.world)

    def autocast(self) -> AbstractContextManager[Any]:
        """The precision of forward passes."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)

    def average_(self, tensors: Sequence[Tensor], weight: float) -> None:
        """Replace each tensor by its mean over ranks, weighted by the items each rank saw; one message for all."""
        if self.world == 1 or not tensors:
            return
        flat = torch.cat(
            [t.detach().reshape(-1).double() for t in tensors] + [torch.ones(1, device=self.device).double()]
        )
        flat *= weight
        dist.all_reduce(flat)
        flat /= flat[-1].clone()
        at = 0
        for tensor in tensors:
            tensor.copy_(flat[at : at + tensor.numel()].view_as(tensor))
            at += tensor.numel()

    def means(self, stats: Mapping[str, Tensor], weight: float) -> dict[str, Tensor]:
        """Scalars averaged over ranks, still on the device: reading them is the caller's wait."""
        values = [torch.as_tensor(v, device=self.device).detach().double().clone() for v in stats.values()]
        self.average_(values, weight)
        return dict(zip(stats, values, strict=True))

    def gather(self, item: Any) -> list[Any]:
        """`item` of every rank, in rank order."""
        if self.world == 1:
            return [item]
        items: list[Any] = [None] * self.world
        dist.all_gather_object(items, item)
        return items

    def wait(self) -> None:
        """Until every rank is here."""
        if self.world > 1:
            dist.barrier()


def find_device(name: str) -> torch.device:
    """The device called `name`; "auto" is CUDA where there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    here = {"cpu": True, "cuda": torch.cuda.is_available()}
    if device.type not in here:
        raise UserError(f"device: no {name!r}; allowed: auto, cpu, cuda, cuda:N")
    if not here[device.type]:
        raise UserError(
            f"device: {name!r} asked for, but torch {torch.__version__} sees no {device.type.upper()} device here"
        )
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"device: no {name!r}; allowed: cuda:0 to cuda:{torch.cuda.device_count() - 1}, those here")
    return device


@contextmanager
def start(device: str = "auto", precision: str = "auto") -> Iterator[Runtime]:
    """The runtime of this process: one of torchrun's ranks when it started us, alone otherwise.

    A process group that the caller made is used as it is, and left.
    """
    found, world = find_device(device), int(os.environ.get("WORLD_SIZE", "1"))
    if found.type == "cuda":
        found = _own(found, int(os.environ.get("LOCAL_RANK", "0")), world)
        torch.cuda.set_device(found)
    bf16 = precision == "bf16" or (
        precision == "auto" and found.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    )
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=precision != "fp32"):
        if world == 1 or dist.is_initialized():
            rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
            yield Runtime(found, rank, world, bf16)
            return
        # ranks wait for one another where one decodes longer than the others, or exports
        dist.init_process_group("nccl" if found.type == "cuda" else "gloo", timeout=timedelta(hours=2))
        try:
            yield Runtime(found, dist.get_rank(), world, bf16)
        finally:
            dist.destroy_process_group()


def _own(device: torch.device, local_rank: int, world: int) -> torch.device:
    """The CUDA device of this rank."""
    if world == 1:
        return torch.device("cuda", device.index or 0)
    if device.index is not None:
        raise UserError(f"device: got '{device}' with {world} processes; allowed: cuda, one device for each of them")
    if local_rank >= torch.cuda.device_count():
        raise UserError(
            f"device: more processes here than the {torch.cuda.device_count()} CUDA devices of this machine"
        )
    return torch.device("cuda", local_rank)
