"""Answers about files, folders, videos and cameras, by a checkpoint or an exported model."""

from .judge import Judge, load_judge

__all__ = ["Judge", "load_judge"]
