"""Negatives: what is drawn into the normal images of a dataset."""

from collections.abc import Callable

import torch
from torch import nn
from torch.utils.data import Dataset

from anomalib_memd.data import EndoscopyDataset, PairedImageItem
from anomalib_memd.modality import Modality

from .drawing import Images
from .registry import ImageSynthesis


class NegativePool(Dataset):
    """Each item of a dataset of pairs with a seeded pool of negatives made of it.

    Narrow band images that are translated from white light get their negatives by the same translation.

    Args:
        dataset: Dataset of pairs.
        synthesis: Draws the negatives.
        negatives: Number of negatives of each item.
        transform: Takes images in [0, 1] to what the backbone expects.
    """

    def __init__(
        self,
        dataset: EndoscopyDataset,
        synthesis: ImageSynthesis,
        negatives: int,
        transform: Callable[[torch.Tensor], torch.Tensor],
    ) -> None:
        self.dataset = dataset
        self.synthesis = synthesis
        self.negatives = negatives
        self.transform = transform

    def __len__(self) -> int:
        """Number of items."""
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Make the pool of one item.

        Args:
            index: Index of the item.

        Returns:
            Images of shape ``(1 + negatives, 2, 3, H, W)``, the normal pair first, and the masks of the
            negatives, ``(negatives, 2, H, W)``; the second axis is the modality.
        """
        item = self.dataset[index]
        images = pair_of(item)
        donor = pair_of(self.dataset[(index + len(self) // 2) % len(self)])
        made, masks = [list(images.values())], []
        for number in range(self.negatives):
            seed = self.negatives * index + number
            negative, mask = synthesise(
                self.synthesis, images, donor, bool(item.registered), seed, self.dataset.translation
            )
            made.append(list(negative.values()))
            masks.append(torch.stack(list(mask.values())))
        stacked = torch.stack([self.transform(torch.stack(pair)) for pair in made])
        return stacked, torch.stack(masks) if masks else torch.zeros(0, 2, *stacked.shape[-2:])


def pair_of(item: PairedImageItem) -> Images:
    """The two images of an item as plain tensors, white light first."""
    return {
        Modality.WLI: item.image.as_subclass(torch.Tensor),
        Modality.NBI: item.nbi_image.as_subclass(torch.Tensor),
    }


def synthesise(
    synthesis: ImageSynthesis,
    images: Images,
    donor: Images,
    registered: bool,
    seed: int,
    translation: nn.Module | None = None,
) -> tuple[Images, Images]:
    """Make a negative of a pair: in the same place if it is registered, else of each image by itself.

    Args:
        synthesis: Draws the negatives.
        images: Images in [0, 1], each ``(3, H, W)``.
        donor: Images that give foreign texture.
        registered: Whether the pair shows the same tissue.
        seed: Seed of the draw.
        translation: What has made the narrow band image of the white light image, if that is known. The lesion is
            then drawn in white light and translated, so that it looks in narrow band light as a real one will.

    Returns:
        Abnormal images, and masks of shape ``(H, W)``, see :class:`ImageSynthesis`.
    """
    if registered and translation is not None:
        white = {Modality.WLI: images[Modality.WLI]}
        drawn, mask = synthesis(white, {Modality.WLI: donor[Modality.WLI]}, seed)
        changed = (drawn[Modality.WLI] != images[Modality.WLI]).any(0)
        with torch.no_grad():
            translated = translation(drawn[Modality.WLI])
        # Elsewhere not even the order of translating and resizing may tell a negative.
        negative = drawn | {Modality.NBI: torch.where(changed, translated, images[Modality.NBI])}
        return negative, dict.fromkeys(images, mask)
    if registered:
        negative, mask = synthesis(images, donor, seed)
        return negative, dict.fromkeys(images, mask)
    negatives, masks = {}, {}
    for order, (modality, image) in enumerate(images.items()):
        own_seed = seed * len(images) + order
        negative, mask = synthesis({modality: image}, {modality: donor[modality]}, own_seed)
        negatives[modality], masks[modality] = negative[modality], mask
    return negatives, masks
