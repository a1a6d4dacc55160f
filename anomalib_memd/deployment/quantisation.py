"""What it takes to quantise an exported detector: images, and what to leave alone."""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from anomalib.data import AnomalibDataModule

from anomalib_memd.data import PairedImageItem
from anomalib_memd.modality import Modality

logger = logging.getLogger(__name__)

ENOUGH = 300
"""Number of images that NNCF recommends."""


def calibration_images(
    datamodule: AnomalibDataModule | None, modalities: Sequence[Modality]
) -> list[dict[str, np.ndarray] | np.ndarray]:
    """Training images, evenly spaced and one by one, as inputs of a detector.

    Args:
        datamodule: Pairs, or plain images for a detector of one modality.
        modalities: Modality of each input.

    Returns:
        For each of at most 300 images an array ``(1, 3, H, W)`` in [0, 1], or one for each modality.

    Raises:
        ValueError: If there is no datamodule, if it has no images, or none of a modality.
    """
    if datamodule is None:
        msg = "INT8_PTQ needs images: give a datamodule, as '--data anomalib_memd.Kvasir --data.root FOLDER'."
        raise ValueError(msg)
    datamodule.prepare_data()
    datamodule.setup("fit")
    dataset = datamodule.train_data
    if not len(dataset):
        msg = f"{datamodule.name} has no training images to quantise by."
        raise ValueError(msg)
    if len(dataset) < ENOUGH:
        logger.warning("Only %d images to quantise by; %d are recommended.", len(dataset), ENOUGH)
    images: list[dict[str, np.ndarray] | np.ndarray] = []
    for index in np.linspace(0, len(dataset) - 1, min(len(dataset), ENOUGH)).round().astype(int):
        item = dataset[index]
        if isinstance(item, PairedImageItem):
            found: dict[Modality, Any] = {Modality.WLI: item.image, Modality.NBI: item.nbi_image}
        elif len(modalities) == 1:
            found = {modalities[0]: item.image}
        else:
            msg = f"{datamodule.name}: quantising the teacher needs pairs, set modality=paired."
            raise ValueError(msg)
        inputs = {m.value: found[m][None].float().numpy() for m in modalities}
        images.append(inputs if len(modalities) > 1 else inputs[modalities[0].value])
    return images


def after_embedding(model: Any) -> list[str]:
    """Names of what follows the local averages of features, but for convolutions to more than one channel."""
    waiting = [operation for operation in model.get_ops() if operation.get_type_name() == "AvgPool"]
    found: dict[str, Any] = {}
    while waiting:
        operation = waiting.pop()
        if operation.get_friendly_name() not in found:
            found[operation.get_friendly_name()] = operation
            waiting += [target.get_node() for output in operation.outputs() for target in output.get_target_inputs()]
    return [
        name
        for name, operation in found.items()
        if operation.get_type_name() != "Result"
        and not (operation.get_type_name() == "Convolution" and operation.get_output_partial_shape(0)[1] != 1)
    ]
