"""Networks of the image task: a skeleton whose cells are filled."""

from __future__ import annotations

from nas_apps.core.cell import Fill
from nas_apps.tasks.image.darts import darts_skeleton
from nas_apps.tasks.image.nasbench1shot1 import nasbench1shot1_skeleton
from nas_apps.tasks.image.nasbench201 import nasbench201_skeleton
from nas_apps.tasks.image.skeleton import ImageNetwork as ImageNetwork
from nas_apps.tasks.image.skeleton import Network as Network
from nas_apps.tasks.image.spaces import ImageSpace


def build_network(
    space: ImageSpace,
    fill: Fill,
    settings: Network,
    *,
    in_chans: int = 3,
    num_classes: int = 10,
    searching: bool = False,
) -> ImageNetwork:
    """The network of a space: a super-net or a final one, as the fill goes.

    Args:
        searching: build the network that a search is of. It makes a difference in NAS-Bench-1Shot1 alone, whose final
            networks are those of NAS-Bench-101.
    """
    if space.skeleton == "darts":
        skeleton = darts_skeleton(space, fill, settings, in_chans=in_chans, num_classes=num_classes)
    elif space.skeleton == "nasbench1shot1":
        skeleton = nasbench1shot1_skeleton(space, fill, settings, in_chans=in_chans, one_shot=searching)
    else:
        skeleton = nasbench201_skeleton(space, fill, settings, in_chans=in_chans)
    return ImageNetwork(skeleton, in_chans=in_chans, num_classes=num_classes, drop_rate=settings.dropout)
