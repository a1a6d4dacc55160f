"""The two kinds of endoscopic image and the three detectors that work on them."""

from enum import StrEnum


class Modality(StrEnum):
    """The light under which an endoscopic image was taken."""

    WLI = "wli"
    """White light image."""
    NBI = "nbi"
    """Narrow band image."""

    @property
    def other(self) -> "Modality":
        """The opposite modality."""
        return Modality.NBI if self is Modality.WLI else Modality.WLI


class Branch(StrEnum):
    """A detector inside MEMD: the student of a modality, or the teacher on pairs."""

    WLI = "wli"
    NBI = "nbi"
    TEACHER = "teacher"
