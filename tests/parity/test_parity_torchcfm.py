"""Parity with torchcfm: x_t and u_t of its matchers from the noise that it drew, its plans, and its U-Net, which is ADM's."""

import numpy as np
import pytest
import torch
from parity import draw, every_dtype, same
from torchcfm import (
    ConditionalFlowMatcher,
    ExactOptimalTransportConditionalFlowMatcher,
    TargetConditionalFlowMatcher,
    VariancePreservingConditionalFlowMatcher,
)
from torchcfm.models.unet.unet import UNetModel
from torchcfm.optimal_transport import OTPlanSampler

from fmbench.flow.couplings import MinibatchOT, Sinkhorn
from fmbench.flow.paths import CosineVP, OptimalTransport
from fmbench.networks.unet import UNet


@every_dtype
@pytest.mark.parametrize("sigma", [0.0, 0.1])
@pytest.mark.parametrize(
    ("matcher", "path"),
    [(ConditionalFlowMatcher, OptimalTransport(0.0)), (VariancePreservingConditionalFlowMatcher, CosineVP())],
    ids=["independent, our OT with sigma_min 0", "variance preserving, our cosine VP"],
)
def test_torchcfm_matchers_of_pairs(matcher, path, sigma, dtype):
    """Intended difference: with sigma > 0 they add sigma times fresh noise to x_t and nothing to u_t; ours has no such term."""
    torch.manual_seed(0)
    x0, x1 = draw(40, 3, 2, seed=1, dtype=dtype), draw(40, 3, 2, seed=2, dtype=dtype)
    t = torch.linspace(0, 1, 40, dtype=dtype)
    _, x_t, u_t, noise = matcher(sigma).sample_location_and_conditional_flow(x0, x1, t, return_noise=True)
    ours = path.interpolate(x0, x1, t)
    same(ours[0], x_t - sigma * noise)
    same(ours[1], u_t)


@every_dtype
@pytest.mark.parametrize("sigma_min", [0.0, 1e-4, 0.1])
def test_torchcfm_target_matcher_is_the_papers_path(sigma_min, dtype):
    """Its sigma is the paper's sigma_min, its noise our x0 (it does not read the x0 it is given). Intended difference: its u_t is
    the quotient of eq. 21, (x1 - (1 - sigma_min) x_t) / s; ours a' x1 + s' x0, which divides by nothing. In float32 the two are
    compared where s >= 1/2, since the quotient's rounding grows as 1 / s."""
    torch.manual_seed(0)
    x1 = draw(40, 3, 2, seed=2, dtype=dtype)
    t = torch.linspace(0, 0.99 if dtype == torch.float64 else 0.5, 40, dtype=dtype)
    matcher = TargetConditionalFlowMatcher(sigma_min)
    _, x_t, u_t, noise = matcher.sample_location_and_conditional_flow(torch.full_like(x1, torch.nan), x1, t, return_noise=True)
    ours = OptimalTransport(sigma_min).interpolate(noise, x1, t)
    same(ours[0], x_t)
    same(ours[1], u_t)


def test_torchcfm_quotient_form_loses_digits_in_float32():
    """The difference above, near the data: three digits are left of its velocity at s = 2e-4, all of ours."""
    torch.manual_seed(0)
    x1, t = draw(100, 2, dtype=torch.float32), torch.full((100,), 0.9999)
    matcher = TargetConditionalFlowMatcher(1e-4)
    _, _, u_t, noise = matcher.sample_location_and_conditional_flow(x1, x1, t, return_noise=True)
    true = x1.double() - (1 - 1e-4) * noise.double()
    ours = OptimalTransport(1e-4).interpolate(noise, x1, t)[1]
    assert float((ours - true).abs().max()) < 1e-6
    assert float((u_t - true).abs().max()) > 1e-4


@every_dtype
def test_torchcfm_optimal_transport_matcher_after_its_plan(dtype):
    """What is compared: the path between the pairs that the plan drew, not the plan. Every x1 is its x0 shifted by one vector, so
    the exact plan pairs them so; torchcfm then draws pairs from it with replacement, here once more from the same seed."""
    x0 = draw(24, 2, dtype=dtype)
    x1 = x0 + torch.tensor([0.3, -0.2], dtype=dtype)
    t = torch.linspace(0, 1, 24, dtype=dtype)
    matcher = ExactOptimalTransportConditionalFlowMatcher(0.0)
    state = np.random.get_state()
    try:
        np.random.seed(0)
        _, x_t, u_t = matcher.sample_location_and_conditional_flow(x0, x1, t)
        np.random.seed(0)
        first, second = matcher.ot_sampler.sample_plan(x0, x1)
    finally:
        np.random.set_state(state)
    assert (first[:, None] == x0).all(2).any(1).all()
    torch.testing.assert_close(second - first, torch.tensor([[0.3, -0.2]], dtype=dtype).expand(24, 2))
    ours = OptimalTransport(0.0).interpolate(first, second, t)
    same(ours[0], x_t)
    same(ours[1], u_t)


@every_dtype
@pytest.mark.parametrize("shape", [(2,), (3, 4, 4)])
def test_torchcfm_plan_is_our_permutation(shape, dtype):
    """Its exact plan has 1 / n at our pairs and 0 elsewhere. Intended difference: it then draws n pairs from the plan with
    replacement, so that about n / e of the data are in no pair; ours takes the plan itself, each sample of the data once."""
    x0, x1 = draw(64, *shape, seed=1, dtype=dtype), draw(64, *shape, seed=2, dtype=dtype)
    sampler = OTPlanSampler("exact")
    plan = torch.from_numpy(sampler.get_map(x0.clone(), x1.clone()))
    partners = MinibatchOT().partners(x0, x1, torch.zeros(64))
    expected = torch.zeros(64, 64, dtype=torch.float64)
    expected[partners, torch.arange(64)] = 1 / 64
    torch.testing.assert_close(plan, expected, rtol=0, atol=1e-9)
    state = np.random.get_state()
    try:
        np.random.seed(0)
        _, theirs = sampler.sample_plan(x0.clone(), x1.clone())
    finally:
        np.random.set_state(state)
    missing = ~(x1.flatten(1)[:, None] == theirs.flatten(1)).all(2).any(1)
    assert 0.2 < missing.double().mean() < 0.55
    assert sorted(partners.tolist()) == list(range(64))


@pytest.mark.parametrize("regularisation", [0.5, 2.0])
def test_torchcfm_entropic_plan_is_ours(regularisation):
    """Both are plans for the same costs and the same regularisation; its sums are those of ours, over n."""
    x0, x1 = draw(40, 2, seed=1, dtype=torch.float64), draw(40, 2, seed=2, dtype=torch.float64)
    theirs = torch.from_numpy(OTPlanSampler("sinkhorn", reg=regularisation).get_map(x0, x1))
    torch.testing.assert_close(Sinkhorn(regularisation, relative=False).plan(x0, x1).T / 40, theirs, rtol=1e-3, atol=1e-8)


@pytest.mark.parametrize("resample_blocks", [True, False])
def test_torchcfm_unet_with_the_same_weights(resample_blocks):
    """Its parameters are in our order; its heads have queries, keys and values side by side, ours one after the other."""
    torch.manual_seed(0)
    ours = UNet((3, 8, 12), 128, (1, 2), 1, (4,), 64, resample_blocks=resample_blocks, max_frequency=1.0).eval()
    theirs = UNetModel(
        image_size=8,
        in_channels=3,
        model_channels=128,
        out_channels=3,
        num_res_blocks=1,
        attention_resolutions=(2,),
        channel_mult=(1, 2),
        num_head_channels=64,
        use_scale_shift_norm=True,
        resblock_updown=resample_blocks,
    )
    theirs = theirs.eval()
    parameters = list(theirs.named_parameters())
    assert len(parameters) == len(list(ours.parameters()))
    with torch.no_grad():
        for (name, mine), (_, other) in zip(ours.named_parameters(), parameters, strict=True):
            mine.add_(0.05 * torch.randn_like(mine))
            values = mine
            if "qkv" in name:
                values = mine.unflatten(0, (3, 256 // 64, 64)).transpose(0, 1).flatten(0, 2)
            other.copy_(values.reshape(other.shape))
    t, x = torch.tensor([0.1, 0.8]), torch.randn(2, 3, 8, 12)  # its embedding and norms are in float32 always
    torch.testing.assert_close(theirs(t, x), ours(t, x), rtol=1e-4, atol=1e-5)
    assert ours(t, x).std() > 0.1
