"""Evaluator, post-processor, visualizer and prediction table, for images of one modality and for pairs."""

from .evaluator import AveragePrecision, MultimodalEvaluator, SingleEvaluator
from .module import EndoscopyMixin
from .overlap import SegmentationEvaluator, overlap_metrics
from .pixels import pixel_areas
from .post_processor import DecidedPostProcessor, MultimodalPostProcessor, branch_views, detector_post_processor
from .pre_processor import PairedPreProcessor, with_pre_processor
from .prediction_table import PredictionTable
from .visualizer import MultimodalVisualizer

__all__ = [
    "AveragePrecision",
    "DecidedPostProcessor",
    "EndoscopyMixin",
    "MultimodalEvaluator",
    "MultimodalPostProcessor",
    "MultimodalVisualizer",
    "PairedPreProcessor",
    "PredictionTable",
    "SegmentationEvaluator",
    "SingleEvaluator",
    "branch_views",
    "detector_post_processor",
    "overlap_metrics",
    "pixel_areas",
    "with_pre_processor",
]
