"""Losses and temperature against torch.distributions and closed forms."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Categorical, kl_divergence

from anomalib_memd.modality import Modality
from anomalib_memd.models.memd.loss import DiscriminatorLoss, DistillationLoss, GlobalCosineLoss, ModalityTemperature


def random_logits(requires_grad=False):
    return torch.randn(3, 2, 4, 5).requires_grad_(requires_grad)


@pytest.mark.parametrize("direction", ["teacher_target", "student_target"])
@pytest.mark.parametrize("temperature", [0.7, 5.0])
def test_distillation_and_its_gradient(direction, temperature):
    student, teacher = random_logits(requires_grad=True), random_logits()
    loss = DistillationLoss(direction)(student, teacher, temperature)
    (gradient,) = torch.autograd.grad(loss, student)
    p = Categorical(logits=teacher.movedim(1, -1) / temperature)
    q = Categorical(logits=student.movedim(1, -1) / temperature)
    pair = (p, q) if direction == "teacher_target" else (q, p)
    expected = temperature**2 * kl_divergence(*pair).mean()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, student)[0])


def test_distillation_leaves_the_teacher_alone():
    teacher = random_logits(requires_grad=True)
    DistillationLoss()(random_logits(requires_grad=True), teacher, 2.0).backward()
    assert teacher.grad is None


@given(st.floats(0.5, 10))
@settings(max_examples=20, deadline=None)
def test_distillation_is_zero_only_for_equals(temperature):
    logits = random_logits()
    assert DistillationLoss()(logits, logits, temperature).item() == pytest.approx(0, abs=1e-6)
    assert DistillationLoss()(logits + torch.randn(3, 2, 4, 5), logits, temperature) > 0


def test_discriminator_loss_by_hand():
    logits = random_logits()
    mask = torch.zeros(3, 4, 5)
    mask[0, :2] = 1
    share = mask.mean()
    log_probability = torch.log_softmax(logits, 1)
    location = 0
    for b in range(3):
        for i in range(4):
            for j in range(5):
                abnormal = int(mask[b, i, j])
                weight = 0.5 / share if abnormal else 0.5 / (1 - share)
                location = location - weight * log_probability[b, abnormal, i, j] / mask.numel()
    torch.testing.assert_close(DiscriminatorLoss()(logits, mask), location)


def test_global_cosine_by_the_formula():
    wli, nbi, fusion = torch.randn(3, 4, 6, 3, 3, dtype=torch.double).unbind(0)
    expected = 0
    for b in range(4):
        w, n, f = (x[b].mean((-2, -1)) for x in (wli, nbi, fusion))
        expected += (1 - ((w @ f) / (w.norm() * f.norm()) + (n @ f) / (n.norm() * f.norm())) / 2) / 4
    assert GlobalCosineLoss()(wli, nbi, fusion).item() == pytest.approx(expected.item(), rel=1e-5)
    assert GlobalCosineLoss()(wli, wli, 3 * wli).item() == pytest.approx(0, abs=1e-6)
    assert GlobalCosineLoss()(wli, wli, -wli).item() == pytest.approx(2, abs=1e-6)


@pytest.mark.parametrize("distance", ["mse", "mae", "huber"])
def test_stand_ins_of_the_cosine(distance):
    wli, nbi, fusion = torch.randn(3, 4, 6, 3, 3).unbind(0)
    differences = torch.cat([x.mean((-2, -1)) - fusion.mean((-2, -1)) for x in (wli, nbi)]).abs()
    small = differences < 1
    expected = {
        "mse": differences.square(),
        "mae": differences,
        "huber": torch.where(small, 0.5 * differences.square(), differences - 0.5),
    }[distance].mean()
    torch.testing.assert_close(GlobalCosineLoss(distance)(wli, nbi, fusion), expected)


def test_modality_ahead_gets_the_lower_temperature():
    temperature = ModalityTemperature(5.0, momentum=0.5)
    assert all(float(t) == 5 for t in temperature().values())
    for _ in range(20):
        temperature.update({Modality.WLI: torch.tensor(2.0), Modality.NBI: torch.tensor(1.0)})
    now = temperature()
    assert now[Modality.NBI] < 5 < now[Modality.WLI]
    assert float(now[Modality.WLI]) == pytest.approx(5 * 2 / 1.5, rel=1e-4)
    for _ in range(20):
        temperature.update({Modality.WLI: torch.tensor(0.001), Modality.NBI: torch.tensor(1.0)})
    assert float(temperature()[Modality.WLI]) == pytest.approx(2.5)


def test_lower_temperature_transfers_less():
    student, teacher = torch.zeros(1, 2, 1, 1, requires_grad=True), torch.tensor([[-6.0, 6.0]])[..., None, None]
    gradients = []
    for temperature in (2.5, 5.0, 10.0):
        loss = DistillationLoss()(student, teacher, temperature)
        gradients.append(torch.autograd.grad(loss, student)[0].abs().sum().item())
    assert gradients == sorted(gradients)


def test_constant_temperature():
    temperature = ModalityTemperature(3.0, adaptive=False)
    temperature.update({Modality.WLI: torch.tensor(9.0), Modality.NBI: torch.tensor(1.0)})
    assert [float(t) for t in temperature().values()] == [3, 3]


@pytest.mark.parametrize(("base", "bounds"), [(0, (0.5, 2)), (5, (1.5, 2)), (5, (0.5, 0.9))])
def test_refuses_impossible_temperatures(base, bounds):
    with pytest.raises(ValueError, match="temperature"):
        ModalityTemperature(base, bounds)
