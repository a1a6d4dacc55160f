"""Callbacks that MEMD brings along."""

from .two_stage import TwoStageTraining

__all__ = ["TwoStageTraining"]
