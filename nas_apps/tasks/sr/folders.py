"""Folders of high-resolution images: any folder of images, and the layouts in which known sets are published."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from nas_apps.core.errors import UserError
from nas_apps.tasks.sr.images import ENDINGS, images_in
from nas_apps.tasks.sr.pairs import Photo

COUNTS = {"Set5": 5, "Set14": 14, "BSD100": 100, "B100": 100, "Urban100": 100, "Manga109": 109}
"""The images that published sets have."""

_LAYOUTS = (("DF2K_HR",), ("DIV2K_train_HR", "Flickr2K_HR"), ("HR",), ("GTmod12",))
_INNER = ("HR", "GTmod12")
_PAIRED = re.compile(r"image_SRF_(\d)")  # SelfExSR's name of a folder with images of a scale and their LR
ALLOWED = (
    f"a folder of images ({' '.join(ENDINGS)}), or one with "
    f"{', '.join(f'{name}/' for names in _LAYOUTS for name in names)} or image_SRF_<scale>/ in it"
)


def find_photos(folder: Path, scale: int, lr: Path | None = None) -> tuple[Photo, ...]:
    """The images of a folder, with the files of their low-resolution images where those are supplied.

    Folders of DIV2K, Flickr2K and both (DF2K) are known as they come, and those of test sets as EDSR, BasicSR and
    SelfExSR keep them; only the last brings its low-resolution images by itself, when it has the scale's.

    lr: a folder of low-resolution images, or one with them in X<scale>/. Those of `name` are called `name`,
    `name`x<scale> or `name`_LR.
    """
    folder = folder.expanduser()
    if not folder.is_dir():
        raise UserError(f"{folder}: {'is a file' if folder.exists() else 'does not exist'}; allowed: {ALLOWED}")
    if paired := _paired(folder, scale):
        return _paired_photos(paired, scale, lr)
    files = [file for found in _hr_folders(folder) for file in images_in(found)]
    if not files:
        raise UserError(f"{folder}: found no images; allowed: {ALLOWED}")
    return _with_lr(files, scale, lr)


def set_name(folder: Path) -> str:
    """What a set in a folder is called: Set5 of Set5/, Set5/HR/ and Set5/image_SRF_2/.

    >>> set_name(Path("data/Set5/image_SRF_2")), set_name(Path("Set14/HR")), set_name(Path("DIV2K_valid_HR"))
    ('Set5', 'Set14', 'DIV2K_valid_HR')
    """
    folder = folder.expanduser().absolute()
    return (folder.parent if folder.name in _INNER or _PAIRED.fullmatch(folder.name) else folder).name


def _hr_folders(folder: Path) -> Sequence[Path]:
    if images_in(folder):
        return [folder]
    for names in _LAYOUTS:
        places = [place for name in names for place in (folder / name, *sorted(folder.glob(f"*2K/{name}")))]
        if found := [place for place in places if place.is_dir()]:
            return found
    return []


def _with_lr(files: Sequence[Path], scale: int, lr: Path | None) -> tuple[Photo, ...]:
    if lr is None:
        return tuple(Photo(file.stem, file) for file in files)
    lr = lr.expanduser()
    lr = lr / f"X{scale}" if (lr / f"X{scale}").is_dir() else lr
    found = {file.stem: file for file in images_in(lr)}
    if not found:
        raise UserError(f"{lr}: found no low-resolution images; allowed: files in {' '.join(ENDINGS)}")
    return tuple(Photo(file.stem, file, _partner(file, scale, lr, found)) for file in files)


def _partner(file: Path, scale: int, lr: Path, found: dict[str, Path]) -> Path:
    """The low-resolution file of an image, or what it would be called."""
    stems = (f"{file.stem}x{scale}", f"{file.stem}_LR", file.stem)
    return next((found[stem] for stem in stems if stem in found), lr / f"{file.stem}x{scale}{file.suffix}")


def _paired(folder: Path, scale: int) -> Path | None:
    """The folder in SelfExSR's layout that has a scale's images."""
    if _PAIRED.fullmatch(folder.name):
        return folder
    scales = sorted(child.name[-1] for child in folder.glob("image_SRF_?") if child.is_dir())
    if scales and str(scale) not in scales:
        raise UserError(f"{folder}: has images of x{', x'.join(scales)}, and none of x{scale}; allowed: one it has")
    return folder / f"image_SRF_{scale}" if scales else None


def _paired_photos(folder: Path, scale: int, lr: Path | None) -> tuple[Photo, ...]:
    """Images called <name>_HR beside their low-resolution ones called <name>_LR."""
    if folder.name == "image_SRF_2" and "urban100" in folder.absolute().parent.name.lower():
        raise UserError(
            f"{folder}: these images are Urban100's at half their size, and their low-resolution ones those of x4, so "
            "figures would not be those of the benchmark; allowed: image_SRF_4, whose images are whole"
        )
    files = [file for file in images_in(folder) if file.stem.endswith("_HR")]
    if not files:
        raise UserError(f"{folder}: found no images called <name>_HR; allowed: files in {' '.join(ENDINGS)}")
    if lr is not None or not folder.name.endswith(str(scale)):
        photos = _with_lr(files, scale, lr)
    else:
        photos = tuple(Photo("", f, f.with_name(f"{f.stem.removesuffix('_HR')}_LR{f.suffix}")) for f in files)
    return tuple(replace(photo, name=re.sub(r"(_SRF_\d)?_HR$", "", photo.hr.stem)) for photo in photos)
