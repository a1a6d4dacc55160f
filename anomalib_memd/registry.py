"""Makes the models and datamodules of this package known to anomalib.

anomalib's ``get_model`` and ``get_datamodule`` look in anomalib's own modules and in a list of allowed ones.
"""

import anomalib.data
import anomalib.models
from anomalib.models.components import AnomalibModule

from anomalib_memd import models
from anomalib_memd.data import FewShot, Kvasir, LeaveOneOrganOut, Phantom, Segmentation, SkinLesion


def register() -> None:
    """Let anomalib find the models and datamodules by name and by class path. Calling it again changes nothing."""
    anomalib.models.ALLOWED_MODULES.add("anomalib_memd")
    anomalib.models.ALLOWED_MODULES.add("anomalib_memd.models")
    for name in models.__all__:
        if issubclass(model := getattr(models, name), AnomalibModule):
            setattr(anomalib.models, name, model)
    for datamodule in (FewShot, Kvasir, LeaveOneOrganOut, Phantom, Segmentation, SkinLesion):
        setattr(anomalib.data, datamodule.__name__, datamodule)
