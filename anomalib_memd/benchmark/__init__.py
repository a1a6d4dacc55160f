"""Benchmark of MEMD beside other models, its tables and figures."""

from .pipeline import Benchmark

__all__ = ["Benchmark"]
