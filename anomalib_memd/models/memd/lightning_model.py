"""MEMD: multimodal enhanced fusion and multi-branch distillation for endoscopic anomaly detection."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import torch
from anomalib import LearningType
from anomalib.data import Batch
from anomalib.metrics import Evaluator
from anomalib.models.components import AnomalibModule, TimmFeatureExtractor
from anomalib.pre_processing import PreProcessor
from anomalib.visualization import Visualizer
from lightning.pytorch import Callback
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import nn

from anomalib_memd import evaluation
from anomalib_memd.components import backbones, weighing
from anomalib_memd.components.checkpoints import COMPONENTS, load_parts
from anomalib_memd.components.cost import TrainingCost
from anomalib_memd.components.options import group, plain
from anomalib_memd.components.training_features import FeatureSet, TrainingFeatures
from anomalib_memd.components.two_stage import Stage, TwoStageTraining
from anomalib_memd.deployment.module import TeacherStudentMixin
from anomalib_memd.modality import Modality

from .cross_fitting import cross_fit_without_labels, require_share
from .objective import Objective, require_finite
from .options import SHAPING, Distillation, Encoder, Head, Negatives, Training
from .torch_model import MEMDModel


class MEMD(TeacherStudentMixin, AnomalibModule):
    """Detect anomalies in white light or narrow band endoscopy, having learned from normal pairs of both.

    A *teacher* sees registered pairs; the two *students*, one a modality, learn from it and afterwards work by
    themselves. One run of the trainer trains the teacher and then the students. The number of epochs is set
    here, not in the trainer.

    Args:
        modality: Modality of the student that predicts and is exported where images come without a partner.
        backbone: Name of a timm model.
        layers: Its layers whose features are used.
        backbone_weights: File with its weights, ``package`` for those of the package index, or ``random``;
            ImageNet weights by timm if ``None``.
        image_size: Height and width that the backbone sees, in pixels.
        encoder: Networks of the detectors, where they judge by their encodings.
        head: What detectors judge by.
        negatives: How negatives are made.
        training: Both stages of the training.
        distillation: What the students learn from the teacher.
        pre_processor: Pre-processor, or whether to have one.
        post_processor: Post-processor, or whether to have one.
        evaluator: Evaluator, or whether to have one.
        visualizer: Visualizer, or whether to have one.

    Raises:
        BackboneError: If the backbone cannot be built or its weights do not fit.
        ValueError: If an option is out of its range, or ``training.teacher_ckpt`` does not fit.

    Example:
        >>> from anomalib_memd import MEMD, Kvasir
        >>> from anomalib.engine import Engine
        >>> Engine().train(MEMD(), datamodule=Kvasir("datasets/kvasir"))  # doctest: +SKIP

    Source:
        Luo et al., "Multimodal Enhanced Fusion and Multi-branch Distillation Based Model for Endoscopic Anomaly
        Detection", Computer Systems & Applications, 2026.
    """

    shaping: ClassVar = SHAPING

    def __init__(
        self,
        modality: Modality | str = Modality.WLI,
        backbone: str = "resnet50.tv_in1k",
        layers: Sequence[str] = ("layer2", "layer3"),
        backbone_weights: str | Path | None = None,
        image_size: tuple[int, int] = (256, 256),
        encoder: Encoder = Encoder(),
        head: Head = Head(),
        negatives: Negatives = Negatives(),
        training: Training = Training(),
        distillation: Distillation = Distillation(),
        pre_processor: PreProcessor | bool = True,
        post_processor: nn.Module | bool = True,
        evaluator: Evaluator | bool = True,
        visualizer: Visualizer | bool = True,
    ) -> None:
        # A checkpoint, or a configuration of a benchmark, gives groups as mappings.
        training, distillation = group(Training, training), group(Distillation, distillation)
        encoder, head, negatives = group(Encoder, encoder), group(Head, head), group(Negatives, negatives)
        require_share(head.false_positive_rate)
        frozen = training.freeze_backbone
        extractor, absent = backbones.build_or_defer(backbone, layers, backbone_weights, requires_grad=not frozen)
        scale = backbones.normalization(extractor)
        super().__init__(
            pre_processor=evaluation.PairedPreProcessor(image_size, *scale) if pre_processor is True else pre_processor,
            post_processor=evaluation.MultimodalPostProcessor(modality) if post_processor is True else post_processor,
            evaluator=evaluation.MultimodalEvaluator(modality) if evaluator is True else evaluator,
            visualizer=evaluation.MultimodalVisualizer(*scale) if visualizer is True else visualizer,
        )
        self.modality = Modality(modality)
        self.absent_weights = absent
        self.options = SimpleNamespace(
            encoder=encoder, head=head, negatives=negatives, training=training, distillation=distillation
        )
        # Loggers and checkpoints take plain data alone.
        self._set_hparams({name: plain(value) for name, value in self.hparams.items()})
        self._hparams_initial = copy.deepcopy(self._hparams)
        self._build(extractor)
        self.objective = Objective(training, distillation, negatives)
        self.stage = Stage.TEACHER
        self.trained: set[Stage] = set()
        epochs = training.epochs(head.evidence, distillation.students)
        if training.teacher_ckpt is not None:
            load_parts(self.model, Path(training.teacher_ckpt), ("embedding.", "teacher."))
            self.trained.add(Stage.TEACHER)
            self.absent_weights = None
            epochs[Stage.TEACHER] = 0
        monitor = {Stage.TEACHER: ["teacher_image_AUROC"], Stage.STUDENTS: ["wli_image_AUROC", "nbi_image_AUROC"]}
        pace = (training.warmup, training.patience, monitor, training.validation_interval)
        self.two_stage_training = TwoStageTraining(epochs, *pace)
        self.remember_given()

    def _build(self, extractor: TimmFeatureExtractor) -> None:
        options = self.options
        self.model = MEMDModel(extractor, options.encoder, options.head, options.distillation, self.modality)
        negatives, training = options.negatives, options.training
        self.features = TrainingFeatures(
            negatives.kind,
            negatives.per_image,
            *backbones.normalization(extractor),
            keep=training.cache and training.freeze_backbone,
            directory=training.cache_dir,
        )

    def rebuild(self, options: Mapping[str, Any]) -> None:
        """Build backbone, teacher and students as a checkpoint has them."""
        mine, stored = self.options, group(Distillation, options["distillation"])
        mine.encoder, mine.head = group(Encoder, options["encoder"]), group(Head, options["head"])
        mine.distillation = replace(mine.distillation, students=stored.students, weight=stored.weight)
        self.hparams.update({name: options[name] for name in ("backbone", "layers", "image_size", "encoder", "head")})
        self.hparams["distillation"] = plain(mine.distillation)
        frozen = mine.training.freeze_backbone
        name, layers = options["backbone"], options["layers"]
        extractor = backbones.build_backbone(name, layers, weights=backbones.RANDOM, requires_grad=not frozen)
        self._build(extractor)
        if isinstance(self.visualizer, evaluation.MultimodalVisualizer):
            self.visualizer.normalized_by(*backbones.normalization(extractor))

    @property
    def trainer_arguments(self) -> dict[str, Any]:
        """The number of epochs of both stages; data loaders anew for each epoch, as stages may differ in data."""
        epochs, steps = self.two_stage_training.total_epochs, {} if self.model.learns else {"limit_train_batches": 1}
        return {"max_epochs": epochs, "num_sanity_val_steps": 0, "reload_dataloaders_every_n_epochs": 1, **steps}

    @property
    def learning_type(self) -> LearningType:
        """MEMD learns from normal images alone."""
        return LearningType.ONE_CLASS

    def configure_callbacks(self) -> list[Callback]:
        """The two stages, and what every model of this package has."""
        return [self.two_stage_training, TrainingCost(), *super().configure_callbacks()]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam on what the current stage trains."""
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        return torch.optim.Adam(trained, self.options.training.learning_rate)

    def freeze_for(self, stage: Stage) -> None:
        """Enter a stage: let gradients flow into its part alone."""
        self.stage = stage
        self.model.freeze_for(stage, train_backbone=not self.options.training.freeze_backbone)

    def start_stage(self, stage: Stage, resumed: bool) -> None:
        """Prepare a stage whose part is not frozen: features, and their statistics unless a checkpoint has them.

        Args:
            stage: The stage.
            resumed: Whether some of its epochs are done.

        Raises:
            BackboneError: If the backbone has no weights.
            TypeError: If the datamodule has no pairs.
        """
        self.require_weights()
        if not self.options.training.freeze_backbone:
            self.features.close()  # The backbone has changed since.
        given = self.features.begin(self.model.embedding, self.trainer, unpaired=stage is Stage.STUDENTS)
        self.normal_classes = tuple(sorted(set(self.trainer.datamodule.train_data.samples.class_name)))
        if not resumed:
            self.solve(stage, given)
            if not self.model.learns:
                labelled = weighing.labelled_features(self.model.embedding, self.trainer.datamodule, self.pre_processor)
                weighing.weigh_evidence(self.model.detectors(stage), labelled, self.options.head.prior)
        self.features.release(self.trainer)

    def solve(self, stage: Stage, given: FeatureSet) -> None:
        """See :meth:`.MEMDModel.solve`."""
        self.model.solve(stage, given, self.objective.feature_noise, self.objective.paired_targets, self.options.head)

    def training_step(self, batch: Batch, batch_idx: int) -> STEP_OUTPUT:
        """Train the part of the current stage.

        Args:
            batch: Pairs of normal images, or unpaired ones in the second stage.
            batch_idx: Number of the step in the epoch.

        Returns:
            Loss.

        Raises:
            TypeError: If the batch is no batch of pairs.
            FloatingPointError: If the loss is not finite.
        """
        if not self.model.learns:
            return 0 * sum(parameter.sum() for parameter in self.model.parameters() if parameter.requires_grad)
        sample = self.features.sample(batch, self.model.embedding)
        with backbones.fast_precision(self.device):
            if self.stage is Stage.TEACHER:
                losses = self.objective.teacher_losses(self.model, sample)
            else:
                losses = self.objective.student_losses(self.model, sample, self.trainer.strategy.reduce)
        where = f"stage {self.stage.value}, epoch {self.two_stage_training.stage_epoch + 1}, step {batch_idx + 1}"
        loss = require_finite(losses, f"{where}, {(batch.image_path or [])[:3]}...")
        named, size = {f"{self.stage.value}_{name}": value.detach() for name, value in losses.items()}, batch.batch_size
        self.log_dict(named, on_step=False, on_epoch=True, batch_size=size, sync_dist=True)
        self.log("train_loss", loss.detach(), prog_bar=True, on_step=True, on_epoch=False, batch_size=size)
        return loss

    def on_validation_epoch_end(self) -> None:
        """Without abnormal images to choose thresholds by, take normal ones."""
        if self.trainer.state.fn == "fit" and not self.model.learns:
            cross_fit_without_labels(self)

    def teardown(self, stage: str) -> None:
        """Let go of the kept features."""
        if stage == "fit":
            self.features.close()

    @classmethod
    def plain_options(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        """Options as plain data; what points outside a checkpoint is left out, as it holds all weights itself."""
        found = {name: plain(value) for name, value in options.items() if name not in COMPONENTS}
        found["backbone_weights"] = backbones.RANDOM
        found["training"] |= {"teacher_ckpt": None}
        # Checkpoints before version 0.13 have no overview, those before 0.14 none in the map, and those before 0.15
        # statistics of any length.
        older = {"overview": False, "overview_shrinkage": None, "relative_map": False, "unit_statistics": False}
        found["head"] = older | found["head"]
        return found
