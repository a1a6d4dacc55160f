"""What libraries read from the environment when they are imported; so this module is imported before them."""

import os
import sys

VARIABLES = {
    # They would tell their makers that they are used.
    "GRADIO_ANALYTICS_ENABLED": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "NO_ALBUMENTATIONS_UPDATE": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Threads that wait for each other would keep a core busy; two programs slowed each other down several times.
    "OMP_WAIT_POLICY": "PASSIVE",
}
"""Environment variables; those that are set stay."""

for _name, _value in VARIABLES.items():
    os.environ.setdefault(_name, _value)
# OpenVINO and NNCF send statistics to Google Analytics when they are imported, and write an identifier into the home
# folder, unless the package that does this is not there.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
