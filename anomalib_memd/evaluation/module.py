"""What every model of this package has from here: evaluator, visualizer and table of predictions."""

from anomalib.metrics import Evaluator
from anomalib.visualization import Visualizer
from lightning.pytorch import Callback

from anomalib_memd.modality import Modality

from .evaluator import SingleEvaluator
from .prediction_table import PredictionTable
from .visualizer import MultimodalVisualizer


class EndoscopyMixin:
    """Lets the predictions of a model be measured, drawn and tabulated as those of MEMD are.

    It stands before anomalib's module among the bases; anomalib finds by name what derives from that directly.
    """

    modality: Modality | None = None
    """Modality of images that are no pairs; ``None`` where the model takes either."""

    @staticmethod
    def configure_evaluator() -> Evaluator:
        """Image and, with masks, pixel metrics."""
        return SingleEvaluator()

    @classmethod
    def configure_visualizer(cls) -> Visualizer:
        """Pictures of images or pairs, and their heat maps."""
        return MultimodalVisualizer()

    def configure_callbacks(self) -> list[Callback]:
        """Anomalib's components and the table of predictions."""
        return [*super().configure_callbacks(), PredictionTable(self.modality)]
