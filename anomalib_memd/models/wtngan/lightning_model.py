"""WtNGAN: unpaired translation of white light into narrow band images."""

from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch.nn import functional as F  # noqa: N812

from anomalib_memd.data.overlay import overlay_mask

from .loss import LeastSquaresGANLoss, PatchContrastiveLoss, StructureConsistencyLoss
from .torch_model import Generator, PatchDiscriminator, PatchProjector


class WtNGAN(LightningModule):
    """Learn from unpaired white light and narrow band images to translate the first into the second.

    The generator has visual state space blocks between convolutions. It is trained against a discriminator of patches
    (least squares), by contrast of patches of its own features, and to keep the structure of the image. Overlays are
    translated by nothing and count nowhere.

    Trained with batches that have ``image`` (white light) and ``nbi_image`` (narrow band), both ``(B, 3, H, W)`` and
    sRGB in [0, 1], such as those of :class:`~anomalib_memd.UnpairedImages`.

    Args:
        width: Number of channels of the generator at full resolution.
        blocks: Number of its visual state space blocks.
        state_size: Number of states of each of their channels.
        discriminator_width: Number of channels of the discriminator's first layer.
        adversarial_weight: Weight of the least squares loss.
        contrastive_weight: Weight of the contrast of patches.
        structure_weight: Weight of the structure consistency.
        identity_weight: Weight of the absolute change that real narrow band images undergo; 0 leaves it out.
        patches: Number of patches of an image that are contrasted.
        temperature: Temperature of the contrast.
        learning_rate: Learning rate of Adam, of generator and discriminator alike.
        constant_share: Share of the epochs after which the learning rate falls linearly to zero.

    Source:
        Lin et al., "WtNGAN: Unpaired image translation from white light images to narrow-band images", Pattern
        Recognition, 2025. Its code is not public; what the MEMD paper and the works named in the parts do not say is
        decided here.
    """

    def __init__(
        self,
        width: int = 64,
        blocks: int = 9,
        state_size: int = 16,
        discriminator_width: int = 64,
        adversarial_weight: float = 1.0,
        contrastive_weight: float = 1.0,
        structure_weight: float = 10.0,
        identity_weight: float = 0.0,
        patches: int = 256,
        temperature: float = 0.07,
        learning_rate: float = 2e-4,
        constant_share: float = 0.5,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.automatic_optimization = False
        self.generator = Generator(width, blocks, state_size)
        self.discriminator = PatchDiscriminator(discriminator_width)
        self.projector = PatchProjector(self.generator.feature_channels)
        self.adversarial = LeastSquaresGANLoss()
        self.contrastive = PatchContrastiveLoss(temperature)
        self.structure = StructureConsistencyLoss()
        self.weights = {
            "adversarial": adversarial_weight,
            "contrastive": contrastive_weight,
            "structure": structure_weight,
            "identity": identity_weight,
        }
        self.patches = patches
        self.learning_rate = learning_rate
        self.constant_share = constant_share

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Translate sRGB images in [0, 1] of shape ``(B, 3, H, W)``, see :class:`.Generator`."""
        return self.generator(image)

    def configure_optimizers(self) -> tuple[list[torch.optim.Optimizer], list[Any]]:
        """Adam for generator and projections, and for the discriminator; both fall linearly in the end."""
        generator = [*self.generator.parameters(), *self.projector.parameters()]
        optimizers = [
            torch.optim.Adam(parameters, self.learning_rate, betas=(0.5, 0.999))
            for parameters in (generator, list(self.discriminator.parameters()))
        ]
        return optimizers, [torch.optim.lr_scheduler.LambdaLR(optimizer, self._rate) for optimizer in optimizers]

    def _rate(self, epoch: int) -> float:
        epochs = self.trainer.max_epochs or 1
        constant = self.constant_share * epochs
        return min(1.0, (epochs - epoch) / max(epochs - constant, 1e-9))

    def training_step(self, batch: Any, batch_index: int) -> None:
        """One step of the discriminator, then one of the generator."""
        del batch_index
        source, real = (image.as_subclass(torch.Tensor) for image in (batch.image, batch.nbi_image))
        of_generator, of_discriminator = self.optimizers()
        encoded = self.generator.encode(source)
        translated = self.generator.decode(encoded[-1], source)
        # Where either has an overlay both are black: what is drawn into a frame must not tell its origin.
        overlay = overlay_mask(source)
        tissue = ~(overlay | overlay_mask(real))

        judged = [
            (self.discriminator(image * tissue), is_real)
            for image, is_real in ((real, True), (translated.detach(), False))
        ]
        loss = torch.stack([self.adversarial(values, is_real) for values, is_real in judged]).mean()
        of_discriminator.zero_grad()
        self.manual_backward(loss)
        of_discriminator.step()

        self.toggle_optimizer(of_generator)
        losses = {
            "adversarial": self.adversarial(self.discriminator(translated * tissue), True),
            "contrastive": self._contrast(self.generator.encode(translated), encoded),
            "structure": self.structure(translated, source, ~overlay),
        }
        if self.weights["identity"]:
            losses["identity"] = F.l1_loss(self.generator(real), real)
        of_generator.zero_grad()
        self.manual_backward(sum(self.weights[name] * value for name, value in losses.items()))
        of_generator.step()
        self.untoggle_optimizer(of_generator)
        self.log_dict(
            {**losses, "discriminator": loss}, prog_bar=True, on_step=False, on_epoch=True, batch_size=len(source)
        )

    def on_train_epoch_end(self) -> None:
        """Let the learning rates fall."""
        for scheduler in self.lr_schedulers():
            scheduler.step()

    def _contrast(self, translated: list[torch.Tensor], source: list[torch.Tensor]) -> torch.Tensor:
        places = [torch.randperm(part[0, 0].numel(), device=part.device)[: self.patches] for part in source]
        return self.contrastive(*(self.projector(features, places) for features in (translated, source)))
