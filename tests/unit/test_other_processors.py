"""Every step with tensors that say they are on a GPU: what is left on the CPU is an error."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torchgen
import yaml

from anomalib_memd import MVFA, CMGNet, SpectralNBI
from anomalib_memd.components.embedding import ImageFeatures
from anomalib_memd.components.feature_cache import FeatureCache
from anomalib_memd.components.sentences import EncodedText
from anomalib_memd.components.training_features import FeatureSet
from anomalib_memd.components.two_stage import Stage
from anomalib_memd.components.weighing import weigh_evidence
from anomalib_memd.data.overlay import overlay_mask
from anomalib_memd.modality import Branch, Modality
from anomalib_memd.models import FAnoGAN, MeanShifted, WtNGAN
from anomalib_memd.models.cmgnet import CMGNetModel
from anomalib_memd.models.memd.cross_fitting import cross_fit
from tests.conftest import deployable_memd, small_memd
from tests.integration.test_methods import METHODS, ON_PAIRS, built
from tests.pretend import GPU, images, is_fake, pretended_gpu

_LIST = Path(torchgen.__file__).parent / "packaged/ATen/native/native_functions.yaml"
OPERATORS = {entry["func"].split("(")[0]: entry for entry in yaml.safe_load(_LIST.read_text())}


def kept(model, count=16, negatives=2):
    """Features of training pairs as the cache keeps them: in the memory of the computer."""
    cache = FeatureCache.__new__(FeatureCache)
    cache.negatives = negatives
    shape = (count, 1 + negatives, 2, model.model.embedding.channels)
    overview = torch.rand(*shape, 2, 2).bfloat16() if model.model.embedding.overview else None
    cache.features = ImageFeatures(torch.rand(*shape, 4, 4).bfloat16(), overview)
    cache.masks = torch.ones(count, negatives, 2, 4, 4).bfloat16()
    return FeatureSet(cache, torch.arange(count), GPU)


def test_a_tensor_left_on_the_cpu_is_found():
    model = small_memd()
    with pretended_gpu(model):
        model.model.teacher.discriminant.bias = torch.nn.Parameter(torch.zeros(1))
        features = [model.model.embedding(images(2, 3, 64, 64))] * 2
        with pytest.raises(RuntimeError, match="device"):
            model.model.teacher.discriminate(features)


def test_both_stages_are_solved_for_on_a_gpu():
    model = small_memd().eval()
    given = kept(model)
    with pretended_gpu(model):
        for stage in Stage:
            model.solve(stage, given)
            seen = ImageFeatures(torch.rand(6, 384, 4, 4, device=GPU), torch.rand(6, 384, 2, 2, device=GPU))
            labelled = [(dict.fromkeys(Modality, seen), torch.ones(6, device=GPU) > 0)]
            weigh_evidence(model.model.detectors(stage), labelled, 1.0)
        assert all(is_fake(value) for value in model.model.state_dict().values())


def test_thresholds_are_set_by_normal_images_on_a_gpu():
    model = small_memd().eval()
    given = kept(model)
    with pretended_gpu(model):
        model.stage = Stage.STUDENTS
        table = cross_fit(model, given, 0.1)
    assert list(table.detector) == ["teacher", "wli", "nbi"] or len(table) == 3


def test_features_are_computed_on_a_gpu_and_kept_in_memory():
    model = small_memd().eval()
    cache = FeatureCache.__new__(FeatureCache)
    cache.embed = model.model.embedding
    cache.pools = [[(torch.rand(3, 2, 3, 64, 64), torch.rand(2, 2, 64, 64)) for _ in range(6)]]
    features = ImageFeatures(torch.empty(6, 3, 2, 384, 4, 4).bfloat16(), torch.empty(6, 3, 2, 384, 2, 2).bfloat16())
    masks = torch.empty(6, 2, 2, 4, 4).bfloat16()
    with pretended_gpu(model):
        features, masks = features.of(lambda x: x + 0), masks + 0
        cache._compute(features, masks, GPU, 0, 0, 1)
        assert all(is_fake(part, torch.device("cpu")) for part in features)


@pytest.mark.parametrize("branch", list(Branch))
def test_a_deployed_detector_judges_on_a_gpu(branch):
    model = deployable_memd()
    detector = model.deployed(branch)
    with pretended_gpu(detector), torch.inference_mode():
        found = detector(*(images(2, 3, 48, 56) for _ in detector.modalities))
        again = detector(*detector.example())
    assert all(is_fake(part) for part in (*found, *again))
    assert found.anomaly_map.shape == (2, 64, 64)


def test_networks_of_both_stages_learn_on_a_gpu():
    model = small_memd(evidence="encoding", noise=1.0, student_noise=0.1).train()
    given = kept(model)
    with pretended_gpu(model):
        for stage in Stage:
            model.freeze_for(stage)
            model.solve(stage, given)
            sample = next(given.pairs())
            losses = (
                model.objective.teacher_losses(model.model, sample)
                if stage is Stage.TEACHER
                else model.objective.student_losses(model.model, sample, lambda loss: loss)
            )
            assert all(is_fake(loss) for loss in losses.values())
            assert losses["loss"].requires_grad


@pytest.mark.parametrize("branch", list(Branch))
def test_thresholds_are_chosen_and_predictions_normalised_on_a_gpu(branch):
    model = small_memd().eval()
    processor = model.post_processor.branch(branch)
    with pretended_gpu(model), torch.inference_mode():
        batch = SimpleNamespace(
            image=images(4, 3, 64, 64), gt_label=torch.ones(4, device=GPU) > 0, pred_score=images(4),
            anomaly_map=images(4, 64, 64),
            pred_label=None,
            pred_mask=None,
            gt_mask=None,
        )  # fmt: skip
        processor.on_validation_batch_end(None, model, batch)
        processor.on_validation_epoch_end(None, model)
        processor.post_process_batch(batch)
        assert is_fake(batch.pred_score)
        assert is_fake(batch.pred_label)


def test_white_light_is_translated_on_a_gpu():
    spectral, learned = SpectralNBI(), WtNGAN(width=8, blocks=1, state_size=2, discriminator_width=8)
    with pretended_gpu(spectral, learned):
        assert is_fake(spectral(images(2, 3, 64, 64)))
        source = images(2, 3, 64, 64)
        encoded = learned.generator.encode(source)
        translated = learned.generator.decode(encoded[-1], source)
        seen = ~overlay_mask(source)
        losses = (
            learned.adversarial(learned.discriminator(translated * seen), True),
            learned._contrast(learned.generator.encode(translated), encoded),
            learned.structure(translated, source, seen),
        )
        assert all(is_fake(loss) for loss in losses)


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_other_methods_learn_and_judge_on_a_gpu(name):
    model = built(name)
    model.post_processor = None
    size = METHODS[name]["image_size"]
    if isinstance(model, MeanShifted):  # kornia checks the values of its options.
        model.model.augment = lambda frames: frames
    with pretended_gpu(model):
        if not isinstance(model, FAnoGAN):  # Its losses are those of phases.
            frames = images(4, 3, *size)
            assert is_fake(model.model.loss(dict.fromkeys(Modality, frames) if name in ON_PAIRS else frames))
        model.eval()
        with torch.inference_mode():
            found = model(images(2, 3, 72, 80))
        assert all(is_fake(part) for part in found if part is not None)


def test_mvfa_learns_and_judges_on_a_gpu():
    from tests.unit.models.test_mvfa import TINY  # noqa: PLC0415

    pytest.importorskip("open_clip")
    model = MVFA(clip_config=TINY, image_size=(32, 32), visualizer=False, evaluator=False)
    with pretended_gpu(model):
        # Which masks there are depends on their values, so that they are left out.
        assert is_fake(model.model.loss(images(4, 3, 32, 32), images(4) > 0.5, None))
        model.eval()
        model.model.remember([images(2, 3, 32, 32)])
        with torch.inference_mode():
            found = model(images(2, 3, 72, 80))
        assert all(is_fake(part) for part in found if part is not None)


def test_segmentation_learns_and_judges_on_a_gpu():
    model = CMGNet(text=False, widths=[4, 8, 16], heads=4, image_size=(32, 32), visualizer=False, evaluator=False)
    text = EncodedText(torch.zeros(1, 2, 12), torch.ones(1, 2, dtype=torch.bool))
    model.model = CMGNetModel(text, widths=(4, 8, 16), heads=4)
    with pretended_gpu(model):
        words = EncodedText(images(4, 3, 12), images(4, 3) > 0.5)
        assert is_fake(model.model.loss(images(4, 3, 32, 32), images(4, 32, 32) > 0.5, words))
        model.eval()
        with torch.inference_mode():
            found = model(images(2, 3, 72, 80))
        assert all(is_fake(part) for part in found if part is not None)


def test_mps_computes_every_operator():
    """By PyTorch's own list of operators and their kernels, which lies beside it."""
    model, detector = small_memd().eval(), deployable_memd().deployed(Modality.WLI)
    given = kept(model)
    with pretended_gpu(model, detector) as gpu:
        for stage in Stage:
            model.solve(stage, given)
        detector(images(2, 3, 48, 56))
    assert len(gpu.used) > 40
    absent = {name for name in map(str, gpu.used) if not computed_on("MPS", name)}
    assert absent <= {"aten.cudnn_batch_norm.default"}  # Which other processors do not call.
    assert not computed_on("MPS", "aten.linalg_eig.default")


def computed_on(processor, operator):
    """Whether an operator has a kernel for a processor, or is made of others."""
    name = operator.removeprefix("aten.").replace(".default", "")
    entry = OPERATORS[name]
    entry = OPERATORS[entry["structured_delegate"]] if "structured_delegate" in entry else entry
    keys = {
        key.strip() for names in entry.get("dispatch", {"CompositeImplicitAutograd": ""}) for key in names.split(",")
    }
    return bool(keys & {processor, "CompositeImplicitAutograd", "CompositeExplicitAutograd"})
