"""The image encoders of DINOv2 (Oquab et al. 2023) and CLIP (Radford et al. 2021), with weights read from a file.

Both are a vision transformer (Dosovitskiy et al. 2021) whose features are those of the class token. DINOv2 scales each branch
(LayerScale); CLIP has a norm before its blocks, another activation and a projection. This module downloads nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from fmbench.errors import CheckpointError, first_line


@dataclass(frozen=True)
class Encoder:
    """The sizes of an encoder, and the sizes and colours of its images.

    Attributes:
        projection: features of the output; 0 for those of the class token.
        grid: patches along a side, for which the weights have positions.
        mean, std: of the colours, which are scaled to [0, 1] first.
    """

    name: str
    size: int
    grid: int
    patch: int
    width: int
    depth: int
    heads: int
    clip: bool
    projection: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @property
    def features(self) -> int:
        """The number of features."""
        return self.projection or self.width


DINOV2 = Encoder("DINOv2 ViT-L/14", 224, 37, 14, 1024, 24, 16, False, 0, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
"""Of FD-DINOv2 (Stein et al. 2023). Its positions are those of 518 pixels and are interpolated."""
CLIP = Encoder(
    *("CLIP ViT-L/14", 336, 24, 14, 1024, 24, 16, True, 768),
    mean=(0.48145466, 0.4578275, 0.40821073),
    std=(0.26862954, 0.26130258, 0.27577711),
)
"""Of CMMD (Jayasumana et al. 2024)."""


class Layer(nn.Module):
    """Attention and an MLP on tokens (B, N, width), each behind a norm and with a residual connection."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        width, eps = encoder.width, 1e-5 if encoder.clip else 1e-6
        self.heads, self.clip = encoder.heads, encoder.clip
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=eps), nn.LayerNorm(width, eps=eps)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.scale1, self.scale2 = nn.Parameter(torch.ones(width)), nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm1(x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        x = x + self.scale1 * self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        h = self.fc1(self.norm2(x))
        out: Tensor = x + self.scale2 * self.fc2(h * torch.sigmoid(1.702 * h) if self.clip else F.gelu(h))
        return out


class VisionTransformer(nn.Module):
    """An encoder with random weights."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder
        width = encoder.width
        self.patches = nn.Conv2d(3, width, encoder.patch, encoder.patch, bias=not encoder.clip)
        self.token = nn.Parameter(torch.zeros(width))
        self.positions = nn.Parameter(torch.zeros(1 + encoder.grid**2, width))
        self.first = nn.LayerNorm(width) if encoder.clip else nn.Identity()
        self.layers = nn.ModuleList([Layer(encoder) for _ in range(encoder.depth)])
        self.last = nn.LayerNorm(width, eps=1e-5 if encoder.clip else 1e-6)
        self.projection = nn.Linear(width, encoder.projection, bias=False) if encoder.projection else nn.Identity()

    @torch.inference_mode()
    def forward(self, images: Tensor) -> Tensor:
        """Features (B, F) of uint8 images (B, 3, H, W) of any size, resized to the encoder's by a bicubic filter.

        The features of CLIP have length 1, as CMMD takes them.
        """
        encoder, weight = self.encoder, self.patches.weight
        x = images.to(weight.device, weight.dtype)
        if x.shape[2:] != (encoder.size, encoder.size):
            x = F.interpolate(x, size=(encoder.size, encoder.size), mode="bicubic", align_corners=False, antialias=True)
            x = x if encoder.clip else x.round().clamp(0, 255)  # FD-DINOv2 resizes pictures of whole numbers
        mean, std = (torch.tensor(values).to(weight)[:, None, None] for values in (encoder.mean, encoder.std))
        tokens = self.patches((x / 255 - mean) / std).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(len(x), 1, -1), tokens], 1) + self.positions_of(encoder.size // encoder.patch)
        tokens = self.first(tokens)
        for layer in self.layers:
            tokens = layer(tokens)
        out: Tensor = self.projection(self.last(tokens[:, 0]))
        return F.normalize(out, dim=1) if encoder.clip else out

    def positions_of(self, grid: int) -> Tensor:
        """The positions of grid x grid patches behind that of the class token, interpolated as in DINOv2's own code."""
        own, width = self.encoder.grid, self.encoder.width
        if grid == own:
            return self.positions
        image = self.positions[1:].reshape(1, own, own, width).permute(0, 3, 1, 2)
        scale = (grid + 0.1) / own  # the 0.1 is DINOv2's, and its pretrained features depend on it
        image = F.interpolate(image, scale_factor=(scale, scale), mode="bicubic")
        return torch.cat([self.positions[:1], image.permute(0, 2, 3, 1).reshape(-1, width)])


def load_encoder(encoder: Encoder, weights: Path, device: torch.device) -> VisionTransformer:
    """The encoder with the weights of a file: DINOv2's own ``.pth``, or CLIP's ``.safetensors`` or ``.bin`` of Hugging Face.

    Raises:
        CheckpointError: the file cannot be read, or holds other tensors.
    """
    try:
        found = load_file(weights) if weights.suffix == ".safetensors" else torch.load(weights, "cpu", weights_only=True)
        with torch.device("meta"):
            network = VisionTransformer(encoder)
        network.load_state_dict(of_clip(found, encoder) if encoder.clip else of_dinov2(found, encoder), assign=True)
    except Exception as error:  # torch raises many types for a damaged file; all mean the same here
        raise CheckpointError(
            f"{weights} does not hold the weights of {encoder.name} ({first_line(error)}); give the path of its file"
        ) from error
    return network.float().to(device).eval().requires_grad_(False)


def of_dinov2(found: Mapping[str, Tensor], encoder: Encoder) -> dict[str, Tensor]:
    """The weights under our names, from those of DINOv2's file."""
    mine = {
        "token": found["cls_token"].flatten(),
        "positions": found["pos_embed"][0],
        **{f"patches.{end}": found[f"patch_embed.proj.{end}"] for end in ("weight", "bias")},
        **{f"last.{end}": found[f"norm.{end}"] for end in ("weight", "bias")},
    }
    names = {"norm1": "norm1", "norm2": "norm2", "qkv": "attn.qkv", "proj": "attn.proj", "fc1": "mlp.fc1", "fc2": "mlp.fc2"}
    for i in range(encoder.depth):
        for name, theirs in names.items():
            mine |= {f"layers.{i}.{name}.{end}": found[f"blocks.{i}.{theirs}.{end}"] for end in ("weight", "bias")}
        mine |= {f"layers.{i}.scale{j}": found[f"blocks.{i}.ls{j}.gamma"] for j in (1, 2)}
    return mine


def of_clip(found: Mapping[str, Tensor], encoder: Encoder) -> dict[str, Tensor]:
    """The weights under our names, from those of a CLIP file of the library transformers."""
    model = "vision_model."
    mine = {
        "token": found[f"{model}embeddings.class_embedding"],
        "positions": found[f"{model}embeddings.position_embedding.weight"],
        "patches.weight": found[f"{model}embeddings.patch_embedding.weight"],
        "projection.weight": found["visual_projection.weight"],
        **{f"first.{end}": found[f"{model}pre_layrnorm.{end}"] for end in ("weight", "bias")},
        **{f"last.{end}": found[f"{model}post_layernorm.{end}"] for end in ("weight", "bias")},
    }
    names = {"norm1": "layer_norm1", "norm2": "layer_norm2", "proj": "self_attn.out_proj", "fc1": "mlp.fc1", "fc2": "mlp.fc2"}
    for i in range(encoder.depth):
        layer = f"{model}encoder.layers.{i}."
        for end in ("weight", "bias"):
            mine |= {f"layers.{i}.{name}.{end}": found[f"{layer}{theirs}.{end}"] for name, theirs in names.items()}
            mine[f"layers.{i}.qkv.{end}"] = torch.cat([found[f"{layer}self_attn.{p}_proj.{end}"] for p in "qkv"])
        mine |= {f"layers.{i}.scale{j}": torch.ones(encoder.width) for j in (1, 2)}
    return mine
