"""What models have in common that learn from normal images by gradient descent."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from anomalib import LearningType
from anomalib.data import Batch, InferenceBatch
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import nn

from anomalib_memd.evaluation import EndoscopyMixin, with_pre_processor
from anomalib_memd.evaluation.pre_processor import IMAGENET_MEAN, IMAGENET_STD


class OneClassNetwork(nn.Module):
    """A network with a loss on normal images and a score of any."""

    def loss(self, images: torch.Tensor) -> torch.Tensor:
        """What the training brings down.

        Args:
            images: Normalised normal images of shape ``(B, 3, H, W)``.

        Returns:
            Scalar.
        """
        raise NotImplementedError

    def forward(self, images: torch.Tensor) -> InferenceBatch:
        """Score images.

        Args:
            images: Normalised images of shape ``(B, 3, H, W)``.

        Returns:
            Scores of shape ``(B,)`` and, of most networks, maps of shape ``(B, 1, H, W)``; higher is more abnormal.
        """
        raise NotImplementedError


class TrainedMixin(EndoscopyMixin):
    """Trains a :class:`OneClassNetwork` for a number of steps, in one phase or in several.

    It stands before anomalib's module among the bases. A model adds ``configure_optimizers``.

    Args:
        image_size: Height and width that the network sees, in pixels.
        steps: Number of batches of each phase, as published.
        **components: Anomalib's four components.
    """

    phases = 1
    """Number of phases that follow each other."""
    mean = IMAGENET_MEAN
    """What images are centred by, for each channel: that of ImageNet."""
    std = IMAGENET_STD
    """What images are divided by then."""
    gradient_clip: float | None = None
    """Largest norm of the gradient."""

    model: OneClassNetwork

    def __init__(self, image_size: tuple[int, int], steps: int, **components: Any) -> None:
        super().__init__(**with_pre_processor(components, image_size, self.mean, self.std))
        self.steps = steps
        self.phase = 0
        """Number of phases that have ended."""
        self._steps_in_phase = 0

    @property
    def trainer_arguments(self) -> dict[str, Any]:
        """The model itself ends its training."""
        clip = {} if self.gradient_clip is None else {"gradient_clip_val": self.gradient_clip}
        return {"max_epochs": -1, "num_sanity_val_steps": 0, **clip}

    @property
    def learning_type(self) -> LearningType:
        """It learns from normal images alone."""
        return LearningType.ONE_CLASS

    def training_step(self, batch: Batch, *args: Any, **kwargs: Any) -> STEP_OUTPUT:
        """Loss of a batch of normal images."""
        del args, kwargs
        loss = self.model.loss(batch.image)
        self.log("train_loss", loss, on_step=True, prog_bar=True)
        return loss

    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """End the phase after its last step."""
        del args, kwargs
        self._steps_in_phase += 1
        if self._steps_in_phase == self.steps:
            self.end_phase()

    def end_phase(self) -> None:
        """Go on to the next phase, or end the training after the last."""
        self.phase += 1
        self._steps_in_phase = 0
        if self.phase == self.phases:
            self.trainer.should_stop = True

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Note how far the training is."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["phase"] = [self.phase, self._steps_in_phase]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on where the training was."""
        super().on_load_checkpoint(checkpoint)
        self.phase, self._steps_in_phase = checkpoint["phase"]


class VectorNetwork(OneClassNetwork):
    """A network that learns a vector of an image; the distance from normal vectors is the score."""

    density: nn.Module
    """The distance: has ``fit`` and ``forward``, see :mod:`anomalib_memd.components.one_class`."""

    def vectors(self, images: torch.Tensor) -> torch.Tensor:
        """Vectors ``(B, C)`` of normalised images ``(B, 3, H, W)``."""
        raise NotImplementedError

    def forward(self, images: torch.Tensor) -> InferenceBatch:
        """Score images by the distance of their vectors; there is no map."""
        return InferenceBatch(pred_score=self.density(self.vectors(images)))


class VectorMixin(TrainedMixin):
    """Trains a :class:`VectorNetwork`, and lets its distance take in the training images before it is used."""

    model: VectorNetwork

    def on_validation_start(self) -> None:
        """Take in the vectors that the training images have by now."""
        if self.trainer.state.fn == TrainerFn.FITTING:
            self.model.density.fit(self.training_vectors())  # type: ignore[operator]

    def on_train_end(self) -> None:
        """Likewise, where nothing was validated."""
        self.model.density.fit(self.training_vectors())  # type: ignore[operator]

    @torch.no_grad()
    def training_vectors(self) -> torch.Tensor:
        """Vectors ``(N, C)`` of all training images, in evaluation."""
        datamodule: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        training = self.training
        self.eval()
        vectors = [self.model.vectors(batch.image) for batch in ready_batches(self, datamodule.train_dataloader())]
        self.train(training)
        return torch.cat(vectors)


def ready_batches(module: Any, batches: Iterable[Batch]) -> Iterator[Batch]:
    """Batches as a training step is given them: on the device of the model, and pre-processed.

    Args:
        module: A model of anomalib that is being trained.
        batches: Batches of a data loader.
    """
    for number, batch in enumerate(batches):
        moved = module.transfer_batch_to_device(batch, module.device, 0)
        if module.pre_processor is not None:
            module.pre_processor.on_train_batch_start(module.trainer, module, moved, number)
        yield moved
