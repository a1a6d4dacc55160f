"""Pre-processing of pairs."""

from collections.abc import Sequence
from typing import Any

from anomalib.data import Batch
from anomalib.pre_processing import PreProcessor
from torch import nn
from torchvision.transforms.v2 import Compose, Normalize, Resize

from anomalib_memd.components.resize import AntialiasedResize
from anomalib_memd.data import PairedImageBatch

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class PairedPreProcessor(PreProcessor):
    """Resize and normalise both images of a pair, as anomalib's pre-processor does with one image.

    Args:
        image_size: Height and width that the backbone sees, in pixels.
        mean: Mean that is subtracted, for each channel.
        std: Deviation by which is divided, for each channel.
    """

    def __init__(
        self,
        image_size: tuple[int, int] = (256, 256),
        mean: tuple[float, float, float] = IMAGENET_MEAN,
        std: tuple[float, float, float] = IMAGENET_STD,
    ) -> None:
        super().__init__(Compose([Resize(list(image_size), antialias=True), Normalize(list(mean), list(std))]))
        self.export_transform = _exportable(self.transform)

    def load_checkpoint_config(self, config: dict[str, Any]) -> None:
        """Restore the transform of a checkpoint."""
        super().load_checkpoint_config(config)
        self.export_transform = _exportable(self.transform)

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Batch, *args: Any) -> None:
        """Transform a training batch."""
        if batch.image.shape[-1] > 1:  # Where features are kept, training images are blank.
            super().on_train_batch_start(trainer, pl_module, batch, *args)
            self._transform_partner(batch)

    def on_validation_batch_start(self, trainer: Any, pl_module: Any, batch: Batch, *args: Any) -> None:
        """Transform a validation batch."""
        super().on_validation_batch_start(trainer, pl_module, batch, args[0])
        self._transform_partner(batch)

    def on_test_batch_start(self, trainer: Any, pl_module: Any, batch: Batch, *args: Any) -> None:
        """Transform a test batch."""
        super().on_test_batch_start(trainer, pl_module, batch, *args)
        self._transform_partner(batch)

    def on_predict_batch_start(self, trainer: Any, pl_module: Any, batch: Batch, *args: Any) -> None:
        """Transform a batch of pairs to predict."""
        super().on_predict_batch_start(trainer, pl_module, batch, *args)
        self._transform_partner(batch)

    def _transform_partner(self, batch: Batch) -> None:
        if isinstance(batch, PairedImageBatch) and self.transform is not None:
            batch.nbi_image = self.transform(batch.nbi_image)


def with_pre_processor(
    components: dict[str, Any],
    image_size: Sequence[int],
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
) -> dict[str, Any]:
    """Anomalib's components of a model, with a :class:`PairedPreProcessor` unless they say of it what they want.

    Args:
        components: Those that were given.
        image_size: See :class:`PairedPreProcessor`, as all others.
        mean: Likewise.
        std: Likewise.
    """
    if components.get("pre_processor", True) is not True:
        return components
    return components | {"pre_processor": PairedPreProcessor(tuple(image_size), tuple(mean), tuple(std))}


def _exportable(transform: nn.Module | None) -> nn.Module | None:
    """The same transform in terms that can be exported; anomalib's own ends antialiasing."""
    if transform is None:
        return None
    steps = transform.transforms if isinstance(transform, Compose) else [transform]
    # Both are linear, so either may be first. OpenVINO 2026.4 takes what follows a matrix product for one of its rows.
    steps = sorted(steps, key=lambda step: isinstance(step, Resize))
    return nn.Sequential(*(AntialiasedResize(s.size) if isinstance(s, Resize) else s for s in steps))
