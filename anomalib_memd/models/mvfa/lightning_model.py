"""MVFA."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from anomalib import LearningType
from anomalib.data import Batch
from anomalib.models.components import AnomalibModule
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch.optim import Adam

from anomalib_memd.data import PairedImageBatch
from anomalib_memd.evaluation import EndoscopyMixin, with_pre_processor
from anomalib_memd.modality import Modality
from anomalib_memd.models.pairs import PairMixin, images_of, pair_components
from anomalib_memd.models.trained import ready_batches

from .prompts import PROMPTS, read_prompts
from .torch_model import MVFAModel
from .towers import ClipTower, TimmTower


class TowerMixin(EndoscopyMixin):
    """A model on a frozen tower. Where its weights cannot be fetched, a checkpoint may bring them."""

    model: Any

    def require_weights(self) -> None:
        """Refuse to go on without weights; by now a checkpoint would have been read.

        Raises:
            WeightsNotFetchedError: If they could not be fetched, and no checkpoint has brought them.
        """
        if self.model.tower.lacking is not None:
            raise self.model.tower.lacking

    def on_fit_start(self) -> None:
        """Weights are needed."""
        self.require_weights()

    def on_validation_start(self) -> None:
        """Weights are needed."""
        self.require_weights()

    def on_test_start(self) -> None:
        """Weights are needed."""
        self.require_weights()

    def on_predict_start(self) -> None:
        """Weights are needed."""
        self.require_weights()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """A checkpoint brings the weights."""
        super().on_load_checkpoint(checkpoint)
        self.model.tower.lacking = None


class MVFA(PairMixin, TowerMixin, AnomalibModule):
    """Multi-level adapters of CLIP (Huang et al., CVPR 2024), see :class:`MVFAModel`.

    **It learns from labelled abnormal images**, unlike one-class methods: from a few of :class:`.FewShot`, or from
    those of other organs, of :class:`.LeaveOneOrganOut`. Batches of 16 images were published.

    Args:
        clip: Name of a vision transformer of open_clip.
        pretrained: Name or file of its weights.
        clip_config: Options of a CLIP with random weights instead, see :class:`.ClipTower`.
        backbone: Name of a timm model that stands in place of CLIP; a sentence encoder then has the text.
        layers: Four of its layers.
        backbone_weights: See :func:`~anomalib_memd.components.backbones.build_backbone`.
        sentence_encoder: Folder or name of a model of transformers; ``None`` for that of the package index.
        text_width: See :class:`MVFAModel`.
        prompts: File of prompts, see :func:`.read_prompts`.
        modality: Modality of images that come alone, and of the exported model.
        image_size: Height and width that the encoder sees, in pixels.
        share: See :class:`MVFAModel`.
        zero_shot_weight: Likewise.
        few_shot_weight: Likewise.
        epochs: Number of epochs.
        lr: Learning rate of the adapters. 1e-4 was published for zero-shot.
        **components: Anomalib's pre-processor, post-processor, evaluator and visualizer.

    Raises:
        BackboneError: If the encoder cannot be built.
        PromptError: If the prompts cannot be used.
    """

    model: MVFAModel

    def __init__(
        self,
        clip: str = "ViT-L-14",
        pretrained: str | Path = "openai",
        clip_config: Mapping[str, Any] | None = None,
        backbone: str | None = None,
        layers: Sequence[str] = ("layer1", "layer2", "layer3", "layer4"),
        backbone_weights: str | Path | None = None,
        sentence_encoder: str | Path | None = None,
        text_width: int = 256,
        prompts: str | Path = PROMPTS,
        modality: Modality | str = Modality.WLI,
        image_size: tuple[int, int] = (240, 240),
        share: float = 0.1,
        zero_shot_weight: float = 0.5,
        few_shot_weight: float = 0.5,
        epochs: int = 50,
        lr: float = 1e-3,
        **components: Any,
    ) -> None:
        sentences = read_prompts(prompts)
        tower = (
            ClipTower(clip, pretrained, clip_config, tuple(image_size))
            if backbone is None
            else TimmTower(backbone, layers, backbone_weights, sentence_encoder)
        )
        components = pair_components(modality, components)
        super().__init__(**with_pre_processor(components, image_size, *tower.normalization))
        self.modality = Modality(modality)
        self.model = MVFAModel(tower, sentences, share, zero_shot_weight, few_shot_weight, text_width)
        self.few_shot = few_shot_weight > 0
        self.epochs = epochs
        self.lr = lr

    @property
    def trainer_arguments(self) -> dict[str, Any]:
        """A number of epochs, validated after the last, on one device, since the memory is."""
        epochs = self.epochs
        return {"max_epochs": epochs, "check_val_every_n_epoch": epochs, "num_sanity_val_steps": 0, "devices": 1}

    @property
    def learning_type(self) -> LearningType:
        """Labelled images teach it, but anomalib trains no model that says so."""
        return LearningType.ONE_CLASS

    def configure_optimizers(self) -> Adam:
        """Adam of the adapters."""
        return Adam([p for p in self.model.parameters() if p.requires_grad], lr=self.lr, betas=(0.5, 0.999))

    def training_step(self, batch: Batch, *args: Any, **kwargs: Any) -> STEP_OUTPUT:
        """Loss of a batch of labelled images; the images of a pair are two.

        Raises:
            ValueError: If no image of all is abnormal.
        """
        del args, kwargs
        labels: Any = batch.gt_label
        images, masks = batch.image, batch.gt_mask
        if isinstance(batch, PairedImageBatch):
            views = images_of(batch)
            images, labels = torch.cat(list(views.values())), labels.repeat(len(views))
            masks = None if masks is None else masks.repeat(len(views), 1, 1)
        loss = self.model.loss(images, labels, masks)
        self.log("train_loss", loss, on_step=True, prog_bar=True)
        return loss

    def on_fit_start(self) -> None:
        """Refuse to learn from normal images alone.

        Raises:
            ValueError: If no training image is abnormal.
        """
        super().on_fit_start()
        data: Any = self.trainer.datamodule.train_data  # type: ignore[attr-defined]
        if not (data.samples.label_index == 1).any():
            msg = (
                "MVFA learns from labelled abnormal images, and there is none to train on. Give it few of them, by "
                "--data anomalib_memd.FewShot, or those of other organs, by --data anomalib_memd.LeaveOneOrganOut."
            )
            raise ValueError(msg)

    def on_validation_start(self) -> None:
        """Take in the normal training images as they are seen by now."""
        super().on_validation_start()
        if self.trainer.state.fn == TrainerFn.FITTING:
            self._remember()

    def on_train_end(self) -> None:
        """Likewise, where nothing was validated."""
        self._remember()

    def _remember(self) -> None:
        if not self.few_shot:
            return
        datamodule: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        training = self.training
        self.eval()
        normal: list[Any] = []
        for batch in ready_batches(self, datamodule.train_dataloader()):
            views: list[Any] = [batch.image]
            if isinstance(batch, PairedImageBatch):
                views = list(images_of(batch).values())
            kept: Any = batch.gt_label == 0
            normal += [view[kept] for view in views if kept.any()]
        self.model.remember(normal)
        self.train(training)
