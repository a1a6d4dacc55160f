"""The kinds of negatives by name. A further kind is one file and one line here."""

from collections.abc import Callable

import torch

from .drawing import Images
from .lesion import draw_lesions
from .mixed import draw_mixed
from .noise import draw_nothing
from .paste import draw_paste
from .perlin import draw_perlin

Draw = Callable[[Images, Images, int], tuple[Images, torch.Tensor]]
"""From images, a donor of foreign texture and a seed to abnormal images and the mask of the change."""

KINDS: dict[str, Draw] = {
    "mixed": draw_mixed,
    "lesion": draw_lesions,
    "perlin": draw_perlin,
    "paste": draw_paste,
    "noise": draw_nothing,
}


class ImageSynthesis:
    """Draw synthetic lesions into normal images, in the same place in every modality.

    The draw is a function of the seed and the images alone, so a pool of negatives can be made again at any
    time, in any order and in any process.

    Args:
        kind: What is drawn, one of :data:`KINDS`.

    Raises:
        ValueError: If there is no such kind.

    Example:
        >>> import torch
        >>> from anomalib_memd import Modality
        >>> pair = {Modality.WLI: torch.rand(3, 64, 64), Modality.NBI: torch.rand(3, 64, 64)}
        >>> abnormal, mask = ImageSynthesis()(pair, donor=pair, seed=0)
        >>> abnormal[Modality.NBI].shape, mask.shape
        (torch.Size([3, 64, 64]), torch.Size([64, 64]))
    """

    def __init__(self, kind: str = "mixed") -> None:
        if kind not in KINDS:
            msg = f"There are no negatives of kind '{kind}'; there are {', '.join(KINDS)}."
            raise ValueError(msg)
        self.kind = kind

    @property
    def changes_images(self) -> bool:
        """Whether anything is drawn into images, not into features alone."""
        return self.kind != "noise"

    def __call__(self, images: Images, donor: Images, seed: int) -> tuple[Images, torch.Tensor]:
        """Make one abnormal image, or one abnormal pair, of a normal one.

        Args:
            images: sRGB images in [0, 1] of shape ``(3, H, W)``, one a modality, registered.
            donor: Images of another normal case in the same modalities and of the same shape, from which
                foreign texture is taken.
            seed: Seed of the draw.

        Returns:
            The abnormal images and the mask of the change, ``(H, W)``: 1 inside, 0 outside. What says of an image
            that it is abnormal, but not what a lesion looks like, has a mask of a half.
        """
        return KINDS[self.kind](images, donor, seed)
