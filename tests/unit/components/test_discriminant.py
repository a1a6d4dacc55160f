"""What is solved for: discriminants of locations and images, and their distillation."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import Ridge
from torch.nn import functional as F  # noqa: N812

from anomalib_memd.components.backbones import build_backbone
from anomalib_memd.components.discriminant import (
    image_discriminant,
    location_discriminant,
    whitened,
    whitened_among_samples,
)
from anomalib_memd.components.embedding import ImageFeatures
from anomalib_memd.components.solution import fit_distances, solve_by_negatives, solve_students
from anomalib_memd.components.statistics import feature_statistics
from anomalib_memd.components.two_stage import Stage
from anomalib_memd.components.weighing import calibrate_evidence
from anomalib_memd.modality import Modality
from anomalib_memd.models.memd.torch_model import MEMDModel
from tests.conftest import groups


def heads_of(model):
    return {modality: model.student(modality) for modality in Modality}


def seen(features):
    """Features of images, and of the images at half their size, of which each shows the mean of four locations."""
    return {m: ImageFeatures(x, F.avg_pool2d(x, 2)) for m, x in features.items()}


def joined(*batches):
    """Features of several batches, of each modality."""
    return [ImageFeatures.joined([batch[m] for batch in batches]) for m in Modality]


def correlated(count, channels, seed=0):
    random = torch.Generator().manual_seed(seed)
    mixing = torch.randn(channels, channels, generator=random)
    return 2 + torch.randn(count, channels, generator=random) @ mixing


def test_location_discriminant_is_that_of_fisher():
    normal, change = correlated(5000, 6), torch.tensor([1.0, -2, 0, 0.5, 3, 0])
    found = location_discriminant(normal.T.cov(correction=0), normal.mean(0), change, shrinkage=0)
    reference = LinearDiscriminantAnalysis(solver="lsqr").fit(
        torch.cat([normal, normal + change]).numpy(), np.repeat([0, 1], 5000)
    )
    ours = torch.cat([normal, normal + change]) @ found.weight + found.bias
    theirs = reference.decision_function(torch.cat([normal, normal + change]).numpy())
    scale = float(ours.std()) / theirs.std()
    np.testing.assert_allclose(ours.numpy(), scale * theirs, atol=1e-2, rtol=1e-3)
    assert float((normal @ found.weight).std(correction=0)) == pytest.approx(1, rel=1e-3)


def test_shrinkage_turns_whitening_into_standardising():
    normal, change = correlated(400, 5), torch.arange(5.0)
    weight = whitened(normal.T.cov(), change, shrinkage=1e6)
    torch.testing.assert_close(1e6 * weight, change / normal.var(0), rtol=1e-3, atol=1e-5)


@given(st.integers(2, 12), st.integers(2, 30), st.floats(0.01, 100))
def test_solving_among_samples_is_solving_among_dimensions(samples, dimensions, ridge):
    centred = correlated(samples, dimensions).double()
    centred = centred - centred.mean(0)
    target = torch.linspace(-1, 1, dimensions, dtype=torch.double)
    dense = centred.T @ centred / samples + ridge * torch.eye(dimensions, dtype=torch.double)
    expected = torch.linalg.solve(dense, target)
    torch.testing.assert_close(whitened_among_samples(centred, target, ridge), expected, rtol=1e-6, atol=1e-8)


def test_image_discriminant_is_zero_half_way():
    normal, change = correlated(20, 50), torch.linspace(-1, 2, 50)
    found = image_discriminant(normal, change, ridge=3.0)
    middle = normal.mean(0) + change / 2
    assert float(found.weight @ middle + found.bias) == pytest.approx(0, abs=1e-4)
    assert float(found.weight @ (middle + change) + found.bias) > 0
    assert float((normal @ found.weight).std(correction=0)) == pytest.approx(1, rel=1e-3)


@pytest.fixture(scope="module")
def solved():
    """A model whose linear parts have been solved for on features in which lesions add to some channels."""
    model = MEMDModel(build_backbone("resnet18", ["layer1"], pre_trained=False), **groups(width=16))
    channels = model.embedding.channels
    random = torch.Generator().manual_seed(0)
    wli = torch.randn(60, channels, 6, 6, generator=random)
    normal = {Modality.WLI: wli, Modality.NBI: 0.5 * wli + torch.randn(wli.shape, generator=random)}
    mask = torch.zeros(60, 6, 6)
    mask[:, 1:4, 2:5] = 1
    change = torch.zeros(channels)
    change[:8] = 1.5
    abnormal = seen({m: x + mask[:, None] * change[:, None, None] for m, x in normal.items()})
    normal = seen(normal)
    statistics = {m: feature_statistics([x]) for m, x in normal.items()}
    for stage in Stage:
        model.fit_statistics(stage, statistics)
    negatives = [(normal, abnormal, dict.fromkeys(Modality, mask))]
    solve_by_negatives(model.teacher, list(Modality), [normal], negatives, statistics, (0.0, 0.0), (1.0, 9.0))
    return model, normal, abnormal, mask.bool(), statistics


def test_teacher_tells_lesions_apart_without_training(solved):
    model, normal, abnormal, mask, _ = solved
    with torch.no_grad():
        head = model.teacher
        odds, half = (own[:, 0] for own in head.discriminate(list(abnormal.values())))
        before, after = (head.margins(head.weigh(list(x.values()))) for x in (normal, abnormal))
    assert (odds[mask] > 0).float().mean() > 0.95
    assert (odds[~mask] > 0).float().mean() < 0.05
    share = F.avg_pool2d(mask.float(), 2)
    assert (half[share > 0.5] > 0).all()
    assert (half[share == 0] < 0).all()
    assert after.shape == (60, 2)
    assert (after.amin(0) > before.amax(0)).all()


def test_discriminants_of_the_image_have_the_ridge_of_their_size(solved):
    model, normal, abnormal, _, _ = solved
    with torch.no_grad():
        seen_normal, seen_abnormal = (model.teacher.weigh(list(x.values())) for x in (normal, abnormal))
    channels = model.embedding.channels
    for size, (linear, ridge) in enumerate(zip(model.teacher.images, (1.0, 9.0), strict=True)):
        for number, part in enumerate((slice(channels), slice(channels, None))):
            before, after = seen_normal[:, size, part], seen_abnormal[:, size, part]
            alone = image_discriminant(before, after.mean(0) - before.mean(0), ridge / (2 * channels))
            found = linear.weight[0, part].detach()
            torch.testing.assert_close(found, alone.weight / 2, msg=f"size {size}, part {number}")


def test_students_predict_the_teacher_by_least_squares(solved):
    """Up to their scale: both levels are in units of their deviation over normal images."""
    model, normal, abnormal, _, statistics = solved
    solve_students(heads_of(model), model.teacher, [normal], [abnormal], statistics, True, (0.0, 0.0), ridge=1.0)
    with torch.no_grad():
        taught = model.teacher.discriminate(list(normal.values()))
        for modality in Modality:
            own = model.student(modality)
            found = own.discriminate([normal[modality]])
            for size, seen_map in enumerate(normal[modality].maps):
                vectors = seen_map.movedim(1, -1).flatten(0, 2).numpy()
                reference = Ridge(alpha=1e-6).fit(vectors, taught[size].flatten().numpy()).predict(vectors)
                np.testing.assert_allclose(found[size].flatten().numpy(), reference / reference.std(), atol=1e-3)
            both = joined(normal, abnormal)
            targets = model.teacher.margins(model.teacher.weigh(both)).numpy()
            all_weighed = own.weigh([both[list(Modality).index(modality)]])
            margins = own.margins(all_weighed).numpy()
            for size in range(2):
                weighed, target = all_weighed[:, size].numpy(), targets[:, size]
                ridge = Ridge(alpha=len(target) / weighed.shape[1]).fit(weighed, target).predict(weighed)
                ridge = ridge / ridge[: len(target) // 2].std()
                np.testing.assert_allclose(margins[:, size], ridge, atol=1e-3)


def test_without_partners_the_teacher_sees_one_image_twice(solved):
    model, normal, abnormal, _, statistics = solved
    twice = {m: model.teacher.discriminate([normal[m]] * 2) for m in Modality}
    solve_students(heads_of(model), model.teacher, [normal], [abnormal], statistics, False, (0.0, 0.0), ridge=1.0)
    for modality in Modality:
        # The teacher's log odds are linear in the one image, so the student's are the same.
        for found, target in zip(
            model.student(modality).discriminate([normal[modality]]), twice[modality], strict=True
        ):
            torch.testing.assert_close(found, target / target.std(), atol=1e-3, rtol=1e-3)


def test_distances_are_fitted_to_the_features_of_their_modality(solved):
    model, normal, abnormal, mask, statistics = solved
    heads = [pair for stage in Stage for pair in model.detectors(stage)]
    fit_distances(heads, [normal], statistics)
    calibrate_evidence(heads, [normal])
    for head, modalities in heads:
        scaled = (head.image_evidence([normal[m] for m in modalities], among=True) - head.evidence.standardize.mean) / (
            head.evidence.standardize.std
        )
        torch.testing.assert_close(scaled.mean(0), torch.zeros(4), atol=1e-3, rtol=0)
    with torch.no_grad():
        margins = [model.teacher(list(features.values())).image for features in (normal, abnormal)]
        assert margins[1].min() > margins[0].max()
        for number, modality in enumerate(Modality):
            student, teacher = model.student(modality), model.teacher
            (one,) = student.located([abnormal[modality]])
            both = teacher.located(list(abnormal.values()))
            own = student.image_distances[0](one)
            torch.testing.assert_close(own, teacher.image_distances[number](both[number]))
            changed = student.location_distances[0](abnormal[modality].overview)
            torch.testing.assert_close(changed, teacher.location_distances[number](abnormal[modality].overview))
            far = student.location_distances[0](normal[modality].overview)
            assert float(far.mean()) == pytest.approx(0, abs=1e-3)
            assert float(far.std()) == pytest.approx(1, abs=1e-2)
            share = F.avg_pool2d(mask.float(), 2)
            assert changed[share > 0.5].mean() > 0.5 + changed[share == 0].mean()


def test_a_shared_student_measures_by_both_modalities():
    model = MEMDModel(build_backbone("resnet18", ["layer1"], pre_trained=False), **groups(width=16, students="shared"))
    shape = (20, model.embedding.channels, 4, 4)
    normal = seen({m: 5 * i + torch.randn(shape) for i, m in enumerate(Modality)})
    statistics = {m: feature_statistics([x]) for m, x in normal.items()}
    model.fit_statistics(Stage.STUDENTS, statistics)
    fit_distances(model.detectors(Stage.STUDENTS), [normal], statistics)
    distance = model.student(Modality.WLI).location_distances[0]
    torch.testing.assert_close(distance.mean, torch.full((shape[1],), 2.5), atol=0.2, rtol=0)
    assert float(distance(ImageFeatures.joined(normal.values()).overview).mean()) == pytest.approx(0, abs=1e-3)


def test_a_student_alone_is_solved_for_as_a_teacher_of_one_modality():
    """Without distillation each student learns from the negatives of its own modality."""
    model = MEMDModel(build_backbone("resnet18", ["layer1"], pre_trained=False), **groups(weight=0.0))
    shape = (30, model.embedding.channels, 4, 4)
    normal = {m: torch.randn(shape) for m in Modality}
    change = {Modality.WLI: 2.0, Modality.NBI: -2.0}
    mask = torch.zeros(30, 4, 4)
    mask[:, :2] = 1
    abnormal = seen({m: x + change[m] * mask[:, None] for m, x in normal.items()})
    normal = seen(normal)
    statistics = {m: feature_statistics([x]) for m, x in normal.items()}
    model.fit_statistics(Stage.STUDENTS, statistics)
    for student, modalities in model.detectors(Stage.STUDENTS):
        negatives = [(normal, abnormal, dict.fromkeys(Modality, mask))]
        solve_by_negatives(student, modalities, [normal], negatives, statistics, (0.1, 1.0), (1.0, 1.0))
    for m in Modality:
        maps = model.student(m).discriminate([abnormal[m]])
        for odds, own in zip(maps, (mask, mask[:, ::2, ::2]), strict=True):
            assert odds[:, 0][own.bool()].min() > odds[:, 0][~own.bool()].max()
        for location in model.student(m).locations:
            assert torch.sign(location.weight.sum()) == torch.sign(torch.tensor(change[m]))
