"""Foreign patches: FPI, PII and NSA."""

from typing import Any

from anomalib.models.components import AnomalibModule
from torch.optim import Adam

from anomalib_memd.models.trained import TrainedMixin

from .blend import KINDS
from .torch_model import ForeignPatchModel


class ForeignPatch(TrainedMixin, AnomalibModule):
    """A network that finds patches of other normal images, see :class:`ForeignPatchModel`.

    Its Adam and 250 epochs at 224 pixels are those of MedIAnomaly: 12,500 steps of 16 of 800 images.

    Args:
        kind: How patches are blended: ``fpi`` (interpolation), ``pii`` (Poisson interpolation) or ``nsa`` (several,
            cloned), see :data:`KINDS`.
        image_size: Height and width that the network sees, in pixels; multiples of 8.
        steps: Number of batches.
        lr: Learning rate.
        **components: Anomalib's pre-processor, post-processor, evaluator and visualizer.

    Raises:
        ValueError: If there is no such kind.
    """

    def __init__(
        self,
        kind: str = "fpi",
        image_size: tuple[int, int] = (224, 224),
        steps: int = 12_500,
        lr: float = 1e-3,
        **components: Any,
    ) -> None:
        if kind not in KINDS:
            msg = f"There is no kind of foreign patch '{kind}'; there are {', '.join(KINDS)}."
            raise ValueError(msg)
        super().__init__(image_size, steps, **components)
        self.model: ForeignPatchModel = ForeignPatchModel(kind, self.mean, self.std)
        self.lr = lr

    def configure_optimizers(self) -> Adam:
        """Adam of all."""
        return Adam(self.model.parameters(), lr=self.lr)
