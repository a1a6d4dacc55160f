"""Taking a trained teacher out of a checkpoint."""

from pathlib import Path

import torch
from anomalib.utils.serialization import anomalib_safe_globals
from torch import nn

_PARTS = ("embedding.", "teacher.")


def load_teacher(model: nn.Module, path: Path) -> None:
    """Load teacher and backbone of another run into a model.

    Args:
        model: The :class:`~.torch_model.MEMDModel` that takes them.
        path: Checkpoint of MEMD.

    Raises:
        ValueError: If the file is missing or unreadable, or holds another architecture.
    """
    if not path.is_file():
        msg = f"{path}: no such checkpoint of a teacher."
        raise ValueError(msg)
    try:
        with anomalib_safe_globals(extra=_safe_globals()):
            state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    except Exception as error:
        msg = f"{path}: no readable checkpoint of MEMD ({type(error).__name__}: {error})."
        raise ValueError(msg) from error
    own = {key: value for key, value in model.state_dict().items() if key.startswith(_PARTS)}
    given = {key.removeprefix("model."): value for key, value in state.items()}
    wrong = [key for key, value in own.items() if key not in given or given[key].shape != value.shape]
    if wrong:
        msg = (
            f"{path} does not fit this model: {wrong[0]} is missing or of another shape ({len(wrong)} such); give "
            f"the same backbone, layers, width and fusion as it was trained with."
        )
        raise ValueError(msg)
    model.load_state_dict({key: given[key] for key in own}, strict=False)


def _safe_globals() -> list[type]:
    from .lightning_model import MEMD  # noqa: PLC0415  the model imports this module

    return list(MEMD.checkpoint_safe_globals())
