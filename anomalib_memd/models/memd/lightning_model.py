"""MEMD: multimodal enhanced fusion and multi-branch distillation for endoscopic anomaly detection."""

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from anomalib import LearningType
from anomalib.data import Batch, InferenceBatch
from anomalib.metrics import Evaluator
from anomalib.models.components import AnomalibModule
from anomalib.pre_processing import PreProcessor
from anomalib.visualization import Visualizer
from lightning.pytorch import Callback
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import nn

from anomalib_memd.backbones import build_backbone, pieces
from anomalib_memd.callbacks import TwoStageTraining
from anomalib_memd.data import DataModality, PairedImageBatch
from anomalib_memd.deployment.metadata import Metadata
from anomalib_memd.files import file_digest
from anomalib_memd.modality import Branch, Modality
from anomalib_memd.stage import Stage
from anomalib_memd.version import __version__

from .branches import Evidence
from .checkpoint import load_teacher
from .deployed import DeployedDetector, DeployedStudent, DeployedTeacher
from .evaluator import MultimodalEvaluator
from .feature_cache import fast_precision
from .loss import GlobalDistance, KLDirection, ModalityTemperature
from .masked_attention import EnergyForm
from .objective import Objective
from .post_processor import MultimodalPostProcessor, detector_post_processor
from .pre_processor import PairedPreProcessor
from .prediction_table import PredictionTable
from .solution import fit_distances, solve_students, solve_teacher
from .synthesis import FeatureNoise, SynthesisKind
from .torch_model import Distillation, Fusion, MEMDModel
from .training_features import FeatureSet, TrainingFeatures
from .visualizer import MultimodalVisualizer


class MEMD(AnomalibModule):
    """Detect anomalies in white light or narrow band endoscopy, having learned from normal pairs of both.

    A *teacher* sees registered pairs; the two *students*, one a modality, learn from it and afterwards work by
    themselves. One run of the trainer trains the teacher and then the students. The number of epochs is set
    here, not in the trainer.

    Args:
        modality: Modality of the student that predicts and is exported where images come without a partner.
        backbone: Name of a timm model.
        layers: Its layers whose features are used.
        pre_trained: Whether the backbone starts from ImageNet weights.
        backbone_weights: File with its weights, or ``package`` for those of the package index.
        freeze_backbone: Whether the backbone keeps its weights. If not, it learns together with the teacher, and
            its features cannot be kept.
        image_size: Height and width that the backbone sees, in pixels.
        width: Hidden width of encoders, fusion and location logits.
        fusion: Parts of the multimodal fusion that are in place.
        fusion_layers: Number of cross attention layers.
        fusion_heads: Number of attention heads.
        mar_kernel_size: Kernel size ``k`` of the masked attention reconstruction.
        mar_distance: Distance ``d`` of its kernels from the masked centre, in cells.
        energy: Form of its SimAM attention.
        residual: Whether the reconstruction is added to what it reconstructs.
        distance_weight: Weight of the distance from normal features in the log odds of locations and image, where
            that of the discriminant is 1. Only with evidence from the backbone.
        contrast_weight: Weight in the image's log odds of the contrast of the locations': how far their highest tenth
            stands above their mean. Only with evidence from the backbone.
        network_weight: Weight of the network in the log odds of locations, where that of the discriminant is 1. Only
            with evidence from the backbone; without it the network stands alone.
        image_weight: Weight of the image's log odds in those of its locations. Only with evidence from the backbone.
        teacher_evidence: From whose global statistics the teacher judges the image.
        student_evidence: From whose global statistics the students judge the image.
        synthesis: What is drawn into normal images to make negatives.
        negatives: Size of the seeded pool of negatives, for each normal image.
        feature_noise: Deviation of the noise that is added to the features of negatives inside random blobs,
            in units of each channel's deviation; 0 adds none.
        student_noise: The same on the features of normal images, to make the students' own negatives. What the
            teacher knows of lesions then reaches them through its judgement alone. With 0 they learn from the
            teacher's negatives, labels included.
        modality_dropout: Probability that the teacher sees one image of a training pair in both inputs.
        teacher_epochs: Number of epochs of the first stage.
        student_epochs: Number of epochs of the second stage.
        learning_rate: Learning rate after warm-up.
        warmup: Fraction of a stage in which the learning rate rises.
        image_learning_rate: The same for the image logits, which see features of unit length.
        shrinkage: What is added to the correlations of backbone channels where the discriminant is solved for.
        ridge: What is added to the variance of global statistics where the teacher's image logits are solved for.
        patience: Number of validations without progress after which a stage ends; ``None`` for all epochs.
        validation_interval: Number of epochs between validations.
        distillation: Which students there are.
        distillation_weight: Weight ``lambda`` of ``L_KD``.
        cosine_weight: Weight ``eta`` of ``L_cos``.
        global_distance: The distance in ``L_cos``.
        paired_targets: Whether the students learn from what the teacher makes of a pair. If not, it sees the one
            image in both inputs, as it does where the second stage has no pairs.
        kl_direction: Which distribution is the target of ``L_KD``.
        temperature: Base temperature of ``L_KD``.
        adaptive_temperature: Whether the temperature follows the two modalities.
        temperature_bounds: Bounds of its scale.
        teacher_ckpt: Checkpoint of MEMD whose teacher and backbone are used, so that only students are trained.
        cache: Whether the features of training images are kept on the disk.
        cache_dir: Folder in which they stay for later runs; ``None`` removes them after training.
        pre_processor: Pre-processor, or whether to have one.
        post_processor: Post-processor, or whether to have one.
        evaluator: Evaluator, or whether to have one.
        visualizer: Visualizer, or whether to have one.

    Raises:
        BackboneError: If the backbone cannot be built or its weights do not fit.
        ValueError: If an option is out of its range, or ``teacher_ckpt`` does not fit.

    Example:
        >>> from anomalib_memd import MEMD, Kvasir
        >>> from anomalib.engine import Engine
        >>> engine = Engine()
        >>> engine.train(MEMD(), datamodule=Kvasir("datasets/kvasir"))  # doctest: +SKIP

    Source:
        Luo et al., "Multimodal Enhanced Fusion and Multi-branch Distillation Based Model for Endoscopic Anomaly
        Detection", Computer Systems & Applications, 2026.
    """

    model: MEMDModel
    loaded_modality: ClassVar[Modality] = Modality.WLI
    """Modality of models that :meth:`load_from_checkpoint` loads."""

    def __init__(
        self,
        modality: Modality | str = Modality.WLI,
        backbone: str = "resnet50.tv_in1k",
        layers: Sequence[str] = ("layer2", "layer3"),
        pre_trained: bool = True,
        backbone_weights: str | Path | None = None,
        freeze_backbone: bool = True,
        image_size: tuple[int, int] = (256, 256),
        width: int = 128,
        fusion: Fusion | str = Fusion.BOTH,
        fusion_layers: int = 2,
        fusion_heads: int = 8,
        mar_kernel_size: int = 1,
        mar_distance: int = 1,
        energy: EnergyForm | str = EnergyForm.SIMAM,
        residual: bool = True,
        distance_weight: float = 1.0,
        contrast_weight: float = 0.5,
        network_weight: float = 0.5,
        image_weight: float = 0.25,
        teacher_evidence: Evidence | str = Evidence.BACKBONE,
        student_evidence: Evidence | str = Evidence.BACKBONE,
        synthesis: SynthesisKind | str = SynthesisKind.MIXED,
        negatives: int = 1,
        feature_noise: float = 0.0,
        student_noise: float = 0.5,
        modality_dropout: float = 0.1,
        teacher_epochs: int = 2,
        student_epochs: int = 2,
        learning_rate: float = 7e-4,
        image_learning_rate: float = 7e-3,
        warmup: float = 0.1,
        shrinkage: float = 0.03,
        ridge: float = 3.0,
        patience: int | None = None,
        validation_interval: int = 5,
        distillation: Distillation | str = Distillation.PER_MODALITY,
        distillation_weight: float = 10.0,
        cosine_weight: float = 1.0,
        global_distance: GlobalDistance | str = GlobalDistance.COSINE,
        paired_targets: bool = True,
        kl_direction: KLDirection | str = KLDirection.TEACHER_TARGET,
        temperature: float = 5.0,
        adaptive_temperature: bool = True,
        temperature_bounds: tuple[float, float] = (0.5, 2.0),
        teacher_ckpt: str | Path | None = None,
        cache: bool = True,
        cache_dir: str | Path | None = None,
        pre_processor: PreProcessor | bool = True,
        post_processor: nn.Module | bool = True,
        evaluator: Evaluator | bool = True,
        visualizer: Visualizer | bool = True,
    ) -> None:
        extractor = build_backbone(backbone, layers, pre_trained, backbone_weights, requires_grad=not freeze_backbone)
        normalization = extractor.feature_extractor.pretrained_cfg
        mean, std = tuple(normalization["mean"]), tuple(normalization["std"])
        super().__init__(
            pre_processor=PairedPreProcessor(image_size, mean, std) if pre_processor is True else pre_processor,
            post_processor=MultimodalPostProcessor(modality) if post_processor is True else post_processor,
            evaluator=MultimodalEvaluator(modality) if evaluator is True else evaluator,
            visualizer=MultimodalVisualizer(mean, std) if visualizer is True else visualizer,
        )
        self.model = MEMDModel(
            extractor,
            width,
            fusion,
            fusion_layers,
            fusion_heads,
            mar_kernel_size,
            mar_distance,
            energy,
            residual,
            distance_weight,
            contrast_weight,
            network_weight,
            image_weight,
            teacher_evidence,
            student_evidence,
            distillation,
            modality,
            distillation_weight > 0,
        )
        self.features = TrainingFeatures(
            SynthesisKind(synthesis), negatives, mean, std, cache and freeze_backbone, cache_dir
        )
        self.objective = Objective(
            cosine_weight,
            global_distance,
            distillation_weight,
            kl_direction,
            ModalityTemperature(temperature, temperature_bounds, adaptive=adaptive_temperature),
            FeatureNoise(feature_noise),
            FeatureNoise(student_noise),
            modality_dropout,
            paired_targets,
        )
        self.freeze_backbone = freeze_backbone
        self.learning_rate = learning_rate
        self.image_learning_rate = image_learning_rate
        self.shrinkage = shrinkage
        self.ridge = ridge
        self.stage = Stage.TEACHER
        self.trained: set[Stage] = set()
        """Stages of which at least one epoch is done."""
        epochs = {Stage.TEACHER: teacher_epochs, Stage.STUDENTS: student_epochs}
        if Distillation(distillation) is Distillation.NONE:
            epochs[Stage.STUDENTS] = 0
        if teacher_ckpt is not None:
            load_teacher(self.model, Path(teacher_ckpt))
            self.trained.add(Stage.TEACHER)
            epochs[Stage.TEACHER] = 0
        self.two_stage_training = TwoStageTraining(
            epochs,
            warmup,
            patience,
            {
                Stage.TEACHER: ["teacher_image_AUROC"],
                Stage.STUDENTS: [f"{modality.value}_image_AUROC" for modality in Modality],
            },
            validation_interval,
        )
        self.normal_classes: tuple[str, ...] = ()
        """Classes of the training images."""
        self.checkpoint_digest: str = ""
        """SHA-256 of the checkpoint that the model was loaded from."""
        self._resumed_from: str | Path | None = None
        self._fit_started = 0.0
        if self.model.modality is Modality.NBI:
            # anomalib's export loads the checkpoint by the class of its model alone. A __new__ that chose the
            # class would hide the options of __init__ from the command line.
            self.__class__ = NarrowBandMEMD

    @property
    def name(self) -> str:
        """The same for both modalities."""
        return "MEMD"

    @property
    def trainer_arguments(self) -> dict[str, Any]:
        """The number of epochs of both stages; data loaders anew for each epoch, as stages may differ in data."""
        return {
            "max_epochs": self.two_stage_training.total_epochs,
            "num_sanity_val_steps": 0,
            "reload_dataloaders_every_n_epochs": 1,
        }

    @property
    def learning_type(self) -> LearningType:
        """MEMD learns from normal images alone."""
        return LearningType.ONE_CLASS

    @classmethod
    def checkpoint_safe_globals(cls) -> Sequence[Any]:
        """The enumerations among the options."""
        return (Modality, Fusion, Evidence, EnergyForm, SynthesisKind, Distillation, GlobalDistance, KLDirection)

    def configure_callbacks(self) -> list[Callback]:
        """Anomalib's components, the two stages and the table of predictions."""
        return [self.two_stage_training, *super().configure_callbacks(), PredictionTable(self.model.modality)]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam on what the current stage trains."""
        trained = [(name, p) for name, p in self.model.named_parameters() if p.requires_grad]
        image = [p for name, p in trained if ".head.image." in name]
        rest = [p for name, p in trained if ".head.image." not in name]
        return torch.optim.Adam(
            [{"params": rest}, {"params": image, "lr": self.image_learning_rate}], self.learning_rate
        )

    def freeze_for(self, stage: Stage) -> None:
        """Enter a stage: let gradients flow into its part alone."""
        self.stage = stage
        self.model.freeze_for(stage, train_backbone=not self.freeze_backbone)

    def start_stage(self, stage: Stage, resumed: bool) -> None:
        """Prepare a stage whose part is not frozen: features, and their statistics unless a checkpoint has them.

        Args:
            stage: The stage.
            resumed: Whether some of its epochs are done.
        """
        datamodule = getattr(self.trainer, "datamodule", None)
        if getattr(datamodule, "modality", None) != DataModality.PAIRED:
            msg = (
                f"MEMD trains on pairs: use a datamodule such as anomalib_memd.Kvasir with modality=paired, "
                f"not {datamodule}."
            )
            raise TypeError(msg)
        if not self.freeze_backbone:
            self.features.close()  # The backbone has changed since.
        self.normal_classes = tuple(sorted(set(datamodule.train_data.samples.class_name)))
        self.features.prepare(self.model.embedding, self.trainer)
        use_unpaired = stage is Stage.STUDENTS and len(self.trainer.datamodule.train_datasets()) > 1
        self.trainer.datamodule.use_unpaired = use_unpaired
        if not resumed:
            self.solve(stage, self.features.kept(use_unpaired))
        self.features.release(self.trainer)

    def solve(self, stage: Stage, given: FeatureSet) -> None:
        """Solve for all of a stage that is not trained: statistics, discriminants and distances.

        Args:
            stage: The stage; the teacher comes first.
            given: Training pairs.
        """
        if stage is Stage.TEACHER:
            teacher, noise = self.model.teacher, self.objective.feature_noise
            teacher.fit_statistics(given.statistics)
            if teacher.evidence is Evidence.BACKBONE:
                noisy = (pair.with_noise(noise, teacher.channel_deviations()) for pair in given.pairs())
                negatives = ((pair.normal, pair.abnormal, pair.masks) for pair in noisy)
                solve_teacher(teacher, given.normals(), negatives, given.statistics, self.shrinkage, self.ridge)
        else:
            self.model.fit_student_statistics(given.statistics)
            if self.model.distils_evidence:
                abnormal = (pair.abnormal for pair in given.pairs())
                paired = self.objective.paired_targets and given.registered
                solve_students(
                    self.model, given.normals(), abnormal, given.statistics, paired, self.shrinkage, self.ridge
                )
        fit_distances(self.model.heads(stage), given.normals(), given.statistics)

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
        if not isinstance(batch, PairedImageBatch):
            msg = (
                f"MEMD trains on pairs, got {type(batch).__name__}; use a datamodule such as "
                f"anomalib_memd.Kvasir with modality=paired."
            )
            raise TypeError(msg)
        sample = self.features.sample(batch, self.model.embedding)
        with fast_precision(self.device):
            if self.stage is Stage.TEACHER:
                losses = self.objective.teacher_losses(self.model, sample)
            else:
                losses = self.objective.student_losses(self.model, sample, self.trainer.strategy.reduce)
        loss = losses["loss"]
        if not torch.isfinite(loss):
            parts = ", ".join(f"{name} {float(value.detach()):.3g}" for name, value in losses.items())
            msg = (
                f"The loss is not finite in the {self.stage.value} stage, epoch "
                f"{self.two_stage_training.stage_epoch + 1}, step {batch_idx + 1} ({parts}); lower learning_rate "
                f"or look at the images of this batch: {(batch.image_path or [])[:3]}..."
            )
            raise FloatingPointError(msg)
        self.log_dict(
            {f"{self.stage.value}_{name}": value.detach() for name, value in losses.items()},
            on_step=False,
            on_epoch=True,
            batch_size=batch.batch_size,
            sync_dist=True,
        )
        self.log("train_loss", loss.detach(), prog_bar=True, on_step=True, on_epoch=False, batch_size=batch.batch_size)
        return loss

    def validation_step(self, batch: Batch, *args: Any, **kwargs: Any) -> STEP_OUTPUT:
        """Predict by every detector that has been trained."""
        del args, kwargs
        return self._predict(batch)

    def test_step(self, batch: Batch, *args: Any, **kwargs: Any) -> STEP_OUTPUT:
        """Predict by every detector that has been trained."""
        del args, kwargs
        return self._predict(batch)

    def predict_step(self, batch: Batch, *args: Any, **kwargs: Any) -> STEP_OUTPUT:
        """Predict by every detector that has been trained, or by one student where the batch is no pair."""
        del args, kwargs
        return self._predict(batch)

    def forward(self, batch: torch.Tensor, *args: Any, **kwargs: Any) -> InferenceBatch:
        """Judge images by the student of ``modality``, pre- and post-processing included.

        Args:
            batch: sRGB images in [0, 1] of shape ``(B, 3, H, W)``.
            *args: Unused.
            **kwargs: Unused.

        Returns:
            Normalised scores, maps, labels and masks.

        Raises:
            RuntimeError: If the students have not been trained.
        """
        self._require_students()
        return super().forward(batch, *args, **kwargs)

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: str | Path, *args: Any, **kwargs: Any) -> "MEMD":
        """Load a checkpoint, as anomalib does.

        The modality is no matter of training: it is that of the argument, or that of the class.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If the file is no checkpoint of MEMD.
        """
        kwargs.setdefault("modality", cls.loaded_modality)
        try:
            model: Any = super().load_from_checkpoint(checkpoint_path, *args, **kwargs)
        except FileNotFoundError:
            raise
        except Exception as error:
            msg = f"{checkpoint_path}: no readable checkpoint of MEMD ({type(error).__name__}: {error})."
            raise ValueError(msg) from error
        model.checkpoint_digest = file_digest(checkpoint_path)
        return model

    def deployed(self, branch: Branch | Modality | None = None) -> DeployedDetector:
        """One detector with all that inference needs and nothing else; it shares its weights with this model.

        Args:
            branch: The detector; the student of ``modality`` if ``None``.

        Returns:
            The detector, which can be called and exported.

        Raises:
            RuntimeError: If the detector has not been trained.
        """
        branch = Branch((branch or self.model.modality).value)
        if branch is not Branch.TEACHER:
            self._require_students()
        elif Stage.TEACHER not in self.trained:
            msg = "This MEMD has no trained teacher yet; give the checkpoint of a run with --ckpt_path."
            raise RuntimeError(msg)
        processor = detector_post_processor(self.post_processor, branch)
        metadata = Metadata(
            branch=branch,
            classes=self.normal_classes,
            threshold=float(getattr(processor, "normalized_image_threshold", math.nan)),
            raw_threshold=float(getattr(processor, "_image_threshold", math.nan)),
            image_size=tuple(self.input_size or ()),
            version=__version__,
            checkpoint=self.checkpoint_digest,
        )
        rest = (self.model.embedding, self.pre_processor or nn.Identity(), processor or nn.Identity(), metadata)
        if branch is Branch.TEACHER:
            return DeployedTeacher(self.model.teacher, *rest)
        modality = Modality(branch.value)
        return DeployedStudent(modality, self.model.student(modality), *rest)

    def to_torch(self, *args: Any, **kwargs: Any) -> Path:
        """Export the student of ``modality`` alone, see :meth:`.DeployedDetector.to_torch`."""
        return self.deployed().to_torch(*args, **kwargs)

    def to_onnx(self, *args: Any, **kwargs: Any) -> Path:
        """Export the student of ``modality`` alone, see :meth:`.DeployedDetector.to_onnx`."""
        return self.deployed().to_onnx(*args, **kwargs)

    def to_openvino(self, *args: Any, **kwargs: Any) -> Path:
        """Export the student of ``modality`` alone, see :meth:`.DeployedDetector.to_openvino`."""
        return self.deployed().to_openvino(*args, **kwargs)

    def _predict(self, batch: Batch) -> Batch:
        size = batch.image.shape[-2:]
        if not isinstance(batch, PairedImageBatch):
            self._require_students()
            return batch.update(**self.model(batch.image)._asdict())
        images = {Modality.WLI: batch.image, Modality.NBI: batch.nbi_image}
        embed = self.model.embedding
        features = {modality: torch.cat([embed(part) for part in pieces(image)]) for modality, image in images.items()}
        branches = [Branch.TEACHER]
        if self.stage is Stage.STUDENTS or Stage.STUDENTS in self.trained:
            branches += [Branch(modality) for modality in self.model.students]
        for branch in branches:
            batch.update_branch(branch, self.model.judge(branch, features, size))
        return batch

    def _require_students(self) -> None:
        if Stage.STUDENTS not in self.trained and self.stage is not Stage.STUDENTS:
            msg = (
                "This MEMD has no trained student yet: train it through its second stage, or give the checkpoint "
                "of a finished run with --ckpt_path."
            )
            raise RuntimeError(msg)

    def setup(self, stage: str) -> None:
        """Remember when training started; features are computed before :meth:`on_fit_start`."""
        super().setup(stage)
        if stage == "fit":
            self._fit_started = time.monotonic()

    def on_fit_start(self) -> None:
        """Remember from which checkpoint training started."""
        self._resumed_from = self.trainer.ckpt_path

    def on_train_epoch_end(self) -> None:
        """Note that the current stage has been trained."""
        self.trained.add(self.stage)

    def on_train_end(self) -> None:
        """Tell what training took, in seconds and in passes of the bare backbone."""
        took = time.monotonic() - self._fit_started
        images = len(Modality) * len(self.trainer.datamodule.train_data)
        one_pass = images * self._seconds_per_image()
        rank_zero_info(
            f"Training took {took:.0f} s with all features, {took / one_pass:.1f} times one pass of the bare backbone "
            f"over the {images} training images ({one_pass:.0f} s)."
        )

    def teardown(self, stage: str) -> None:
        """Let go of the kept features."""
        if stage == "fit":
            self.features.close()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add which stages are trained; leave out options that point outside the checkpoint."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["memd_trained"] = sorted(stage.value for stage in self.trained)
        checkpoint["memd_normal_classes"] = list(self.normal_classes)
        # The checkpoint holds all weights, so nothing has to be fetched or found to load it.
        checkpoint["hyper_parameters"] |= {"pre_trained": False, "backbone_weights": None, "teacher_ckpt": None}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore which stages are trained."""
        super().on_load_checkpoint(checkpoint)
        self.trained = {Stage(stage) for stage in checkpoint.get("memd_trained", [])}
        self.normal_classes = tuple(checkpoint.get("memd_normal_classes", ()))
        testing = self._trainer is not None and self._trainer.state.fn == "test"
        if testing and self._resumed_from is not None and self._trainer.ckpt_path == self._resumed_from:
            # 'anomalib train --ckpt_path X' resumes from X and then would test X instead of what it has trained.
            checkpoint["state_dict"] = self.state_dict()
            self.trained.add(self.stage)

    @torch.inference_mode()
    def _seconds_per_image(self) -> float:
        images = torch.rand(16, 3, *(self.input_size or (256, 256)), device=self.device)
        with fast_precision(self.device):
            self.model.embedding.backbone(images[:1])
            start = time.monotonic()
            for part in pieces(images):
                self.model.embedding.backbone(part)
        return (time.monotonic() - start) / len(images)


class NarrowBandMEMD(MEMD):
    """What ``MEMD(modality="nbi")`` is an instance of."""

    loaded_modality = Modality.NBI
