"""The options of MEMD in groups. Each default stands here and nowhere else."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import ClassVar

from anomalib_memd.components.negatives import KINDS
from anomalib_memd.components.options import ABOVE_0, AT_LEAST_0, AT_LEAST_1, SHARE, Options, Range
from anomalib_memd.components.two_stage import Stage


class Fusion(StrEnum):
    """Which parts of the multimodal fusion are in place, for the paper's ablation."""

    NONE = "none"
    """No reconstruction; the teacher adds the two modalities."""
    MAR = "mar"
    CMCA = "cmca"
    BOTH = "both"
    GATED = "gated"
    """Both, with a learned gate that weighs what cross attention finds."""


class Evidence(StrEnum):
    """By what detectors judge."""

    ENCODING = "encoding"
    """The logits of networks that are trained, as in the paper."""
    BACKBONE = "backbone"
    """Evidence in the backbone features themselves, all of which is solved for."""


class Students(StrEnum):
    """Which students there are, for the paper's ablation."""

    NONE = "none"
    """None: the teacher alone."""
    SHARED = "shared"
    """One student for both modalities."""
    PER_MODALITY = "per_modality"
    """One student a modality."""


class EnergyForm(StrEnum):
    """How SimAM turns its energy into attention."""

    SIMAM = "simam"
    """``sigmoid(E)``: ``E`` below is SimAM's inverse energy, as its authors define it."""
    PAPER = "paper"
    """``sigmoid(1 / E)``: MEMD's equation 4 to the letter."""


class KLDirection(StrEnum):
    """Which distribution of the distillation loss is the target."""

    TEACHER_TARGET = "teacher_target"
    """``KL(teacher || student)``, the usual direction."""
    STUDENT_TARGET = "student_target"
    """``KL(student || teacher)``, the paper's order of arguments."""


class GlobalDistance(StrEnum):
    """Distance between globally pooled features in the global loss."""

    COSINE = "cosine"
    MSE = "mse"
    MAE = "mae"
    HUBER = "huber"


@dataclass(frozen=True)
class Encoder(Options):
    """The networks of teacher and students. They count where detectors judge by their encodings.

    Args:
        width: Hidden width of encoders and fusion, in channels.
        hidden: Hidden width of the discriminator head; 0 makes its logits linear in what it sees.
        fusion: Parts of the multimodal fusion that are in place: none, mar, cmca, both or gated.
        fusion_layers: Number of cross attention layers.
        fusion_heads: Number of attention heads; divides ``width``.
        mar_kernel_size: Kernel size ``k`` of the masked attention reconstruction.
        mar_distance: Distance ``d`` of its kernels from the masked centre, in cells.
        energy: Form of its SimAM attention: simam or paper.
        residual: Whether the reconstruction is added to what it reconstructs.
        whitening: What is added to the correlations of backbone channels before they are whitened, above 0; ``None``
            standardises each channel by itself.
    """

    ranges: ClassVar[dict[str, Range]] = {
        "width": AT_LEAST_1,
        "hidden": AT_LEAST_0,
        "fusion_layers": AT_LEAST_1,
        "fusion_heads": AT_LEAST_1,
        "mar_kernel_size": AT_LEAST_1,
        "mar_distance": AT_LEAST_0,
    }

    width: int = 512
    hidden: int = 0
    fusion: Fusion | str = Fusion.BOTH
    fusion_layers: int = 2
    fusion_heads: int = 8
    mar_kernel_size: int = 1
    mar_distance: int = 1
    energy: EnergyForm | str = EnergyForm.PAPER
    residual: bool = False
    whitening: float | None = 1.0


@dataclass(frozen=True)
class Head(Options):
    """What detectors judge by. All but ``evidence`` counts where that is the backbone's.

    Args:
        evidence: By what detectors judge: backbone, which is solved for, or encoding, which is trained.
        overview: Whether they look at the image at half its size too, for a second discriminant of the image.
        overview_shrinkage: With an overview, what is added to the correlations of backbone channels where a second
            discriminant of locations is solved for. Distances of locations are measured at half size then. ``None``
            judges locations at full size alone.
        prior: How strongly labelled validation images have to speak for weighing the evidence on the image unequally.
            Without such images all of it weighs the same.
        distance_weight: Weight of the distance from normal features in the log odds of locations, where that of the
            discriminant is 1; 0 for none.
        image_weight: Weight of the image's log odds in those of its locations.
        relative_map: Whether log odds of locations are relative to their mean over the image, and those of the image,
            which tell how locations of several images compare, are limited.
        shrinkage: What is added to the correlations of backbone channels where the discriminant at full size is solved
            for.
        ridge: What is added to the variance of global statistics where discriminants of the image are solved for.
        overview_ridge: The same at half size, where they are solved for by negatives. A student that predicts its
            teacher's has the other one at both sizes.
        unit_statistics: Whether the global statistics of an image are brought to unit length, so that their direction
            counts alone, and its distance from normal images is measured among them. Otherwise they have any length,
            and the distance is that of pooled features. Images of another device are far in any case.
        false_positive_rate: Share of normal images that may be called abnormal, above 0 and below 1. It sets thresholds
            where no validation image is abnormal.
    """

    ranges: ClassVar[dict[str, Range]] = {
        "prior": AT_LEAST_0,
        "distance_weight": AT_LEAST_0,
        "image_weight": AT_LEAST_0,
        "shrinkage": ABOVE_0,
        "overview_shrinkage": ABOVE_0,
        "ridge": ABOVE_0,
        "overview_ridge": ABOVE_0,
    }

    evidence: Evidence | str = Evidence.BACKBONE
    overview: bool = True
    overview_shrinkage: float | None = 1.0
    prior: float = 1.0
    distance_weight: float = 1.0
    image_weight: float = 1.0
    relative_map: bool = True
    shrinkage: float = 0.1
    ridge: float = 3.0
    overview_ridge: float = 30.0
    unit_statistics: bool = True
    false_positive_rate: float = 0.1

    @property
    def shrinkages(self) -> tuple[float, ...]:
        """The shrinkage at each size whose locations are judged, the full one first."""
        if not self.overview or self.overview_shrinkage is None:
            return (self.shrinkage,)
        return self.shrinkage, self.overview_shrinkage

    @property
    def ridges(self) -> tuple[float, ...]:
        """The ridge at each size at which the image is judged, the full one first."""
        return (self.ridge, self.overview_ridge) if self.overview else (self.ridge,)


@dataclass(frozen=True)
class Negatives(Options):
    """How negatives are made from normal images.

    Args:
        kind: What is drawn into normal images: mixed, lesion, perlin, paste or noise.
        per_image: Size of the seeded pool of negatives, for each normal image; at least 1.
        feature_noise: Deviation of the noise that is added to the features of negatives inside random blobs,
            in units of each channel's deviation; 0 adds none.
        student_noise: The same on the features of normal images, to make the students' own negatives. What the
            teacher knows of lesions then reaches them through its judgement alone. With 0 they learn from the
            teacher's negatives, labels included.

    Raises:
        ValueError: If the kind is unknown, or there is no negative.
    """

    ranges: ClassVar[dict[str, Range]] = {"feature_noise": AT_LEAST_0, "student_noise": AT_LEAST_0}

    kind: str = "mixed"
    per_image: int = 1
    feature_noise: float = 0.0
    student_noise: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kind not in KINDS or self.per_image < 1:
            msg = (
                f"MEMD learns from synthetic negatives: kind is one of {', '.join(KINDS)}, and there is at least 1 for "
                f"each image; got kind={self.kind} and per_image={self.per_image}."
            )
            raise ValueError(msg)


@dataclass(frozen=True)
class Training(Options):
    """Both stages of the training, and the losses of the teacher.

    Epochs, rates and losses count where detectors judge by their encodings, which are trained.

    Args:
        teacher_epochs: Number of epochs of the first stage.
        student_epochs: Number of epochs of the second stage.
        learning_rate: Learning rate of Adam after warm-up.
        warmup: Fraction of a stage in which the learning rate rises.
        noise: Deviation of the noise on the standardised features of all training images, the same for the teacher and
            the students that learn from it; 0 adds none.
        modality_dropout: Probability that the teacher sees one image of a training pair in both inputs.
        cosine_weight: Weight ``eta`` of ``L_cos``.
        global_distance: The distance in ``L_cos``: cosine, mse, mae or huber.
        patience: Number of validations without progress after which a stage ends; ``None`` for all epochs.
        validation_interval: Number of epochs between validations.
        freeze_backbone: Whether the backbone keeps its weights. If not, it learns together with the teacher, and
            its features cannot be kept.
        teacher_ckpt: Checkpoint of MEMD whose teacher and backbone are used, so that only students are trained.
        cache: Whether the features of training images are kept on the disk.
        cache_dir: Folder in which they stay for later runs; ``None`` removes them after training.
    """

    ranges: ClassVar[dict[str, Range]] = {
        "teacher_epochs": AT_LEAST_1,
        "student_epochs": AT_LEAST_0,
        "learning_rate": ABOVE_0,
        "warmup": SHARE,
        "noise": AT_LEAST_0,
        "modality_dropout": SHARE,
        "cosine_weight": AT_LEAST_0,
        "patience": AT_LEAST_1,
        "validation_interval": AT_LEAST_1,
    }

    teacher_epochs: int = 4
    student_epochs: int = 4
    learning_rate: float = 2e-4
    warmup: float = 0.1
    noise: float = 6.0
    modality_dropout: float = 0.1
    cosine_weight: float = 1.0
    global_distance: GlobalDistance | str = GlobalDistance.COSINE
    patience: int | None = None
    validation_interval: int = 5
    freeze_backbone: bool = True
    teacher_ckpt: str | Path | None = None
    cache: bool = True
    cache_dir: str | Path | None = None

    def epochs(self, evidence: Evidence | str, students: Students | str) -> dict[Stage, int]:
        """Number of epochs of each stage. What is solved for is there before the first step, so one is enough.

        Args:
            evidence: By what detectors judge.
            students: Which students there are.

        Raises:
            ValueError: If the backbone is to learn where nothing else does.
        """
        epochs = {Stage.TEACHER: self.teacher_epochs, Stage.STUDENTS: self.student_epochs}
        if evidence is Evidence.BACKBONE:
            epochs = dict.fromkeys(Stage, 1)
            if not self.freeze_backbone:
                msg = "Where all is solved for no backbone learns; set freeze_backbone=true, or evidence=encoding."
                raise ValueError(msg)
        return epochs | ({Stage.STUDENTS: 0} if students is Students.NONE else {})


@dataclass(frozen=True)
class Distillation(Options):
    """What the students learn from the teacher.

    Args:
        students: Which students there are: per_modality, shared or none.
        weight: Weight ``lambda`` of ``L_KD``; with 0 students learn from negatives alone.
        paired_targets: Whether the students learn from what the teacher makes of a pair. If not, it sees the one
            image in both inputs, as it does where the second stage has no pairs.
        kl_direction: Which distribution is the target of ``L_KD``: teacher_target or student_target.
        temperature: Base temperature of ``L_KD``, above 0.
        adaptive_temperature: Whether the temperature follows the two modalities.
        temperature_bounds: Bounds of its scale, around 1.
    """

    ranges: ClassVar[dict[str, Range]] = {"weight": AT_LEAST_0}

    students: Students | str = Students.PER_MODALITY
    weight: float = 1.0
    paired_targets: bool = True
    kl_direction: KLDirection | str = KLDirection.TEACHER_TARGET
    temperature: float = 5.0
    adaptive_temperature: bool = True
    temperature_bounds: tuple[float, float] = (0.5, 2.0)


SHAPING = (
    "backbone",
    "layers",
    "image_size",
    "encoder",
    "head",
    "distillation.students",
    "distillation.weight",
)
"""The options that a checkpoint decides: the shape of the model and how it judges hang on them."""
