"""The resize that is exported, against torchvision's."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms.v2.functional import resize

from anomalib_memd.components.resize import AntialiasedResize

SIZES = st.integers(2, 90)


@settings(deadline=None, max_examples=40)
@given(SIZES, SIZES, SIZES, SIZES)
def test_it_is_torchvisions_antialiased_resize(height, width, new_height, new_width):
    images = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(height * 97 + width))
    own = AntialiasedResize((new_height, new_width))(images)
    torch.testing.assert_close(own, resize(images, [new_height, new_width], antialias=True), atol=1e-5, rtol=0)


def test_images_of_the_right_size_are_left_alone():
    images = torch.rand(1, 3, 8, 9)
    assert AntialiasedResize((8, 9))(images) is images
