"""Libraries that would tell their makers that they are used do not, once this module has been imported."""

import os
import sys

TOLD_NOT_TO = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "NO_ALBUMENTATIONS_UPDATE": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}
"""Environment variables by which libraries are told; those that are set stay."""

for _name, _value in TOLD_NOT_TO.items():
    os.environ.setdefault(_name, _value)
# OpenVINO and NNCF send statistics to Google Analytics when they are imported, and write an identifier into the home
# folder, unless the package that does this is not there.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
