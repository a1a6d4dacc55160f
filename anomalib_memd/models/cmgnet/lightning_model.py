"""CMG-Net."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from anomalib import LearningType
from anomalib.data import Batch
from anomalib.metrics import Evaluator
from anomalib.models.components import AnomalibModule
from anomalib.post_processing import PostProcessor
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch.optim import SGD

from anomalib_memd.components.sentences import EncodedText, SentenceEncoder
from anomalib_memd.evaluation import DecidedPostProcessor, EndoscopyMixin, SegmentationEvaluator, with_pre_processor

from .torch_model import CMGNetModel


class CMGNet(EndoscopyMixin, AnomalibModule):
    """Segmentation guided by text (Su and Meng, 2025), see :class:`CMGNetModel`.

    **It learns from masks of abnormal images**, unlike one-class methods. Images and texts come from
    :class:`.Segmentation` or :class:`.SkinLesion`. An image without a text, as in prediction, has ``default_text``; so
    has the exported model.

    Args:
        text: Whether there is text at all. Without it, and without attention, this is a plain U-Net.
        attention: See :class:`CMGNetModel`.
        fusion: Likewise.
        gated: Likewise.
        default_text: The text of images that come without one.
        sentence_encoder: See :class:`.SentenceEncoder`.
        widths: See :class:`CMGNetModel`.
        levels: Likewise.
        layers: Likewise.
        heads: Likewise.
        image_size: Height and width that the network sees, in pixels.
        epochs: Number of epochs. The source leaves it open.
        lr: Learning rate of SGD.
        **components: Anomalib's pre-processor, post-processor, evaluator and visualizer.

    Raises:
        BackboneError: If the sentence encoder cannot be had.
        ValueError: If levels, widths and heads do not go together.
    """

    model: CMGNetModel

    def __init__(
        self,
        text: bool = True,
        attention: bool = True,
        fusion: bool = True,
        gated: bool = True,
        default_text: str = "An image of the colon.",
        sentence_encoder: str | Path | None = None,
        widths: Sequence[int] = (64, 128, 256, 512, 1024),
        levels: int = 2,
        layers: int = 2,
        heads: int = 8,
        image_size: tuple[int, int] = (224, 224),
        epochs: int = 200,
        lr: float = 0.01,
        **components: Any,
    ) -> None:
        super().__init__(**with_pre_processor(components, image_size))
        self._encode = SentenceEncoder(sentence_encoder) if text else None
        encoded = self._encode([default_text]) if self._encode is not None else None
        self.model = CMGNetModel(encoded, widths, attention, fusion, gated, levels, layers, heads)
        self.epochs = epochs
        self.lr = lr

    @staticmethod
    def configure_evaluator() -> Evaluator:
        """Overlap of masks, beside what is measured of all models."""
        return SegmentationEvaluator()

    def configure_post_processor(self) -> PostProcessor:
        """The network itself decides, at one half."""
        return DecidedPostProcessor()

    @property
    def trainer_arguments(self) -> dict[str, Any]:
        """A number of epochs, validated after the last."""
        return {"max_epochs": self.epochs, "check_val_every_n_epoch": self.epochs, "num_sanity_val_steps": 0}

    @property
    def learning_type(self) -> LearningType:
        """Labelled images teach it, but anomalib trains no model that says so."""
        return LearningType.ONE_CLASS

    def configure_optimizers(self) -> SGD:
        """SGD with momentum."""
        return SGD(self.model.parameters(), lr=self.lr, momentum=0.9, weight_decay=1e-4)

    def training_step(self, batch: Batch, *args: Any, **kwargs: Any) -> STEP_OUTPUT:
        """Loss of a batch of images with masks.

        Raises:
            ValueError: If there are no masks.
        """
        del args, kwargs
        if batch.gt_mask is None:
            msg = "CMG-Net learns from masks: take --data anomalib_memd.Segmentation with a data set that has some."
            raise ValueError(msg)
        loss = self.model.loss(batch.image, batch.gt_mask, self._text(batch))
        self.log("train_loss", loss, on_step=True, prog_bar=True)
        return loss

    def judged(self, batch: Batch) -> Batch:
        """A batch with what the network makes of its images and texts."""
        return batch.update(**self.model(batch.image, self._text(batch))._asdict())

    def _text(self, batch: Batch) -> EncodedText | None:
        """Encoded texts of a batch, on its device; ``None`` where it has none, or none is wanted."""
        texts = getattr(batch, "text", None)
        if self._encode is None or texts is None:
            return None
        return self._encode(texts).to(batch.image)
