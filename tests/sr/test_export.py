"""A trained up-sampler as files, in this process and in others."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from nas_apps.core.cell import Fixed
from nas_apps.core.errors import UserError
from nas_apps.core.parts.derive import Random
from nas_apps.tasks.sr.export import load_network, read, write, write_onnx
from nas_apps.tasks.sr.network import Network, Upscaler
from nas_apps.tasks.sr.spaces import SRSpace
from nas_apps.tasks.sr.tree import Tree

B = SRSpace(Tree("B", cells=3, ups=1, searched=2), channels=16, ops_per_cell=2)
A = SRSpace(Tree("A", cells=2, ups=2, searched=1), channels=8, ops_per_cell=2)
NETS = {"B": (B, Network(), 3), "A": (A, Network(), 4), "tanh": (B, Network(global_skip=False), 2)}


def exported(folder: Path, name: str = "B", seed: int = 0) -> Upscaler:
    space, settings, scale = NETS[name]
    genotype = Random()(space.choices(), {}, torch.Generator().manual_seed(seed))
    network = Upscaler(Fixed(space.choices(), genotype), space, settings, scale)
    write(network, genotype, space, settings, folder, about={"data": "photographs"})
    return network.eval()


@pytest.mark.parametrize("name", list(NETS))
def test_a_network_comes_back_as_it_was(name: str, tmp_path: Path) -> None:
    made, x = exported(tmp_path, name), torch.rand(2, 3, 9, 8)
    found = load_network(tmp_path)
    with torch.no_grad():
        assert torch.equal(found(x), made(x))
    assert not found.training
    assert not any(weight.requires_grad for weight in found.parameters())
    assert read(tmp_path).about == {"data": "photographs"}


def test_what_is_not_part_of_the_network_is_not_in_its_files(tmp_path: Path) -> None:
    exported(tmp_path)
    kept = read(tmp_path).kept
    cells = kept["net.exit"][0][0].count("c")
    assert sum(map(len, kept["cell.op"])) == cells * B.ops_per_cell < len(kept["cell.op"])


def test_two_files_rebuild_the_network_in_a_new_process_without_libraries_of_images(tmp_path: Path) -> None:
    made, x = exported(tmp_path), torch.rand(1, 3, 9, 8)
    save_file({"x": x}, tmp_path / "x.safetensors")
    code = f"""
import sys
hidden = {{"PIL", "onnx", "onnxruntime", "skimage", "sklearn", "timm", "spandrel"}}
class Without:
    def __init__(self, finder): self.finder = finder
    def find_spec(self, name, *args):
        return None if name.split(".")[0] in hidden else self.finder.find_spec(name, *args)
sys.meta_path = [Without(finder) for finder in sys.meta_path]
from safetensors.torch import load_file, save_file
from nas_apps.core.errors import UserError
from nas_apps.tasks.sr.upscale import load
enlarger = load({str(tmp_path)!r})
save_file({{"y": enlarger.upscale(load_file({str(tmp_path / "x.safetensors")!r})["x"])}}, {str(tmp_path / "y")!r})
for ask in (lambda: enlarger.to_onnx("net.onnx"), lambda: enlarger.upscale("image.png")):
    try: ask()
    except UserError as error: print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stderr, done.returncode) == ("", 0)
    assert done.stdout.splitlines() == [
        f"needs {package}, which is not installed: pip install 'nas-apps[sr]'" for package in ("onnx", "PIL")
    ]
    with torch.no_grad():
        assert torch.equal(load_file(tmp_path / "y")["y"], made(x).clamp(0, 1))


@pytest.mark.parametrize("name", list(NETS))
def test_onnxruntime_computes_what_torch_does_for_any_batch_and_size(name: str, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    network = exported(tmp_path, name)
    write_onnx(network, tmp_path / "net.onnx")
    session = runtime.InferenceSession(str(tmp_path / "net.onnx"), providers=["CPUExecutionProvider"])
    for shape in ((1, 3, 8, 8), (2, 3, 5, 21), (3, 3, 1, 1)):
        x = torch.rand(shape)
        with torch.no_grad():
            expected = network(x)
        (found,) = session.run(["enlarged"], {"image": x.numpy()})
        assert found.shape == expected.shape
        assert (torch.from_numpy(found) - expected).abs().max() < 1e-5
    assert not network.training


def test_files_of_another_network_are_refused_in_one_line(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("b", "a")]
    exported(folders[0])
    exported(folders[1], "A")
    weights, facts = folders[0] / "model.safetensors", folders[0] / "model.json"
    weights.write_bytes((folders[1] / "model.safetensors").read_bytes())
    with pytest.raises(
        UserError, match=r"model.safetensors: the weights of another network than the one in model.json"
    ):
        load_network(folders[0])
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(UserError, match=r"model.safetensors: cannot read the weights: "):
        load_network(folders[0])
    data = json.loads(facts.read_text())
    for change, message in (
        ({"format": "nas_apps.rl"}, 'not a network of this task \\(no "format": "nas_apps.sr"\\)'),
        ({"version": 2}, "version 2; this release reads version 1"),
        ({"scale": "four"}, "model.json.scale: got 'four'; allowed: an integer"),
        ({"scale": 5}, "scale: got 5; allowed: 2, 3, 4"),
        ({"kept": {**data["kept"], "net.exit": [["cx"]]}}, "net.exit\\[0\\]: no option 'cx'"),
    ):
        facts.write_text(json.dumps({**data, **change}))
        with pytest.raises(UserError, match=message) as caught:
            load_network(folders[0])
        assert "\n" not in str(caught.value)
