"""Training in a config: optimiser, schedule, budget, and what a method may override."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_serializer, model_validator
from pydantic.json_schema import SkipJsonSchema

from fmbench.config.base import Settings
from fmbench.config.numbers import Count, Decay, Natural, Positive
from fmbench.config.snapshots import snapshot_steps

Precision = Literal["fp32", "tf32", "bf16", "fp16"]


class TrainingSettings(Settings):
    """Optimiser, schedule and budget: the same for every method unless a method overrides it."""

    iterations: Count = 5000
    batch_size: Count = 256
    learning_rate: Positive = 1e-3
    schedule: Literal["polynomial", "constant"] = Field(
        "polynomial", description="polynomial: linear warm-up, then linear decay to 1e-8 at the last step (appendix E.2)"
    )
    warmup_iterations: Natural = 0
    betas: Annotated[list[Decay], Field(min_length=2, max_length=2)] = [0.9, 0.999]
    adam_epsilon: Positive = 1e-8
    ema_decay: Decay = 0.999
    more_ema_decays: list[Decay] = Field(
        [], description="further averages kept at once, written to averages.safetensors; evaluated is that of ema_decay"
    )
    clip_norm: Positive | None = Field(None, description="clip the gradient's norm; null for the paper's none")
    precision: Precision = Field(
        "fp32",
        description="of the network's products and convolutions in training: fp32; tf32 (NVIDIA GPUs); bf16 or fp16 by autocast, "
        "with float32 weights, loss and optimiser, fp16 with a loss scaler. On a CPU 16 bits are for trials: the same "
        "rounding, no speed",
    )
    compile: bool = Field(
        False,
        description="torch.compile of the network, and on one GPU, but with fp16, a CUDA graph of the step, averages apart; "
        "their time is compile_seconds",
    )
    accumulation: Count = Field(
        1,
        description="micro-batches that a batch is cut into, for less memory: without dropout, whose masks are drawn for each, "
        "the same gradient to rounding",
    )
    flips: bool = Field(False, description="mirror each training image left to right with probability 1/2; images only")
    resident_mib: Natural = Field(
        4096, description="a training split of at most so many MiB is held on the device, a larger one streamed: the same batches"
    )
    snapshots: Natural = Field(5, description="averaged weights are kept at so many evenly spaced iterations, the last included")
    checkpoint_every: Count = 500
    log_every: Count = 50

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.warmup_iterations >= self.iterations:
            raise ValueError(f"warmup_iterations ({self.warmup_iterations}) must be less than iterations ({self.iterations})")
        if self.batch_size % self.accumulation:
            raise ValueError(
                f"batch_size ({self.batch_size}) must be a multiple of accumulation ({self.accumulation}): its micro-batches "
                "weigh the same"
            )
        decays = [self.ema_decay, *self.more_ema_decays]
        twice = sorted({d for d in decays if decays.count(d) > 1})
        if twice:
            raise ValueError(f"more_ema_decays: {twice[0]} is there already, as ema_decay or twice")
        return self

    def snapshot_steps(self) -> list[int]:
        """As the training itself finds them, whose code counts where this module's does not."""
        return snapshot_steps(self.iterations, self.snapshots)


class TrainingOverrides(Settings):
    """A method's own training settings, over those of the data set. What is not set is not in a dump either."""

    iterations: Count | SkipJsonSchema[None] = None
    batch_size: Count | SkipJsonSchema[None] = None
    learning_rate: Positive | SkipJsonSchema[None] = None
    schedule: Literal["polynomial", "constant"] | SkipJsonSchema[None] = None
    warmup_iterations: Natural | SkipJsonSchema[None] = None
    ema_decay: Decay | SkipJsonSchema[None] = None
    clip_norm: Positive | None = Field(None, description="null for none, where the data set has one")
    precision: Precision | SkipJsonSchema[None] = None
    accumulation: Count | SkipJsonSchema[None] = None

    @field_validator("*", mode="before")
    @classmethod
    def _set(cls, value: Any, info: ValidationInfo) -> Any:
        if value is None and info.field_name != "clip_norm":
            raise ValueError("null sets nothing; give a value, or leave the key out for the data set's own")
        return value

    @model_serializer
    def _what_is_set(self) -> dict[str, Any]:
        return {key: getattr(self, key) for key in type(self).model_fields if key in self.model_fields_set}
