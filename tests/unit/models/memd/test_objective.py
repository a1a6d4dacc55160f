"""What each stage minimises, and what each of its switches takes away."""

import pytest
import torch

from anomalib_memd.components.backbones import build_backbone
from anomalib_memd.components.embedding import ImageFeatures
from anomalib_memd.components.negatives import FeatureNoise
from anomalib_memd.components.training_features import Sample
from anomalib_memd.components.two_stage import Stage
from anomalib_memd.modality import Modality
from anomalib_memd.models.memd.loss import DiscriminatorLoss
from anomalib_memd.models.memd.objective import Objective
from anomalib_memd.models.memd.torch_model import MEMDModel
from tests.conftest import groups


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    backbone = build_backbone("resnet18", ["layer2"], pre_trained=False)
    return MEMDModel(backbone, **groups(width=16, evidence="encoding")).eval()


def sample_of(model, abnormal_seed=1, registered=True):
    def maps(seed):
        generator = torch.Generator().manual_seed(seed)
        shape = (3, model.embedding.channels, 4, 4)
        return {m: ImageFeatures(torch.randn(shape, generator=generator)) for m in Modality}

    masks = {m: torch.zeros(3, 4, 4).index_fill(1, torch.tensor([1]), 1.0) for m in Modality}
    return Sample(maps(0), maps(abnormal_seed), masks, registered)


def objective(**options):
    return Objective(**groups(**({"weight": 1.0, "modality_dropout": 0.0, "noise": 0.0} | options)))


def student_losses(objective, model, sample):
    torch.manual_seed(0)
    return objective.student_losses(model, sample, lambda loss: loss)


def test_lesions_reach_students_with_noise_of_their_own_through_the_teacher_alone(model):
    ours = objective(student_noise=0.5)
    first, second = (student_losses(ours, model, sample_of(model, seed)) for seed in (1, 2))
    for modality in Modality:
        own, distilled = f"{modality.value}_discrimination_loss", f"{modality.value}_distillation_loss"
        assert torch.equal(first[own], second[own])
        assert not torch.equal(first[distilled], second[distilled])


def test_students_without_noise_learn_from_the_teachers_negatives(model):
    sample = sample_of(model)
    losses = student_losses(objective(student_noise=0.0), model, sample)
    for modality in Modality:
        features = torch.cat([sample.normal[modality].map, sample.abnormal[modality].map])
        masks = torch.cat([torch.zeros(3, 4, 4), sample.masks[modality]])
        expected = DiscriminatorLoss()(model.student(modality).logits(features), masks)
        torch.testing.assert_close(losses[f"{modality.value}_discrimination_loss"], expected)


def test_the_students_own_loss_is_that_of_normal_and_noisy_features(model):
    sample, noise = sample_of(model), FeatureNoise(0.5)
    losses = student_losses(objective(student_noise=noise.std), model, sample)
    torch.manual_seed(0)
    deviations = model.teacher.channel_deviations()
    noisy = sample.noisy(noise, deviations)
    assert torch.equal(noisy.masks[Modality.WLI], noisy.masks[Modality.NBI])
    for modality in Modality:
        features = torch.cat([sample.normal[modality].map, noisy.abnormal[modality].map])
        masks = torch.cat([torch.zeros(3, 4, 4), noisy.masks[modality]])
        expected = DiscriminatorLoss()(model.student(modality).logits(features), masks)
        torch.testing.assert_close(losses[f"{modality.value}_discrimination_loss"], expected)


@pytest.mark.parametrize("registered", [True, False])
def test_teacher_and_student_see_the_same_noise(model, registered):
    """A student that is its teacher has nothing to learn from it, whatever noise there is."""
    seen = {}
    names = [("teacher", model.teacher.encoders[m.value], m) for m in Modality]
    names += [("student", model.student(m).encoder, m) for m in Modality]
    hooks = [
        part.register_forward_pre_hook(lambda _, given, key=(who, m): seen.setdefault(key, []).append(given[1]))
        for who, part, m in names
    ]
    student_losses(objective(noise=2.0), model, sample_of(model, registered=registered))
    for hook in hooks:
        hook.remove()
    for modality in Modality:
        (own,) = seen["student", modality]
        assert own.std() == pytest.approx(2.0, rel=0.1)
        assert any(torch.equal(own, given) for given in seen["teacher", modality])


def test_without_distillation_the_teacher_is_not_asked(model):
    calls = []
    hook = model.teacher.head.register_forward_hook(lambda *_: calls.append(1))
    losses = student_losses(objective(weight=0.0), model, sample_of(model))
    assert not calls
    assert set(losses) == {"loss", "wli_discrimination_loss", "nbi_discrimination_loss"}
    student_losses(objective(), model, sample_of(model))
    student_losses(objective(), model, sample_of(model, registered=False))
    student_losses(objective(paired_targets=False), model, sample_of(model))
    hook.remove()
    assert len(calls) == 1 + 2 * len(Modality)


def test_the_total_is_the_sum_of_its_weighed_parts(model):
    losses = student_losses(objective(weight=7.0), model, sample_of(model))
    parts = (losses[f"{m.value}_discrimination_loss"] + 7.0 * losses[f"{m.value}_distillation_loss"] for m in Modality)
    torch.testing.assert_close(losses["loss"], sum(parts))
    losses = objective(cosine_weight=3.0).teacher_losses(model, sample_of(model))
    torch.testing.assert_close(losses["loss"], losses["discrimination_loss"] + 3.0 * losses["global_loss"])


@pytest.mark.parametrize("stage", list(Stage))
def test_losses_move_all_that_learns(model, stage):
    model.freeze_for(stage)
    ours, sample = objective(), sample_of(model)
    losses = ours.teacher_losses(model, sample) if stage is Stage.TEACHER else student_losses(ours, model, sample)
    losses["loss"].backward()
    moved = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    model.zero_grad()
    assert moved == {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_modality_dropout_puts_one_image_in_both_inputs(model):
    seen = []
    hooks = [
        encoder.register_forward_pre_hook(lambda _, inputs, m=m: seen[-1].update({Modality(m): inputs[0]}))
        for m, encoder in model.teacher.encoders.items()
    ]
    for dropout in (0.0, 1.0):
        seen.append({})
        objective(modality_dropout=dropout).teacher_losses(model, sample_of(model))
    for hook in hooks:
        hook.remove()
    same = [(f[Modality.WLI] == f[Modality.NBI]).flatten(1).all(1) for f in seen]
    assert not same[0].any()
    assert same[1].all()
    given = sample_of(model)
    for row in range(6):
        sources = [torch.cat([given.normal[m].map, given.abnormal[m].map])[row] for m in Modality]
        assert any(torch.equal(seen[1][Modality.WLI][row], source) for source in sources)
