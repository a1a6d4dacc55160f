"""What models that learn have in common: steps, phases, and what they take in at the end."""

import pytest
import torch
from anomalib.data import InferenceBatch
from anomalib.engine import Engine
from anomalib.models.components import AnomalibModule
from lightning.pytorch import Callback
from torch import nn

from anomalib_memd.components.one_class import NearestVectors
from anomalib_memd.models.trained import OneClassNetwork, TrainedMixin, VectorMixin, VectorNetwork
from tests.conftest import small_phantom

QUIET = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}


class Mean(OneClassNetwork):
    """Learns the mean colour."""

    def __init__(self):
        super().__init__()
        self.colour = nn.Parameter(torch.zeros(3))

    def loss(self, images):
        return (images.mean((2, 3)) - self.colour).square().mean()

    def forward(self, images):
        return InferenceBatch(pred_score=(images.mean((2, 3)) - self.colour).square().mean(1))


class Colours(VectorNetwork):
    """Knows the mean colours of all training images."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.density = NearestVectors(3, 1)

    def vectors(self, images):
        return self.scale * images.mean((2, 3))

    def loss(self, images):
        return (self.vectors(images) - 1).square().mean()


class Learner(TrainedMixin, AnomalibModule):
    def __init__(self, steps=5, phases=1, **components):
        super().__init__((32, 32), steps, visualizer=False, **components)
        self.model, self.phases = Mean(), phases

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 0.05)


class Knower(VectorMixin, AnomalibModule):
    def __init__(self):
        super().__init__((32, 32), 3, visualizer=False)
        self.model = Colours()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


class Steps(Callback):
    def __init__(self):
        self.phases = []

    def on_train_batch_end(self, trainer, pl_module, *_):
        self.phases.append(pl_module.phase)


@pytest.mark.parametrize(("steps", "phases"), [(5, 1), (4, 2)])
def test_training_ends_after_its_steps_phase_by_phase(phantom_root, tmp_path, steps, phases):
    counted = Steps()
    Engine(callbacks=[counted], default_root_dir=tmp_path, **QUIET).fit(
        Learner(steps, phases), datamodule=small_phantom(phantom_root, modality="wli")
    )
    assert counted.phases == [phase for phase in range(phases) for _ in range(steps)]


def test_a_resumed_training_goes_on_in_its_phase(phantom_root, tmp_path):
    class Interrupt(Callback):
        def on_train_epoch_end(self, trainer, _module):
            if trainer.current_epoch == 1:
                trainer.save_checkpoint(tmp_path / "half.ckpt", weights_only=False)
                trainer.should_stop = True

    data = {"modality": "wli"}
    Engine(callbacks=[Interrupt()], default_root_dir=tmp_path, **QUIET).fit(
        Learner(4, 3), datamodule=small_phantom(phantom_root, **data)
    )
    counted = Steps()
    Engine(callbacks=[counted], default_root_dir=tmp_path, **QUIET).fit(
        Learner(4, 3), datamodule=small_phantom(phantom_root, **data), ckpt_path=tmp_path / "half.ckpt"
    )
    assert counted.phases == [
        1,
        1,
        2,
        2,
        2,
        2,
    ]  # Two epochs of three batches had ended the first phase and begun another.


def test_the_distance_takes_in_what_training_images_are_at_the_end(phantom_root, tmp_path):
    module, data = Knower(), small_phantom(phantom_root, modality="wli")
    Engine(default_root_dir=tmp_path, **QUIET).fit(module, datamodule=data)
    assert len(module.model.density.bank) == 12
    module.eval()
    with torch.no_grad():
        images = torch.stack([module.pre_processor.transform(item.image) for item in data.train_data])
        assert module.model(images).pred_score.max() < 1e-6
        assert module.model(images + 1).pred_score.min() > 0.5


def test_images_come_to_the_size_of_the_network():
    assert Learner().pre_processor.transform(torch.rand(3, 48, 64)).shape == (3, 32, 32)
    assert Learner(pre_processor=False).pre_processor is None


def test_a_datamodule_is_predicted_as_a_list_of_loaders_is(phantom_root, tmp_path):
    module, data = Learner(), small_phantom(phantom_root, modality="wli")
    engine = Engine(default_root_dir=tmp_path, **QUIET)
    engine.fit(module, datamodule=data)
    scores = []
    for source in ({"datamodule": data}, {"dataloaders": [data.test_dataloader()]}):
        batches = engine.predict(module, **source)
        scores.append(torch.cat([batch.pred_score.flatten() for batch in batches]))
    torch.testing.assert_close(scores[0], scores[1])
