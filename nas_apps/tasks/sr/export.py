"""Trained up-samplers as files, and back. Reading them needs neither the images nor anything else of a search."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from nas_apps.core import exported, files
from nas_apps.core.cell import Fixed
from nas_apps.core.errors import require
from nas_apps.core.genotype import Genotype
from nas_apps.tasks.sr.network import Network, Upscaler
from nas_apps.tasks.sr.spaces import SRSpace


@dataclass(frozen=True)
class Model:
    """All that a network is built from: what model.json holds.

    kept: the genotype. about: what else a user of the network wants to know, such as what it was trained on.
    """

    scale: int
    space: SRSpace
    network: Network
    kept: dict[str, tuple[tuple[str, ...], ...]]
    about: dict[str, Any] | None = None

    def build(self) -> Upscaler:
        """The network, with the weights it begins with."""
        return Upscaler(Fixed(self.space.choices(), Genotype(self.kept)), self.space, self.network, self.scale)


def write(
    network: Upscaler,
    genotype: Genotype,
    space: SRSpace,
    settings: Network,
    folder: Path,
    *,
    about: dict[str, Any] | None = None,
) -> None:
    """Write model.safetensors and model.json; `about` is plain data that goes along."""
    kept = dict(space.canonical(genotype).kept)
    exported.write(folder, network, Model(network.scale, space, settings, kept, about), "sr")


def read(folder: Path | str) -> Model:
    """What model.json of a run says."""
    return exported.read(Path(folder), Model, "sr")


def load_network(folder: Path | str) -> Upscaler:
    """The network of a run, in evaluation mode on the CPU: floats `[B, 3, H, W]` to `[B, 3, scale * H, scale * W]`."""
    network = read(folder).build()
    exported.load_weights(network, Path(folder))
    return network.requires_grad_(False).eval()


def write_onnx(network: Upscaler, path: Path) -> None:
    """Write the network as ONNX: floats "image" to floats "enlarged", of any batch, height and width; not clamped.

    Traced, which a network of one exit allows: it takes a tenth of a second, torch's newer exporter many.
    """
    require("onnx", extra="sr")
    sizes = {"image": ("height", "width"), "enlarged": ("enlarged_height", "enlarged_width")}
    axes = {name: {0: "batch", 2: height, 3: width} for name, (height, width) in sizes.items()}
    example = torch.zeros(1, 3, 8, 8, device=network.stem.weight.device)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Constant folding|You are using the legacy|The feature will be removed")
        torch.onnx.export(
            network,
            (example,),
            buffer,  # type: ignore[arg-type]  # a file or a buffer, where it traces
            dynamo=False,
            opset_version=17,
            input_names=["image"],
            output_names=["enlarged"],
            dynamic_axes=axes,
        )
    files.write(path, buffer.getbuffer())
