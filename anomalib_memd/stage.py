"""The two stages of MEMD's training."""

from enum import Enum


class Stage(str, Enum):
    """Which part of MEMD is in training."""

    TEACHER = "teacher"
    STUDENTS = "students"
