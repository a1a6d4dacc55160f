"""Parts of the normal images, each judged by what was solved for on the others."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from anomalib_memd.models.memd.cross_fitting import _folds


@given(st.integers(1, 20), st.integers(0, 500))
def test_parts_are_in_one_piece_and_of_about_one_size(parts, more):
    folds = _folds(parts + more, parts)
    # Frames that adjoin are in one part, but at the ends of parts.
    assert ((folds[1:] - folds[:-1]) >= 0).all()
    sizes = torch.bincount(folds)
    assert len(sizes) == parts
    assert sizes.max() - sizes.min() <= 1
