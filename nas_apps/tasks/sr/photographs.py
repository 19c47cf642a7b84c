"""The photographs that come with scikit-image and scikit-learn: a small set that needs no download.

Left out are those whose terms are not clear (ihc, moon, motorcycle), and retina, which is like no other photograph.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from nas_apps.core.errors import UserError, require
from nas_apps.tasks.sr.pairs import Photo

NAME = "photographs"
"""The name of the set."""

SPLIT: Mapping[str, tuple[str, ...]] = {
    "train": ("astronaut", "coffee", "flower", "hubble_deep_field", "brick", "grass", "gravel"),
    "valid": ("chelsea", "china", "rocket"),
    "test": ("camera", "coins"),
}
"""Which of them are for what."""

ATTRIBUTION = (
    "astronaut, rocket, hubble_deep_field: NASA and ESA, public domain; chelsea, coffee, camera, brick, grass, gravel: "
    "CC0; coins: no known restriction; china: danielbuechele, CC BY 2.0 (Flickr 6061409035); flower: vultilion, "
    "CC BY 2.0 (Flickr 6056698931)"
)
"""Whose they are, as the two packages say."""

_FOLDERS = (("skimage", "data"), ("sklearn", "datasets", "images"))
_CENTRE = {"hubble_deep_field": 512}  # sides of the squares that are taken of large ones


def photographs(part: str) -> tuple[Photo, ...]:
    """Those of a part of the split."""
    require("skimage", "sklearn", extra="sr")
    return tuple(Photo(name, _file(name), centre=_CENTRE.get(name)) for name in SPLIT[part])


def _file(name: str) -> Path:
    """The file of a photograph; the packages are not imported, and so load nothing and ask for nothing."""
    for package, *folders in _FOLDERS:
        spec = find_spec(package)
        for place in (spec and spec.submodule_search_locations) or ():
            for ending in (".png", ".jpg"):
                if (file := Path(place, *folders, name + ending)).is_file():
                    return file
    raise UserError(f"{NAME}: {name} is not in the scikit-image and scikit-learn that are installed; name a folder")
