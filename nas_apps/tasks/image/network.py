"""Networks of the image task: a skeleton whose cells are filled."""

from __future__ import annotations

from nas_apps.core.cell import Fill
from nas_apps.tasks.image.darts import darts_skeleton
from nas_apps.tasks.image.nasbench201 import nasbench201_skeleton
from nas_apps.tasks.image.skeleton import ImageNetwork as ImageNetwork
from nas_apps.tasks.image.skeleton import Network as Network
from nas_apps.tasks.image.spaces import ImageSpace


def build_network(
    space: ImageSpace, fill: Fill, settings: Network, *, in_chans: int = 3, num_classes: int = 10
) -> ImageNetwork:
    """The network of a space: a super-net or a final one, as the fill goes."""
    if space.skeleton == "darts":
        skeleton = darts_skeleton(space, fill, settings, in_chans=in_chans, num_classes=num_classes)
    else:
        skeleton = nasbench201_skeleton(space, fill, settings, in_chans=in_chans)
    return ImageNetwork(skeleton, in_chans=in_chans, num_classes=num_classes, drop_rate=settings.dropout)
