"""Exported models: their metadata, and inference on a stream of frames."""
