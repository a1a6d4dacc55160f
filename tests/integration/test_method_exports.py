"""Every other method of the field is exported by anomalib's own means."""

import numpy as np
import onnxruntime
import openvino
import pytest
import torch

from anomalib_memd.deployment import AS_EXPORTED
from tests.integration.test_methods import METHODS, built

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", METHODS)
def test_an_exported_method_gives_the_same_in_onnx_and_openvino(name, tmp_path):
    torch.manual_seed(0)
    model = built(name).eval()
    model.post_processor = None
    # Another size than that of the network, so that resizing is exported, too.
    frames = torch.rand(4, 3, 80, 72)
    with torch.inference_mode():
        found = [part for part in model(frames) if part is not None]
    path = model.to_onnx(tmp_path, input_size=(80, 72))
    session = onnxruntime.InferenceSession(path)
    network = openvino.Core().compile_model(path, "CPU", AS_EXPORTED)
    for outputs in (
        session.run(None, {session.get_inputs()[0].name: frames.numpy()}),
        network(frames.numpy()).values(),
    ):
        for output, expected in zip(outputs, found, strict=True):
            scale = max(1.0, float(expected.abs().max()))
            np.testing.assert_allclose(output.reshape(-1), expected.reshape(-1), atol=2e-3 * scale)
