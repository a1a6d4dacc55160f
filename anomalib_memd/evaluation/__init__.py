"""Evaluator, post-processor, visualizer and prediction table, for images of one modality and for pairs."""

from .evaluator import AveragePrecision, MultimodalEvaluator, SingleEvaluator
from .module import EndoscopyMixin
from .post_processor import MultimodalPostProcessor, branch_views, detector_post_processor
from .pre_processor import PairedPreProcessor
from .prediction_table import PredictionTable
from .visualizer import MultimodalVisualizer

__all__ = [
    "AveragePrecision",
    "EndoscopyMixin",
    "MultimodalEvaluator",
    "MultimodalPostProcessor",
    "MultimodalVisualizer",
    "PairedPreProcessor",
    "PredictionTable",
    "SingleEvaluator",
    "branch_views",
    "detector_post_processor",
]
