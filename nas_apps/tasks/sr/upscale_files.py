"""Files of images through a trained up-sampler: what `nas-apps upscale` does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from nas_apps.core.errors import UserError
from nas_apps.core.runtime import find_device
from nas_apps.tasks.sr.images import images_in, write_image
from nas_apps.tasks.sr.upscale import TILE, load, read


def upscale_files(run: Path, source: Path, out: Path, *, tile: int = TILE, skip_faulty: bool = False) -> Iterator[str]:
    """Enlarge an image into the file `out`, or all images of a folder into the folder `out`, as PNG; yield a line as
    each is done. What cannot be, is refused before the first is read.

    skip_faulty: go on after an image of a folder that cannot be read, and say so; end with its error otherwise.
    """
    targets = _targets(source, out)
    for target in targets.values():
        if target.exists():
            raise UserError(f"{target}: is there already; allowed: another --out")
    enlarger, faults = load(run).to(find_device("auto")), list[str]()
    for path, target in targets.items():
        try:
            picture = read(path)
        except UserError as error:
            faults.append(str(error))
            if not skip_faulty or len(faults) == len(targets):
                raise
            yield f"left out: {error}"
            continue
        pixels = enlarger.pixels(picture, tile=tile)
        write_image(target, pixels)
        yield f"{target}: {pixels.shape[1]}x{pixels.shape[0]}"


def _targets(source: Path, out: Path) -> dict[Path, Path]:
    """The images, each with the file that its enlargement goes to."""
    if not source.is_dir():
        if out.suffix.lower() != ".png":
            raise UserError(f"--out: got {out}; allowed, for one image: a name that ends in .png")
        return {source: out}
    images = images_in(source)
    if not images:
        raise UserError(f"{source}: no images in it; allowed: a folder of images")
    if out.exists() and not out.is_dir():
        raise UserError(f"--out: {out} is a file; allowed, for a folder of images: a folder")
    first: dict[str, Path] = {}
    for path in images:
        if first.setdefault(path.stem, path) != path:
            raise UserError(
                f"{source}: {first[path.stem].name} and {path.name} would both become {path.stem}.png; rename one"
            )
    return {path: out / f"{path.stem}.png" for path in images}
