"""What a model of a teacher on pairs and a student of each modality does beside training."""

from pathlib import Path
from typing import Any

import torch
from anomalib.data import Batch, InferenceBatch

from anomalib_memd.components.backbones import BackboneError, pieces
from anomalib_memd.components.checkpoints import SelfDescribingMixin, read_checkpoint, require_version
from anomalib_memd.components.embedding import ImageFeatures
from anomalib_memd.components.two_stage import Stage
from anomalib_memd.data import PairedImageBatch
from anomalib_memd.evaluation import EndoscopyMixin, detector_post_processor
from anomalib_memd.files import file_digest
from anomalib_memd.modality import Branch, Modality

from .detector import DeployedDetector, ExportsOneDetector, deploy


class TeacherStudentMixin(ExportsOneDetector, SelfDescribingMixin, EndoscopyMixin):
    """Predict by every detector that has been trained, remember which those are, and export one of them.

    The ``model`` of a subclass has ``embedding``, ``teacher``, ``students`` by modality, and ``judge``.
    """

    next_commands = (
        "anomalib-memd score --model CKPT --input FOLDER",
        "anomalib-memd app --model CKPT",
        "anomalib-memd export --ckpt CKPT",
    )
    modality: Modality
    stage: Stage
    """The stage that trains."""
    trained: set[Stage]
    """Stages of which at least one epoch is done."""
    normal_classes: tuple[str, ...] = ()
    """Classes of the training images."""
    checkpoint_digest: str = ""
    """SHA-256 of the checkpoint that the model was loaded from."""
    absent_weights: BackboneError | None = None
    """Why the backbone has no ImageNet weights yet, where a checkpoint may still bring them."""

    _resumed_from: str | Path | None = None

    def on_fit_start(self) -> None:
        """Remember from which checkpoint training started."""
        self._resumed_from = self.trainer.ckpt_path

    def on_train_epoch_end(self) -> None:
        """Note that the current stage has been trained."""
        self.trained.add(self.stage)

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
        self.require_students()
        return super().forward(batch, *args, **kwargs)

    def judged(self, batch: Batch) -> Batch:
        """A batch with what every detector that has been trained makes of it, or one student where it is no pair."""
        self.require_weights()
        if not isinstance(batch, PairedImageBatch):
            self.require_students()
            return batch.update(**self.model(batch.image)._asdict())
        images = {Modality.WLI: batch.image, Modality.NBI: batch.nbi_image}
        embed = self.model.embedding
        features = {m: ImageFeatures.joined(embed(part) for part in pieces(image)) for m, image in images.items()}
        branches = [Branch.TEACHER]
        if self.stage is Stage.STUDENTS or Stage.STUDENTS in self.trained:
            branches += [Branch(modality) for modality in self.model.students]
        for branch in branches:
            batch.update_branch(branch, self.model.judge(branch, features, batch.image.shape[-2:]))
        return batch

    def require_weights(self) -> None:
        """Raise what kept the weights of the backbone away, unless a checkpoint has brought them.

        Raises:
            BackboneError: If they are needed and absent.
        """
        if self.absent_weights is not None:
            raise self.absent_weights

    def require_students(self) -> None:
        """Refuse to judge by students that have not been trained.

        Raises:
            RuntimeError: If they have not.
        """
        if Stage.STUDENTS not in self.trained and self.stage is not Stage.STUDENTS:
            msg = (
                f"This {self.name} has no trained student yet: train it through its second stage, or give the "
                f"checkpoint of a finished run with --ckpt_path."
            )
            raise RuntimeError(msg)

    def deployed(self, branch: Branch | Modality | None = None) -> DeployedDetector:
        """One detector with all that inference needs and nothing else; it shares its weights with this model.

        Args:
            branch: The detector; the student of ``modality`` if ``None``.

        Returns:
            The detector, which can be called and exported.

        Raises:
            RuntimeError: If the detector has not been trained.
        """
        branch = Branch((branch or self.modality).value)
        if branch is not Branch.TEACHER:
            self.require_students()
        elif Stage.TEACHER not in self.trained:
            msg = f"This {self.name} has no trained teacher yet; give the checkpoint of a run with --ckpt_path."
            raise RuntimeError(msg)
        return deploy(
            self.model.teacher if branch is Branch.TEACHER else self.model.student(Modality(branch.value)),
            branch,
            self.model.embedding,
            self.pre_processor,
            detector_post_processor(self.post_processor, branch),
            classes=self.normal_classes,
            image_size=tuple(self.input_size or ()),
            checkpoint=self.checkpoint_digest,
        )

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: str | Path, *args: Any, **kwargs: Any) -> Any:
        """Load a checkpoint, as anomalib does.

        The modality is no matter of training: it is that of the argument, or of the model whose class this is.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If the file is no checkpoint of this model, or contradicts what the user has asked for.
        """
        content = read_checkpoint(checkpoint_path)
        try:
            require_version(content)
        except ValueError as error:
            msg = f"{checkpoint_path}: {error}"
            raise ValueError(msg) from error
        if "backbone" not in content["hyper_parameters"]:
            # That of the defaults would be built, its weights fetched, and neither be of use.
            msg = f"{checkpoint_path}: no readable checkpoint of MEMD (its options name no backbone)."
            raise ValueError(msg)
        given = cls.given
        kwargs.setdefault("modality", given.get("modality", Modality.WLI))
        try:
            model: Any = super().load_from_checkpoint(checkpoint_path, *args, **kwargs)
        except Exception as error:
            msg = f"{checkpoint_path}: no readable checkpoint of MEMD ({type(error).__name__}: {error})."
            raise ValueError(msg) from error
        cls.require_same(given, cls.plain_options(model.hparams))
        model.checkpoint_digest = file_digest(checkpoint_path)
        return model

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add which stages are trained, and on what."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["memd_trained"] = sorted(stage.value for stage in self.trained)
        checkpoint["memd_normal_classes"] = list(self.normal_classes)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Become what the checkpoint holds; but after a training that started from it, stay what was trained."""
        super().on_load_checkpoint(checkpoint)
        self.absent_weights = None
        self.trained = {Stage(stage) for stage in checkpoint.get("memd_trained", [])}
        self.normal_classes = tuple(checkpoint.get("memd_normal_classes", ()))
        testing = self._trainer is not None and self._trainer.state.fn == "test"
        if testing and self._resumed_from is not None and self._trainer.ckpt_path == self._resumed_from:
            # 'anomalib train --ckpt_path X' resumes from X and then would test X instead of what it has trained.
            checkpoint["state_dict"] = self.state_dict()
            self.trained.add(self.stage)
