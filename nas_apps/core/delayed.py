"""The logits as they were some steps ago: what a network that lags behind its super-net is mixed with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from nas_apps.core.arch import Arch, key_of


class Delayed(nn.Module):
    """A copy of the logits of `arch` that stays behind them until it is told to catch up. Without an arch there is
    nothing to copy, and nothing happens.

    The copies are buffers, so that the objective that owns this keeps them in its state. The arch is reached through a
    function: a module in a module would give its logits to the optimiser of the weights, and be copied with them.
    """

    def __init__(self, arch: Arch | None = None) -> None:
        super().__init__()
        self._arch: Callable[[], Arch | None] = lambda: arch
        for name, logits in self._live().items():
            self.register_buffer(name, logits.detach().clone())

    def catch_up(self) -> None:
        """Copy the logits as they are now."""
        with torch.no_grad():
            for name, logits in self._live().items():
                self.get_buffer(name).copy_(logits)

    @contextmanager
    def using(self) -> Iterator[None]:
        """Put in force what the draw in force would be under the copied logits, without a gradient."""
        arch = self._arch()
        if arch is None:
            yield
            return
        logits = {name: self.get_buffer(key_of(name)) for name in arch.space}
        with arch.using(arch.redraw(arch.current, logits)):
            yield

    def _live(self) -> dict[str, Tensor]:
        arch = self._arch()
        return {} if arch is None else {key_of(name): logits for name, logits in arch.logits.items()}
