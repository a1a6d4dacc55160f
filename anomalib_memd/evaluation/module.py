"""What every model of this package has from here: evaluator, visualizer and table of predictions."""

from typing import Any, ClassVar

from anomalib.data import Batch
from anomalib.metrics import Evaluator
from anomalib.visualization import Visualizer
from lightning.pytorch import Callback
from lightning.pytorch.utilities.types import STEP_OUTPUT

from anomalib_memd.modality import Modality

from .evaluator import SingleEvaluator
from .narration import Narration
from .prediction_table import PredictionTable
from .visualizer import MultimodalVisualizer


class EndoscopyMixin:
    """Lets the predictions of a model be measured, drawn and tabulated as those of MEMD are.

    It stands before anomalib's module among the bases; anomalib finds by name what derives from that directly.
    """

    modality: Modality | None = None
    """Modality of images that are no pairs; ``None`` where the model takes either."""

    next_commands: ClassVar[tuple[str, ...]] = (
        "anomalib test --model anomalib_memd.NAME --data anomalib_memd.Kvasir --data.root FOLDER --ckpt_path CKPT",
        "anomalib predict --model anomalib_memd.NAME --data FOLDER --ckpt_path CKPT",
        "anomalib export --model anomalib_memd.NAME --export_type openvino --ckpt_path CKPT",
    )
    """What one would type after a training; ``CKPT`` stands for the checkpoint, and ``NAME`` for the model."""

    model: Any

    @staticmethod
    def configure_evaluator() -> Evaluator:
        """Image and, with masks, pixel metrics."""
        return SingleEvaluator()

    @classmethod
    def configure_visualizer(cls) -> Visualizer:
        """Pictures of images or pairs, and their heat maps."""
        return MultimodalVisualizer()

    def configure_callbacks(self) -> list[Callback]:
        """Anomalib's components, the table of predictions, and what a run says."""
        commands = tuple(command.replace("NAME", type(self).__name__) for command in self.next_commands)
        return [*super().configure_callbacks(), PredictionTable(self.modality), Narration(commands)]

    def validation_step(self, batch: Batch, *args: Any, **kwargs: Any) -> STEP_OUTPUT:
        """Judge a batch."""
        del args, kwargs
        return self.judged(batch)

    def test_step(self, batch: Batch, *args: Any, **kwargs: Any) -> STEP_OUTPUT:
        """Judge a batch."""
        del args, kwargs
        return self.judged(batch)

    def predict_step(self, batch: Batch, *args: Any, **kwargs: Any) -> STEP_OUTPUT:
        """Judge a batch."""
        del args, kwargs
        return self.judged(batch)

    def judged(self, batch: Batch) -> Batch:
        """A batch with what the model makes of its images; validation, test and prediction all are this."""
        return batch.update(**self.model(batch.image)._asdict())
