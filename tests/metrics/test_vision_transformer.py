"""DINOv2's and CLIP's encoders with random weights in the files' own form, against other libraries' transformers."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn
from torchvision.models import VisionTransformer as TorchvisionTransformer

from fmbench.config.feature_settings import ExtractorSettings, FeatureSettings
from fmbench.errors import CheckpointError
from fmbench.metrics import vision_transformer
from fmbench.metrics.cmmd import cmmd
from fmbench.metrics.extractor_weights import problem
from fmbench.metrics.extractors import make_extractor
from fmbench.metrics.mmd import gaussian_kernel, unbiased_mmd
from fmbench.metrics.vision_transformer import CLIP, DINOV2, VisionTransformer, load_encoder
from fmbench.stages.plan.extractors import extractor_cost
from fmbench.store.files import sha256

CPU = torch.device("cpu")
SMALL = {"patch": 7, "width": 24, "depth": 2, "heads": 3}
SMALL_DINOV2 = replace(DINOV2, size=28, grid=4, **SMALL)
SMALL_CLIP = replace(CLIP, size=28, grid=4, projection=10, **SMALL)


def images(n: int, height: int = 28, width: int = 28) -> torch.Tensor:
    return torch.randint(0, 256, (n, 3, height, width), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def normalised(x: torch.Tensor, encoder: vision_transformer.Encoder) -> torch.Tensor:
    mean, std = (torch.tensor(v)[:, None, None] for v in (encoder.mean, encoder.std))
    return (x / 255 - mean) / std


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return 0.3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def dinov2_file(grid: int = 4, depth: int = 2, width: int = 24, patch: int = 7) -> dict[str, torch.Tensor]:
    """Random weights with the names and shapes of DINOv2's file."""
    shapes = {
        **{"cls_token": (1, 1, width), "pos_embed": (1, 1 + grid**2, width), "mask_token": (1, width)},
        **{"patch_embed.proj.weight": (width, 3, patch, patch), "patch_embed.proj.bias": (width,)},
        **{"norm.weight": (width,), "norm.bias": (width,)},
    }
    for i in range(depth):
        sizes = {"attn.qkv": (3 * width, width), "attn.proj": (width, width)}
        sizes |= {"mlp.fc1": (4 * width, width), "mlp.fc2": (width, 4 * width)}
        for name, shape in sizes.items():
            shapes |= {f"blocks.{i}.{name}.weight": shape, f"blocks.{i}.{name}.bias": shape[:1]}
        shapes |= {f"blocks.{i}.norm{j}.{end}": (width,) for j in (1, 2) for end in ("weight", "bias")}
        shapes |= {f"blocks.{i}.ls{j}.gamma": (width,) for j in (1, 2)}
    return {name: random(*shape, seed=k) for k, (name, shape) in enumerate(shapes.items())}


def test_dinov2_is_torchvisions_transformer_where_nothing_is_scaled(tmp_path):
    file = dinov2_file()
    for name in file:
        if name.endswith("gamma"):
            file[name] = torch.ones(24)
    torch.save(file, tmp_path / "dinov2.pth")
    theirs = TorchvisionTransformer(28, 7, 2, 3, 24, 96).eval()
    renamed = {"class_token": file["cls_token"], "encoder.pos_embedding": file["pos_embed"]}
    renamed |= {f"conv_proj.{end}": file[f"patch_embed.proj.{end}"] for end in ("weight", "bias")}
    renamed |= {f"encoder.ln.{end}": file[f"norm.{end}"] for end in ("weight", "bias")}
    names = {"ln_1.": "norm1.", "ln_2.": "norm2.", "self_attention.in_proj_": "attn.qkv."}
    names |= {"self_attention.out_proj.": "attn.proj.", "mlp.0.": "mlp.fc1.", "mlp.3.": "mlp.fc2."}
    for i in range(2):
        for name, own in names.items():
            for end in ("weight", "bias"):
                renamed[f"encoder.layers.encoder_layer_{i}.{name}{end}"] = file[f"blocks.{i}.{own}{end}"]
    theirs.heads = nn.Identity()
    theirs.load_state_dict(renamed)
    x = images(5)
    with torch.no_grad():
        expected = theirs(normalised(x, DINOV2))
    torch.testing.assert_close(load_encoder(SMALL_DINOV2, tmp_path / "dinov2.pth", CPU)(x), expected, rtol=1e-4, atol=1e-4)


def test_clip_is_a_transformer_of_torch_with_its_activation(tmp_path):
    """Its own names: query, key and value apart, and a norm that its authors misspelt."""
    width, model, shapes = 24, "vision_model.", {}
    shapes |= {f"{model}embeddings.class_embedding": (width,), f"{model}embeddings.position_embedding.weight": (17, width)}
    shapes |= {f"{model}embeddings.patch_embedding.weight": (width, 3, 7, 7), "visual_projection.weight": (10, width)}
    shapes |= {f"{model}{name}.{end}": (width,) for name in ("pre_layrnorm", "post_layernorm") for end in ("weight", "bias")}
    for i in range(2):
        sizes = {f"self_attn.{p}_proj": (width, width) for p in ("q", "k", "v", "out")}
        sizes |= {"mlp.fc1": (4 * width, width), "mlp.fc2": (width, 4 * width), "layer_norm1": (width,), "layer_norm2": (width,)}
        for name, shape in sizes.items():
            layer = f"{model}encoder.layers.{i}.{name}"
            shapes |= {f"{layer}.weight": shape, f"{layer}.bias": shape[:1]}
    file = {name: random(*shape, seed=k) for k, (name, shape) in enumerate(shapes.items())}
    save_file(file | {"text_projection.weight": torch.zeros(3)}, tmp_path / "model.safetensors")
    x, part = images(5), {name.removeprefix(model): value for name, value in file.items()}

    def norm(z, name):
        return F.layer_norm(z, (width,), part[f"{name}.weight"], part[f"{name}.bias"], 1e-5)

    z = F.conv2d(normalised(x, CLIP), part["embeddings.patch_embedding.weight"], stride=7).flatten(2).transpose(1, 2)
    z = torch.cat([part["embeddings.class_embedding"].expand(5, 1, -1), z], 1) + part["embeddings.position_embedding.weight"]
    z = norm(z, "pre_layrnorm")
    for i in range(2):
        own = f"encoder.layers.{i}."
        theirs = nn.TransformerEncoderLayer(
            width, 3, 4 * width, 0.0, lambda h: h * torch.sigmoid(1.702 * h), 1e-5, batch_first=True, norm_first=True
        ).eval()
        names = {"self_attn.out_proj": "self_attn.out_proj", "linear1": "mlp.fc1", "linear2": "mlp.fc2"}
        names |= {"norm1": "layer_norm1", "norm2": "layer_norm2"}
        renamed = {f"{mine}.{end}": part[f"{own}{name}.{end}"] for mine, name in names.items() for end in ("weight", "bias")}
        for end in ("weight", "bias"):
            renamed[f"self_attn.in_proj_{end}"] = torch.cat([part[f"{own}self_attn.{p}_proj.{end}"] for p in "qkv"])
        theirs.load_state_dict(renamed)
        with torch.no_grad():
            z = theirs(z)
    expected = F.normalize(norm(z[:, 0], "post_layernorm") @ part["visual_projection.weight"].T, dim=1)
    found = load_encoder(SMALL_CLIP, tmp_path / "model.safetensors", CPU)(x)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_positions_are_interpolated_between_those_of_the_weights():
    """Place j of 16 is (j + 1/2) 37 / 16.1 - 1/2 of 37, as the size of a step of DINOv2's own code says."""
    network = VisionTransformer(replace(DINOV2, **(SMALL | {"patch": 14}), grid=37))
    with torch.no_grad():
        ramp = torch.arange(37.0)
        network.positions[1:] = (10 * ramp[:, None] + ramp).reshape(-1, 1)
        network.positions[0] = -1
    found = network.positions_of(16)
    assert found.shape == (257, 24) and (found[0] == -1).all()
    places = (torch.arange(16) + 0.5) * 37 / 16.1 - 0.5
    expected = 10 * places[:, None] + places
    # The cubic filter has an error of up to 1/20 of a step on a ramp. Without the 0.1 the last places would be off by 1/5.
    torch.testing.assert_close(found[1:, 5].reshape(16, 16)[1:-1, 1:-1], expected[1:-1, 1:-1], rtol=0, atol=0.6)


def test_the_published_sizes():
    """DINOv2's ViT-L/14 has 304,368,640 parameters, with the token of masks that its features do not need."""
    with torch.device("meta"):
        assert sum(p.numel() for p in VisionTransformer(DINOV2).parameters()) + 1024 == 304_368_640
    chosen = ExtractorSettings(extractor="dinov2", options={"weights": "none"})
    cost = extractor_cost(chosen, FeatureSettings(), (3, 32, 32), 10)
    tokens, width = 257, 1024
    assert cost is not None and (cost.features, cost.weights) == (width, 4 * (304_368_640 - 1024))
    assert cost.flops == 2 * 256 * 588 * width + 24 * (24 * tokens * width**2 + 4 * tokens**2 * width)


def test_an_extractor_has_the_hash_of_its_file_in_its_name(tmp_path, monkeypatch):
    monkeypatch.setattr(vision_transformer, "DINOV2", SMALL_DINOV2)
    torch.save(dinov2_file(), tmp_path / "mine.pth")
    extractor = make_extractor("dinov2", weights=str(tmp_path / "mine.pth"))
    assert extractor.name == f"DINOv2 ViT-L/14(24 features, 28 px, {sha256(tmp_path / 'mine.pth')[:8]})"
    assert extractor.dimensions == 24 and not extractor.is_clip and not extractor.is_inception
    grey = images(3, 8, 8)[:, :1]
    up = F.interpolate(grey.expand(-1, 3, -1, -1).float(), size=(28, 28), mode="bicubic", antialias=True).round().clamp(0, 255)
    torch.testing.assert_close(extractor(grey), extractor(up.byte()))


def test_weights_that_are_missing_or_of_another_network(tmp_path):
    assert "has no options.weights; download https://dl.fbaipublicfiles.com/dinov2" in problem("dinov2", {})
    assert f"has no weights at {tmp_path / 'no'}; download https://huggingface.co" in problem(
        "clip_mmd", {"weights": str(tmp_path / "no")}
    )
    torch.save(dinov2_file(), tmp_path / "small.pth")
    assert problem("dinov2", {"weights": str(tmp_path / "small.pth")}) == ""
    for name in ("dinov2", "clip_mmd"):
        with pytest.raises(CheckpointError, match=r"small.pth does not hold the weights of "):
            make_extractor(name, weights=str(tmp_path / "small.pth"))
    with pytest.raises(ValueError, match=r"options.weights must be the path of a file, as text, not 3"):
        ExtractorSettings(extractor="clip_mmd", options={"weights": 3})


def test_the_cmmd_is_the_mmd_of_features_of_length_one():
    x, y = random(40, 6).double(), 0.2 + random(30, 6, seed=1).double()
    unit = [z / z.norm(dim=1, keepdim=True) for z in (x, y)]
    expected = 1000 * unbiased_mmd(*unit, gaussian_kernel([10.0]))
    assert cmmd(x, 3 * y) == pytest.approx(expected, rel=1e-9)
    # The mean over all pairs, as the authors' code has it.
    xx, yy, xy = (torch.exp(-(torch.cdist(a, b) ** 2) / 200).mean() for a, b in ((unit[0],) * 2, (unit[1],) * 2, unit))
    theirs = 1000 * float(xx + yy - 2 * xy)
    assert 0 < theirs - expected < 20 * (1 / 40 + 1 / 30)
    assert math.isclose(cmmd(x, y), cmmd(y, x))
