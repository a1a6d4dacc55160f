"""MMRAD."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from anomalib.data import Batch
from anomalib.models.components import AnomalibModule
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch.optim import AdamW

from anomalib_memd.data import PairedImageBatch
from anomalib_memd.modality import Modality
from anomalib_memd.models.pairs import PairMixin, images_of, pair_components
from anomalib_memd.models.trained import TrainedMixin

from .encoder import PromptedBackbone, PromptedEncoder
from .torch_model import MMRADModel


class MMRAD(PairMixin, TrainedMixin, AnomalibModule):
    """One decoder for both modalities on SAM (Li et al., Information Fusion 2025), see :class:`MMRADModel`.

    It is trained and tested on pairs. An image that comes alone is judged as one of ``modality``.

    Args:
        modality: Modality of images that come alone, and of the exported model.
        encoder: Name of the weights of the SAM encoder on the hub of Hugging Face.
        encoder_config: Options of ``transformers.SamVisionConfig`` for an encoder with random weights.
        backbone: Name of a timm model that takes the place of SAM's encoder; ``None`` for SAM's.
        layers: Its layers, the finest first, see :class:`.PromptedBackbone`.
        backbone_weights: File with its weights, see :func:`~anomalib_memd.components.backbones.build_backbone`.
        image_size: Height and width that the encoder sees, in pixels; multiples of its patches.
        steps: Number of batches.
        lr: Learning rate of prompts and decoder.
        **components: Anomalib's pre-processor, post-processor, evaluator and visualizer.

    Raises:
        BackboneError: If transformers is not installed, weights cannot be fetched, or the backbone takes no prompts.
    """

    model: MMRADModel  # type: ignore[assignment]

    def __init__(
        self,
        modality: Modality | str = Modality.WLI,
        encoder: str = "facebook/sam-vit-base",
        encoder_config: Mapping[str, Any] | None = None,
        backbone: str | None = None,
        layers: Sequence[str] = ("layer1", "layer2", "layer3"),
        backbone_weights: str | Path | None = None,
        image_size: tuple[int, int] = (256, 256),
        steps: int = 5000,
        lr: float = 1e-4,
        **components: Any,
    ) -> None:
        components = pair_components(modality, components)
        super().__init__(image_size, steps, **components)
        self.modality = Modality(modality)
        prompted = (
            PromptedEncoder(encoder, encoder_config)
            if backbone is None
            else PromptedBackbone(backbone, layers, backbone_weights)
        )
        self.model = MMRADModel(self.modality, prompted, self.mean, self.std)
        self.lr = lr

    def configure_optimizers(self) -> AdamW:
        """AdamW of prompts and decoder."""
        return AdamW([p for p in self.model.parameters() if p.requires_grad], lr=self.lr)

    def training_step(self, batch: Batch, *args: Any, **kwargs: Any) -> STEP_OUTPUT:
        """Loss of a batch of normal pairs.

        Raises:
            TypeError: If the batch is no batch of pairs.
        """
        del args, kwargs
        if not isinstance(batch, PairedImageBatch):
            msg = "MMRAD trains on pairs: give the datamodule modality=paired."
            raise TypeError(msg)
        loss = self.model.loss(images_of(batch))
        self.log("train_loss", loss, on_step=True, prog_bar=True)
        return loss
