"""Makes the models and datamodules of this package known to anomalib.

anomalib's ``get_model`` and ``get_datamodule`` look in anomalib's own modules and in a list of allowed ones.
"""

import anomalib.data
import anomalib.models

from anomalib_memd.data import Kvasir, Phantom
from anomalib_memd.models import MEMD, PooledFeatures


def register() -> None:
    """Let anomalib find the models and datamodules by name and by class path. Calling it again changes nothing."""
    anomalib.models.ALLOWED_MODULES.add("anomalib_memd")
    anomalib.models.ALLOWED_MODULES.add("anomalib_memd.models")
    for model in (MEMD, PooledFeatures):
        setattr(anomalib.models, model.__name__, model)
    for datamodule in (Kvasir, Phantom):
        setattr(anomalib.data, datamodule.__name__, datamodule)
