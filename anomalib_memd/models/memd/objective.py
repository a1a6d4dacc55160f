"""What each stage minimises, where detectors are networks."""

from collections.abc import Callable

import torch
from torch import nn

from anomalib_memd.components.negatives import FeatureNoise
from anomalib_memd.components.training_features import Sample
from anomalib_memd.modality import Modality

from .loss import DiscriminatorLoss, DistillationLoss, GlobalCosineLoss, ModalityTemperature
from .network import Maps
from .options import Distillation, Negatives, Training
from .torch_model import MEMDModel


class Objective(nn.Module):
    r"""The total loss ``L = L_dis + lambda L_KD + eta L_cos`` (MEMD eq. 10), as far as a stage has its parts.

    Args:
        training: Options of the teacher's losses.
        distillation: Options of the students' losses.
        negatives: Options of the noise on features.
    """

    def __init__(
        self,
        training: Training | None = None,
        distillation: Distillation | None = None,
        negatives: Negatives | None = None,
    ) -> None:
        super().__init__()
        training, distillation = training or Training(), distillation or Distillation()
        negatives = negatives or Negatives()
        self.cosine_weight = training.cosine_weight
        self.noise = training.noise
        self.modality_dropout = training.modality_dropout
        self.distillation_weight = distillation.weight
        self.paired_targets = distillation.paired_targets
        self.discriminator_loss = DiscriminatorLoss()
        self.distillation_loss = DistillationLoss(distillation.kl_direction)
        self.global_loss = GlobalCosineLoss(training.global_distance)
        self.temperature = ModalityTemperature(
            distillation.temperature, distillation.temperature_bounds, adaptive=distillation.adaptive_temperature
        )
        self.feature_noise = FeatureNoise(negatives.feature_noise)
        self.student_noise = FeatureNoise(negatives.student_noise)

    def teacher_losses(self, model: MEMDModel, sample: Sample) -> dict[str, torch.Tensor]:
        """Losses of the first stage.

        Args:
            model: Model whose teacher learns.
            sample: Registered pairs and their negatives.

        Returns:
            Total ``loss`` and its parts.
        """
        features, masks = sample.merged(self.feature_noise, model.teacher.channel_deviations())
        output = model.teacher.fuse(self._drop_modality(features), self._noise(features))
        discrimination = self.discriminator_loss(output.logits, torch.stack(list(masks.values())).amax(0))
        cosine = self.global_loss(output.encodings[Modality.WLI], output.encodings[Modality.NBI], output.fusion)
        total = discrimination + self.cosine_weight * cosine
        return {"loss": total, "discrimination_loss": discrimination, "global_loss": cosine}

    def student_losses(
        self,
        model: MEMDModel,
        sample: Sample,
        reduce: Callable[[torch.Tensor], torch.Tensor],
    ) -> dict[str, torch.Tensor]:
        """Losses of the second stage; the temperatures adapt.

        The target of a registered pair is the teacher on the pair, if it may be. Else it is the teacher on the
        one image in both inputs, which modality dropout has prepared it for. What the teacher has learned from
        its negatives reaches the students through these targets alone if they have noise of their own.

        Args:
            model: Model whose students learn.
            sample: Pairs, registered or not, and their negatives.
            reduce: Averages a tensor over all processes.

        Returns:
            Total ``loss``, its parts and the temperatures.
        """
        deviations = {modality: model.student(modality).encoder.standardize.std for modality in Modality}
        own = sample.noisy(self.student_noise, deviations) if self.student_noise.std > 0 else None
        features, masks = sample.merged(self.feature_noise, deviations)
        noise = self._noise(features)
        if self.distillation_weight > 0:
            targets = self._targets(model, features, noise, sample.registered and self.paired_targets)
            temperatures = self.temperature()
        parts, distillation = {}, {}
        total = next(iter(features.values())).new_zeros((), dtype=torch.float32)
        for modality in Modality:
            student = model.student(modality)
            added = None if noise is None else noise[modality]
            logits, mask = student.logits(features[modality], added), masks[modality]
            if own is None:
                discrimination = self.discriminator_loss(logits, mask)
            else:
                known, blobs = len(mask) // 2, own.masks[modality]
                noisy = student.logits(own.abnormal[modality].map, None if added is None else added[known:])
                merged = torch.cat([logits[:known], noisy])
                discrimination = self.discriminator_loss(merged, torch.cat([torch.zeros_like(blobs), blobs]))
            total = total + discrimination
            parts[f"{modality.value}_discrimination_loss"] = discrimination
            if self.distillation_weight > 0:
                loss = self.distillation_loss(logits, targets[modality], temperatures[modality])
                total = total + self.distillation_weight * loss
                distillation[modality] = reduce(loss.detach())
                parts[f"{modality.value}_distillation_loss"] = loss
                parts[f"{modality.value}_temperature"] = temperatures[modality]
        if distillation:
            self.temperature.update(distillation)
        return {"loss": total, **parts}

    @staticmethod
    @torch.no_grad()
    def _targets(
        model: MEMDModel, features: Maps, noise: Maps | None, registered: bool
    ) -> dict[Modality, torch.Tensor]:
        # The teacher sees the noise that its students see: without it its judgement is of another scale.
        if registered:
            return dict.fromkeys(Modality, model.teacher.fuse(features, noise).logits)
        twice = {m: [x and dict.fromkeys(Modality, x[m]) for x in (features, noise)] for m in Modality}
        return {m: model.teacher.fuse(*given).logits for m, given in twice.items()}

    def _noise(self, features: Maps) -> Maps | None:
        if self.noise == 0:
            return None
        return {m: self.noise * torch.randn_like(part, dtype=torch.float32) for m, part in features.items()}

    def _drop_modality(self, features: dict[Modality, torch.Tensor]) -> dict[Modality, torch.Tensor]:
        """Now and then, let one modality stand in both inputs, so that the teacher can judge a single image.

        Changes the features in place, which are many, and returns them.
        """
        wli, nbi = features[Modality.WLI], features[Modality.NBI]
        draw = torch.rand(len(wli), device=wli.device)
        both_wli = draw < self.modality_dropout / 2
        both_nbi = (draw >= self.modality_dropout / 2) & (draw < self.modality_dropout)
        nbi[both_wli] = wli[both_wli]
        wli[both_nbi] = nbi[both_nbi]
        return features


def require_finite(losses: dict[str, torch.Tensor], where: str) -> torch.Tensor:
    """The total loss.

    Args:
        losses: Total ``loss`` and its parts.
        where: Stage, epoch and images, for the message.

    Raises:
        FloatingPointError: If the loss is not finite.
    """
    if not torch.isfinite(losses["loss"]):
        parts = ", ".join(f"{name} {float(value.detach()):.3g}" for name, value in losses.items())
        msg = f"The loss is not finite in {where} ({parts}); lower learning_rate, or look at these images."
        raise FloatingPointError(msg)
    return losses["loss"]
