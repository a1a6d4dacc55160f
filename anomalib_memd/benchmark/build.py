"""The model that a job trains, and the images that it is trained and tested on."""

from pathlib import Path

import torch
from anomalib.data import AnomalibDataModule, get_datamodule
from anomalib.metrics import Evaluator
from anomalib.models import AnomalibModule, get_model
from anomalib.models.components import TimmFeatureExtractor
from lightning.pytorch.cli import instantiate_class
from lightning.pytorch.trainer.states import TrainerFn

from anomalib_memd.components.backbones import build_backbone
from anomalib_memd.components.checkpoints import read_checkpoint
from anomalib_memd.models.trained import TrainedMixin

from .splits import DEV, VAL
from .task import Task, run_folder


def build_model(task: Task) -> AnomalibModule:
    """The model of a job, before it is trained.

    Args:
        task: What the job does.
    """
    method = task.method
    arguments = dict(method.init_args)
    training = dict(arguments.get("training", {}))
    if method.teacher_of is not None:
        teacher = run_folder(task.output, task.dataset, method.teacher_of, task.modality, task.seed)
        training["teacher_ckpt"] = str(teacher / "model.ckpt")
    if method.paired and not method.learns:
        training.setdefault("cache_dir", str(task.output / "features" / "memd"))
        arguments["training"] = training
    else:
        arguments["evaluator"] = Evaluator()  # Nothing: the recorder measures tests, alike for all.
    model = get_model(method.class_path.rsplit(".", maxsplit=1)[-1], **arguments, visualizer=False)
    if method.weights is not None:
        for module in model.modules():
            if isinstance(module, TimmFeatureExtractor):
                source = build_backbone(method.weights, module.layers)
                module.feature_extractor.load_state_dict(source.feature_extractor.state_dict())
    # Convolutions learn faster with their channels last. Some of anomalib's own models do not take that.
    return model.to(memory_format=torch.channels_last) if isinstance(model, TrainedMixin) else model  # type: ignore[call-overload]


def restore(model: AnomalibModule, ckpt: Path) -> None:
    """Bring a model to the state of a checkpoint, as Lightning does before a test.

    Args:
        model: Has the options of the one that was trained.
        ckpt: The checkpoint.

    Raises:
        ValueError: If the file is no readable checkpoint.
    """
    content = read_checkpoint(ckpt, model.checkpoint_safe_globals())
    model.on_load_checkpoint(content)
    model.load_state_dict(content["state_dict"])


def build_datamodule(task: Task, dataset: str, split: str = VAL) -> AnomalibDataModule:
    """A data set of a job.

    Args:
        task: What the job does.
        dataset: Name of the data set.
        split: With ``dev`` it is the data set that this one names as its ``development``.
    """
    data = task.datasets[dataset]
    arguments = data.get("init_args", {}) | task.method.data_args | {"modality": task.modality}
    if split == DEV:
        arguments |= data["development"]
    translator = arguments.pop("translator", None)
    datamodule = get_datamodule({"class_path": data["class_path"], "init_args": arguments})
    if translator is not None:  # anomalib's factory takes plain values alone.
        datamodule.translator = instantiate_class((), translator)
    return datamodule


def tested_datamodule(task: Task, dataset: str, split: str) -> AnomalibDataModule:
    """A data set whose test images are those of a split.

    Args:
        task: What the job does.
        dataset: Name of the data set.
        split: ``val``, ``dev`` or ``test``.
    """
    datamodule = build_datamodule(task, dataset, split)
    if split == VAL:
        datamodule.prepare_data()
        datamodule.setup(TrainerFn.TESTING)
        datamodule.test_data = datamodule.val_data
    return datamodule
