"""What libraries are told before they are imported."""

import os
import subprocess
import sys

from anomalib_memd.environment import VARIABLES

SHOW = """
import anomalib_memd, openvino, os, sys
print(sys.modules["openvino_telemetry"], os.environ["HF_HUB_DISABLE_TELEMETRY"], os.environ["RAY_USAGE_STATS_ENABLED"])
"""


def test_threads_wait_without_spinning_and_nothing_is_sent():
    environment = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    environment |= {"HF_HUB_DISABLE_TELEMETRY": "what the user has set", "OMP_DISPLAY_ENV": "TRUE"}
    run = subprocess.run([sys.executable, "-c", SHOW], env=environment, capture_output=True, text=True, check=True)
    # PyTorch's own threads say so, when they are loaded.
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in run.stderr
    assert run.stdout.strip() == "None what the user has set 0"
