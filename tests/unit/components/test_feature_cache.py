"""Kept features are those of the backbone, whoever fills the file."""

import errno
import threading
import time

import pytest
import torch
from filelock import FileLock
from torchvision.transforms.v2 import Normalize

from anomalib_memd.components.backbones import build_backbone
from anomalib_memd.components.embedding import FeatureEmbedding
from anomalib_memd.components.feature_cache import FeatureCache, shrink
from anomalib_memd.components.negatives import ImageSynthesis, NegativePool
from anomalib_memd.modality import Modality
from tests.conftest import small_phantom

NORMALIZE = Normalize([0.4] * 3, [0.2] * 3)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def embedding():
    torch.manual_seed(0)
    backbone = build_backbone("resnet18", ["layer1", "layer2"], pre_trained=False)
    return FeatureEmbedding(backbone, overview=True).eval()


@pytest.fixture
def dataset(phantom_root):
    datamodule = small_phantom(phantom_root)
    datamodule.setup()
    return datamodule.train_data


def make(embedding, dataset, directory=None, negatives=2, key="key"):
    return FeatureCache(embedding, [NegativePool(dataset, ImageSynthesis(), negatives, NORMALIZE)], key, directory)


def test_holds_the_features_of_the_backbone(embedding, dataset):
    cache = make(embedding, dataset)
    cache.fill(CPU)
    torch.manual_seed(3)
    paths = [dataset[i].image_path for i in (5, 0, 7)]
    normal, abnormal, masks = cache.draw(paths, CPU)
    torch.manual_seed(3)
    drawn = torch.randint(2, (3,)).tolist()
    for place, (index, number) in enumerate(zip((5, 0, 7), drawn, strict=True)):
        images, changed = cache.pools[0][index]
        for order, modality in enumerate(Modality):
            with torch.no_grad():
                expected = embedding(torch.stack([images[0, order], images[1 + number, order]]))
            for row, ours in enumerate((normal, abnormal)):
                for own, theirs in zip(ours[modality], expected, strict=True):
                    torch.testing.assert_close(own[place].float(), theirs[row], atol=0.05, rtol=0.05)
            fractions = shrink(changed[number, order], expected.map.shape[-2:])
            torch.testing.assert_close(masks[modality][place].float(), fractions, atol=0.01, rtol=0)
    cache.close()


def test_two_processes_fill_what_one_would(embedding, dataset, tmp_path):
    alone = make(embedding, dataset, tmp_path / "alone")
    alone.fill(CPU)
    shared = make(embedding, dataset, tmp_path / "shared")
    images, _ = shared.pools[0][0]
    example = embedding(images[0])
    features = example.of(lambda x: torch.zeros(len(dataset), 3, 2, *x.shape[1:], dtype=torch.bfloat16))
    fractions = torch.zeros(len(dataset), 2, 2, *example.map.shape[-2:], dtype=torch.bfloat16)
    for rank in range(2):
        shared._compute(features, fractions, CPU, 0, rank, 2)
    for ours, theirs in zip(features, alone.features, strict=True):
        torch.testing.assert_close(ours, theirs, atol=0.05, rtol=0.05)
    assert torch.equal(fractions, alone.masks)


def test_is_kept_by_content(embedding, dataset, tmp_path, monkeypatch):
    make(embedding, dataset, tmp_path).fill(CPU)
    kept = make(embedding, dataset, tmp_path)
    monkeypatch.setattr(kept, "_compute", None)
    kept.fill(CPU)
    assert len(list(tmp_path.glob("*.features"))) == 1
    assert make(embedding, dataset, tmp_path, negatives=1)._digest != kept._digest
    assert make(embedding, dataset, tmp_path, key="other weights")._digest != kept._digest


def test_a_second_run_waits_for_the_first(embedding, dataset, tmp_path, monkeypatch):
    first, second = (make(embedding, dataset, tmp_path) for _ in range(2))
    compute, begun = first._compute, threading.Event()

    def slowly(*arguments):
        begun.set()
        time.sleep(0.5)
        compute(*arguments)

    monkeypatch.setattr(first, "_compute", slowly)
    monkeypatch.setattr(second, "_compute", None)
    filling = threading.Thread(target=first.fill, args=(CPU,))
    filling.start()
    begun.wait()
    second.fill(CPU)
    filling.join()
    assert all(map(torch.equal, first.features, second.features))


def test_a_temporary_file_needs_no_tidying_up(embedding, dataset, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    cache, kept = make(embedding, dataset), make(embedding, dataset, tmp_path / "kept")
    cache.fill(CPU)
    assert not list(tmp_path.iterdir()), "a killed process would leave it"
    kept.fill(CPU)
    assert all(map(torch.equal, cache.features, kept.features))
    cache.close()
    kept.close()
    assert list(tmp_path.rglob("*.features"))


@pytest.mark.parametrize("folder", [None, "kept"])
def test_interrupted_filling_leaves_nothing(embedding, dataset, tmp_path, monkeypatch, folder):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    cache = make(embedding, dataset, tmp_path / folder if folder else None)
    monkeypatch.setattr(cache, "_compute", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cache.fill(CPU)
    assert not [path for path in tmp_path.rglob("*") if path.name != folder and path.suffix != ".lock"]


def test_full_disk_names_the_way_out(embedding, dataset, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 10})())
    with pytest.raises(OSError, match=r"set cache_dir to another disk"):
        make(embedding, dataset, tmp_path).fill(CPU)


def test_a_disk_that_fills_up_meanwhile_is_an_error_too(embedding, dataset, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full, raising=False)
    free = iter([1 << 40, 10])
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": next(free)})())
    with pytest.raises(OSError, match=r"set cache_dir to another disk"):
        make(embedding, dataset, tmp_path).fill(CPU)
    assert not list(tmp_path.glob("*.part"))


def test_what_a_killed_run_has_left_is_removed_by_the_next(embedding, dataset, tmp_path):
    (tmp_path / "other.part").write_bytes(b"half")
    (tmp_path / "busy.part").write_bytes(b"half")
    with FileLock(tmp_path / "busy.lock"):
        make(embedding, dataset, tmp_path).fill(CPU)
    assert [path.name for path in tmp_path.glob("*.part")] == ["busy.part"]


def test_shrink_keeps_the_abnormal_fraction():
    masks = (torch.rand(3, 2, 32, 48) > 0.7).float()
    torch.testing.assert_close(shrink(masks, (8, 12)).mean((-2, -1)), masks.mean((-2, -1)))
