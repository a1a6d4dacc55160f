"""The two stages of MEMD's training."""

from enum import StrEnum


class Stage(StrEnum):
    """Which part of MEMD is in training."""

    TEACHER = "teacher"
    STUDENTS = "students"
