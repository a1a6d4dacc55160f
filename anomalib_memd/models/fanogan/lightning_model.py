"""f-AnoGAN."""

from typing import Any

import torch
from anomalib.data import Batch
from anomalib.models.components import AnomalibModule
from torch.optim import Adam, Optimizer

from anomalib_memd.models.trained import TrainedMixin

from .torch_model import FAnoGANModel


class FAnoGAN(TrainedMixin, AnomalibModule):
    """f-AnoGAN (Schlegl et al., Medical Image Analysis 2019), see :class:`FAnoGANModel`.

    The generative network is trained first, the encoder afterwards.

    Args:
        image_size: Height and width that the networks see, in pixels; multiples of 16.
        latent: Number of values of the vector of an image.
        penalty: Weight of the penalty on the slope of the critic.
        critic_steps: Number of batches of the critic for each of the generator.
        steps: Number of batches of each phase.
        lr: Learning rate of generator and critic.
        encoder_lr: Learning rate of the encoder.
        **components: Anomalib's pre-processor, post-processor, evaluator and visualizer.
    """

    phases = 2
    mean = (0.5, 0.5, 0.5)
    std = (0.5, 0.5, 0.5)

    def __init__(
        self,
        image_size: tuple[int, int] = (64, 64),
        latent: int = 128,
        penalty: float = 10.0,
        critic_steps: int = 5,
        steps: int = 10_000,
        lr: float = 2e-4,
        encoder_lr: float = 5e-5,
        **components: Any,
    ) -> None:
        super().__init__(image_size, steps, **components)
        self.automatic_optimization = False
        self.model: FAnoGANModel = FAnoGANModel(image_size, latent)
        self.penalty = penalty
        self.critic_steps = critic_steps
        self.lr = lr
        self.encoder_lr = encoder_lr

    def configure_optimizers(self) -> list[Adam]:
        """One Adam for each network."""
        model = self.model
        return [
            Adam(model.critic.parameters(), lr=self.lr, betas=(0.0, 0.9)),
            Adam(model.generator.parameters(), lr=self.lr, betas=(0.0, 0.9)),
            Adam(model.encoder.parameters(), lr=self.encoder_lr),
        ]

    def training_step(self, batch: Batch, batch_idx: int, *args: Any, **kwargs: Any) -> None:
        """One step of the critic, and of the generator now and then; or one of the encoder."""
        del args, kwargs
        critic, generator, encoder = self.optimizers()  # type: ignore[misc]
        if self.phase > 0:
            self._step(encoder, "encoder_loss", self.model.loss(batch.image))
            return
        self._step(critic, "critic_loss", self.model.critic_loss(batch.image, self.penalty))
        if batch_idx % self.critic_steps == 0:
            self._step(generator, "generator_loss", self.model.generator_loss(batch.image))

    def _step(self, optimizer: Optimizer, name: str, loss: torch.Tensor) -> None:
        self.log(name, loss.detach(), prog_bar=True)
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()

    def held_back_loss(self, batch: Batch, *args: Any) -> torch.Tensor | None:
        """Loss of the encoder; what the other two play for does not fall."""
        del args
        return self.model.loss(batch.image) if self.phase > 0 else None

    def end_phase(self) -> None:
        """Leave the generative network as it is, and let the encoder learn."""
        super().end_phase()
        self.model.generator.eval()
