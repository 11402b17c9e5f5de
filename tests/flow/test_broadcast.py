import pytest
import torch

from fmbench.flow.broadcast import expand_to


@pytest.mark.parametrize("shape", [(3,), (3, 2), (3, 1, 2, 5)])
def test_each_sample_gets_its_own_time(shape):
    t, x = torch.tensor([1.0, 2.0, 3.0]), torch.ones(shape)
    product = expand_to(t, x) * x
    assert product.shape == shape
    for i in range(3):
        assert (product[i] == t[i]).all()


def test_one_time_for_all():
    x = torch.randn(3, 2)
    assert torch.equal(expand_to(torch.tensor(2.0), x) * x, 2 * x)


@pytest.mark.parametrize("t_shape", [(1,), (2,), (4,), (3, 1), (1, 3)])
def test_times_of_another_batch_are_refused(t_shape):
    """Shape (4,) would broadcast over the last axis of (3, 4) silently."""
    with pytest.raises(ValueError, match=r"\(3,\)"):
        expand_to(torch.zeros(t_shape), torch.zeros(3, 4))
