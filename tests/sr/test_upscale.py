"""Images through a trained up-sampler, as a user has them: of every kind, in tiles, and over folders."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("PIL")

from PIL import Image  # noqa: E402

import nas_apps  # noqa: E402
from nas_apps import cli  # noqa: E402
from nas_apps.core.cell import Fixed  # noqa: E402
from nas_apps.core.errors import UserError  # noqa: E402
from nas_apps.core.folder import claim  # noqa: E402
from nas_apps.core.parts.derive import Random  # noqa: E402
from nas_apps.tasks.sr.export import write  # noqa: E402
from nas_apps.tasks.sr.images import Picture, read_picture  # noqa: E402
from nas_apps.tasks.sr.network import Network, Upscaler  # noqa: E402
from nas_apps.tasks.sr.resize import Pixels, bicubic  # noqa: E402
from nas_apps.tasks.sr.spaces import SRSpace  # noqa: E402
from nas_apps.tasks.sr.tree import Tree  # noqa: E402
from nas_apps.tasks.sr.upscale import Enlarger, load, reach  # noqa: E402

B = SRSpace(Tree("B", cells=2, ups=1, searched=1), channels=8, ops_per_cell=2)
A = SRSpace(Tree("A", cells=2, ups=2, searched=1), channels=8, ops_per_cell=2)
NETS = {"B x2": (B, 2), "B x3": (B, 3), "A x4": (A, 4)}


def enlarger(folder: Path | None = None, name: str = "B x2", seed: int = 1) -> Enlarger:
    space, scale = NETS[name]
    genotype = Random()(space.choices(), {}, torch.Generator().manual_seed(seed))
    network = Upscaler(Fixed(space.choices(), genotype), space, Network(), scale).eval()
    with torch.no_grad():
        for cell in network.cells.values():
            for weight in cell.parameters():
                weight.mul_(3)  # so that what is far away is seen
    if folder is not None:
        write(network, genotype, space, Network(), folder)
    return Enlarger(network)


@pytest.mark.parametrize("name", list(NETS))
@pytest.mark.parametrize("tile", [2, 7, 16])
def test_tiles_make_what_the_whole_image_would(name: str, tile: int) -> None:
    for seed in range(2):
        made, x = enlarger(name=name, seed=seed), torch.rand(2, 3, 7, 19)
        with torch.no_grad():
            whole = made.network(x).clamp(0, 1)
        assert (made.upscale(x, tile=tile) - whole).abs().max() < 1e-5


@pytest.mark.parametrize("name", list(NETS))
def test_no_pixel_depends_on_what_is_out_of_reach(name: str) -> None:
    made = enlarger(name=name)
    margin, scale = reach(made.network), made.scale
    x = torch.rand(1, 3, 1, 2 * margin + 9)
    changed = x.clone()
    changed[..., 0] += 1
    with torch.no_grad():
        difference = (made.network(changed) - made.network(x)).abs().amax((0, 1, 2))
    assert difference[scale * (margin + 1) :].max() == 0
    assert difference[: scale * (margin // 2)].min() > 0


def test_memory_is_bounded_by_the_tile_and_not_by_the_image() -> None:
    made, seen = enlarger(), list[int]()
    made.network.stem.register_forward_hook(lambda module, inputs, output: seen.append(output[0, 0].numel()))
    made.upscale(np.zeros((100, 300, 3), np.uint8), tile=20)
    assert len(seen) == 5 * 15
    assert max(seen) <= (20 + 2 * reach(made.network)) ** 2


def test_a_path_an_image_an_array_and_a_tensor_are_enlarged_alike(tmp_path: Path, noise: Callable[..., Pixels]) -> None:
    made, pixels = enlarger(tmp_path), noise()
    Image.fromarray(pixels).save(tmp_path / "x.png")
    found = made.upscale(pixels)
    assert (found.dtype, found.shape) == (np.uint8, (80, 96, 3))
    x = torch.from_numpy(pixels).movedim(-1, 0).float() / 255
    y = made.upscale(x)
    assert np.array_equal(found, ((y * 255) + 0.5).byte().movedim(0, -1).numpy())
    assert torch.allclose(made.upscale(x[None].repeat(2, 1, 1, 1))[1], y, atol=1e-5)
    for image in (tmp_path / "x.png", str(tmp_path / "x.png"), Image.fromarray(pixels)):
        enlarged = made.upscale(image)
        assert enlarged.mode == "RGB"
        assert np.array_equal(np.asarray(enlarged), found)
    assert np.abs(found.astype(int) - bicubic(pixels, 2)).max() > 5, "the network does nothing"


def test_grey_images_stay_grey(noise: Callable[..., Pixels]) -> None:
    made, grey = enlarger(), noise()[..., 0]
    found = made.upscale(grey)
    assert found.shape == (80, 96)
    with torch.no_grad():
        colours = made.network(torch.from_numpy(grey).expand(1, 3, -1, -1) / 255)
    assert np.abs(colours[0].mean(0).clamp(0, 1).numpy() * 255 - found).max() <= 0.501
    assert np.array_equal(np.asarray(made.upscale(Image.fromarray(grey))), found)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_enlarged_by_bicubic_interpolation(mode: str, noise: Callable[..., Pixels]) -> None:
    made, image, alpha = enlarger(), Image.fromarray(noise()).convert(mode[:-1]), noise(seed=1)[..., 0]
    colours = np.asarray(made.upscale(image))
    image.putalpha(Image.fromarray(alpha))
    for tile in (11, 256):
        enlarged = made.upscale(image, tile=tile)
        assert enlarged.mode == mode
        assert np.array_equal(np.asarray(enlarged)[..., -1], bicubic(alpha, 2))
        assert np.abs(np.asarray(enlarged)[..., :-1].squeeze().astype(int) - colours).max() <= 1


def test_a_palette_and_a_bitmap_are_images_too(noise: Callable[..., Pixels]) -> None:
    image = Image.fromarray(noise())
    assert enlarger().upscale(image.quantize(16)).mode == "RGB"
    assert enlarger().upscale(image.convert("1")).mode == "L"


DEEP = np.arange(80, dtype=np.uint16).reshape(8, 10) * 700


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (Image.fromarray(DEEP), "image: got 16 bits a channel; allowed: 8"),
        (DEEP, r"image: got an array \[8, 10\] of uint16; allowed: uint8, \[H, W\] or \[H, W, 3\]"),
        (np.zeros((3, 8, 8), np.uint8), r"got an array \[3, 8, 8\] of uint8"),
        (np.zeros((0, 8, 3), np.uint8), r"got an array \[0, 8, 3\]"),
        (np.zeros((8, 8, 3), np.float32), "of float32; allowed: uint8"),
        (
            torch.zeros(3, 8, 8, dtype=torch.uint8),
            r"got a tensor \[3, 8, 8\] of torch.uint8; allowed: floats of 0 to 1",
        ),
        (torch.zeros(8, 8), r"got a tensor \[8, 8\] of torch.float32"),
        (torch.zeros(1, 1, 8, 8), r"allowed: floats of 0 to 1, \[3, H, W\] or \[B, 3, H, W\]"),
        ([1], "image: got a list; allowed: a path, a Pillow image, an array, a tensor"),
        ("no.png", "no.png: cannot read this image"),
    ],
)
def test_what_cannot_be_enlarged_is_refused_in_one_line(image: Any, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        enlarger().upscale(image)
    assert "\n" not in str(caught.value)


def test_a_file_of_16_bits_is_refused_with_its_name(tmp_path: Path) -> None:
    Image.fromarray(DEEP).save(tmp_path / "deep.png")
    with pytest.raises(UserError, match=r"deep.png: got 16 bits a channel; allowed: 8"):
        enlarger().upscale(tmp_path / "deep.png")
    with pytest.raises(UserError, match="tile: got 0; allowed: 1 and more"):
        enlarger().upscale(np.zeros((8, 8), np.uint8), tile=0)


def test_one_pixel_is_an_image() -> None:
    assert enlarger().pixels(Picture(np.full((1, 1, 3), 90, np.uint8))).shape == (2, 2, 3)


# The command line.


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """`nas-apps upscale` in this process, in a folder with a run of scale 2: its status, and what it said."""
    monkeypatch.chdir(tmp_path)
    enlarger(tmp_path / "run")

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["nas-apps", "upscale", *arguments])
        status = 0
        try:
            cli.main()
        except SystemExit as ended:
            status = int(ended.code or 0)
        return (status, *capsys.readouterr())

    return run


def test_an_image_is_enlarged_into_a_file_that_is_not_there(
    call: Callable[..., Any], noise: Callable[..., Pixels]
) -> None:
    Image.fromarray(noise()).save("x.png")
    assert call("run", "x.png", "--out", "new/y.png", "--tile", "16") == (0, "new/y.png: 96x80\n", "")
    expected = load("run").upscale(noise()).astype(int)
    assert np.abs(read_picture(Path("new/y.png")).pixels - expected).max() <= 1
    before = Path("new/y.png").read_bytes()
    assert call("run", "x.png", "--out", "new/y.png") == (
        2, "", "nas-apps: new/y.png: is there already; allowed: another --out\n",
    )  # fmt: skip
    assert Path("new/y.png").read_bytes() == before


def test_a_folder_is_enlarged_and_a_faulty_image_left_out_only_if_asked(
    call: Callable[..., Any], noise: Callable[..., Pixels]
) -> None:
    Path("in").mkdir()
    Image.fromarray(noise(8, 12)).save("in/a.jpg")
    Path("in/b.png").write_text("<html>")
    Image.fromarray(noise(8, 12)[..., 0]).save("in/c.bmp")
    Path("in/notes.txt").write_text("not an image")
    status, said, error = call("run", "in", "--out", "first")
    assert (status, said) == (2, "first/a.png: 24x16\n")
    assert error.startswith("nas-apps: in/b.png: cannot read this image")
    assert error.count("\n") == 1
    status, said, error = call("run", "in", "--out", "second", "--skip-faulty")
    assert (status, error) == (0, "")
    assert said.splitlines()[::2] == ["second/a.png: 24x16", "second/c.png: 24x16"]
    assert said.splitlines()[1].startswith("left out: in/b.png: cannot read this image")
    assert sorted(path.name for path in Path("second").iterdir()) == ["a.png", "c.png"]
    assert read_picture(Path("second/c.png")).grey
    assert call("run", "in", "--out", "second", "--skip-faulty")[0] == 2
    for name in ("a.jpg", "c.bmp"):
        Path("in", name).unlink()
    status, said, error = call("run", "in", "--out", "third", "--skip-faulty")
    assert (status, said) == (2, "")
    assert "in/b.png: cannot read this image" in error


def test_mistakes_are_one_line_and_nothing_is_written(call: Callable[..., Any], noise: Callable[..., Pixels]) -> None:
    for name in ("in", "none", "twice"):
        Path(name).mkdir()
    for name in ("in/a.png", "twice/a.png", "twice/a.bmp"):
        Image.fromarray(noise(8, 12)).save(name)
    there = sorted(Path().rglob("*"))
    for arguments, message in {
        ("run", "in/a.png", "--out", "y.jpg"): "--out: got y.jpg; allowed, for one image: a name that ends in .png",
        ("run", "in", "--out", "in/a.png"): "--out: in/a.png is a file; allowed, for a folder of images: a folder",
        ("run", "in", "--out", "in"): "in/a.png: is there already; allowed: another --out",
        ("run", "none", "--out", "out"): "none: no images in it; allowed: a folder of images",
        ("run", "gone.png", "--out", "y.png"): "gone.png: cannot read this image (No such file or directory)",
        ("run", "twice", "--out", "out"): "twice: a.bmp and a.png would both become a.png; rename one",
        ("none", "in", "--out", "out"): "none/model.json: cannot read a trained network: No such file or directory",
        ("run", "in", "--out", "out", "--tile", "0"): "--tile",
        ("run", "in"): "--out",
    }.items():
        status, said, error = call(*arguments)
        assert (status, said) == (2, "")
        assert message in error
        assert error.count("\n") == 1
        assert sorted(Path().rglob("*")) == there


def test_a_task_whose_networks_cannot_be_loaded_says_so(tmp_path: Path) -> None:
    recipe = nas_apps.recipe("task=toy")
    claim(tmp_path / "t", recipe, recipe.task.choices())
    with pytest.raises(UserError, match="t: of the task 'toy', which loads no networks"):
        nas_apps.load(tmp_path / "t")
    with pytest.raises(UserError, match=r"no recipe.yaml in it; allowed: the folder of a search or of a training"):
        nas_apps.load(tmp_path)
