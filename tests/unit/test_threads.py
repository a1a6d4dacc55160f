"""Threads of the process."""

import pytest
import torch

from anomalib_memd.threads import one_thread


@pytest.fixture(autouse=True)
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_the_number_of_threads_is_as_before_afterwards():
    with one_thread():
        assert torch.get_num_threads() == 1
        with one_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2


def test_also_after_an_error_and_as_a_decorator():
    @one_thread()
    def fail(number):
        assert number == torch.get_num_threads() == 1
        raise KeyError

    for _ in range(2):  # A decorated function can be called more than once.
        with pytest.raises(KeyError):
            fail(1)
        assert torch.get_num_threads() == 2
