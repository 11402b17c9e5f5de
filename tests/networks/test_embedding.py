"""The time embedding."""

import math

import pytest
import torch

from fmbench.networks.embedding import SinusoidalEmbedding


@pytest.mark.parametrize(("dimension", "top"), [(2, 5.0), (8, 60.0), (128, 1000.0)])
def test_embedding_frequencies(dimension, top):
    embedding = SinusoidalEmbedding(dimension, top)
    half = dimension // 2
    t = torch.tensor([0.0, 0.3, 1.0])
    out = embedding(t)
    assert out.shape == (3, dimension)
    torch.testing.assert_close(out[0], torch.cat([torch.ones(half), torch.zeros(half)]))
    for k in range(half):
        frequency = top * 10_000 ** (-k / half)
        assert float(embedding.frequencies[k]) == pytest.approx(frequency, rel=1e-6)
        for row, time in enumerate([0.0, 0.3, 1.0]):
            # A float32 angle of 1000 radians is good to 6e-5.
            assert float(out[row, k]) == pytest.approx(math.cos(time * frequency), abs=2e-4)
            assert float(out[row, half + k]) == pytest.approx(math.sin(time * frequency), abs=2e-4)


def test_embedding_of_1000_t_is_adms():
    """ADM embeds integer steps of 0 to 1000 with frequencies exp(-log(10000) k / half)."""
    steps = torch.tensor([0.0, 1.0, 250.0, 999.0])
    angles = steps[:, None] * torch.exp(-math.log(10_000) * torch.arange(16) / 16)
    expected = torch.cat([angles.cos(), angles.sin()], 1)
    torch.testing.assert_close(SinusoidalEmbedding(32, 1000.0)(steps / 1000), expected, rtol=0, atol=2e-4)


def test_frequencies_are_not_weights():
    assert not SinusoidalEmbedding(8, 60.0).state_dict()


@pytest.mark.parametrize(("dimension", "top"), [(3, 1.0), (0, 1.0), (1, 1.0), (4, 0.0), (4, -1.0)])
def test_impossible_embeddings_are_refused(dimension, top):
    with pytest.raises(ValueError, match=f"not {dimension if top == 1 else top}"):
        SinusoidalEmbedding(dimension, top)
