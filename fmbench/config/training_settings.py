"""Training in a config: optimiser, schedule and length, and what a method may override."""

from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic.json_schema import SkipJsonSchema

from fmbench.config.base import GrownSettings, Settings
from fmbench.config.numbers import Count, Decay, Natural, Positive, twice, whole_number
from fmbench.config.snapshots import snapshot_steps

Precision = Literal["fp32", "tf32", "bf16", "fp16"]


class TrainingSettings(GrownSettings):
    """Optimiser, schedule and length of a training, the same for every method unless a method overrides them."""

    later = ("label_dropout",)

    iterations: Count = 5000
    batch_size: Count = 256
    learning_rate: Positive = 1e-3
    schedule: Literal["polynomial", "constant"] = Field(
        "polynomial", description="polynomial: linear warm-up, then linear decay to 1e-8 at the last step (appendix E.2)"
    )
    warmup_iterations: Natural = 0
    betas: Annotated[list[Decay], Field(min_length=2, max_length=2)] = [0.9, 0.999]
    adam_epsilon: Positive = 1e-8
    ema_decay: Decay = Field(0.999, description="of the averaged weights, which are the ones that are evaluated")
    more_ema_decays: list[Decay] = Field(
        [], max_length=100, description="decays of further averages, written to averages.safetensors but not evaluated"
    )
    clip_norm: Positive | None = Field(
        None, description="clip the norm of the gradient to this; null for no clipping, as the paper"
    )
    precision: Precision = Field(
        "fp32",
        description="of matrix products and convolutions in training: fp32; tf32 (NVIDIA GPUs); bf16 or fp16 by autocast, with "
        "float32 weights, loss and optimiser, and with a loss scaler for fp16. On a CPU, 16 bits are for trials: they round "
        "as on a GPU but are not faster",
    )
    compile: bool = Field(
        False,
        description="torch.compile the network; on one GPU, except with fp16, also capture the step, without its averages, as a "
        "CUDA graph. The time for both is reported as compile_seconds",
    )
    accumulation: Count = Field(
        1,
        description="micro-batches into which a batch is cut, for less memory. The gradient is the same to rounding, except with "
        "dropout, whose masks are drawn for each micro-batch",
    )
    flips: bool = Field(False, description="mirror each training image left to right with probability 1/2; images only")
    label_dropout: Decay = Field(
        0.0, description="probability with which a training sample's label is not told, for guidance; with condition: label only"
    )
    resident_mib: Natural = Field(
        4096,
        description="the largest training split, in MiB, to hold on the device; a larger one is streamed in the same batches",
    )
    snapshots: Annotated[int, Field(ge=0, le=10_000), BeforeValidator(whole_number)] = Field(
        5, description="number of snapshots of the averaged weights, at evenly spaced iterations up to the last"
    )
    checkpoint_every: Count = 500
    log_every: Count = 50

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.warmup_iterations >= self.iterations:
            raise ValueError(f"warmup_iterations ({self.warmup_iterations}) must be less than iterations ({self.iterations})")
        if self.batch_size % self.accumulation:
            raise ValueError(
                f"batch_size ({self.batch_size}) must be a multiple of accumulation ({self.accumulation}), so that all "
                "micro-batches have the same size"
            )
        repeated = twice([self.ema_decay, *self.more_ema_decays])
        if repeated:
            raise ValueError(f"more_ema_decays: {repeated[0]} is already there, as ema_decay or twice in the list; remove it")
        return self

    def snapshot_steps(self) -> list[int]:
        """The iterations whose averaged weights are kept, by the same function as in the training."""
        return snapshot_steps(self.iterations, self.snapshots)


def why_no_jumps(settings: TrainingSettings, processes: int) -> str:
    """Why a network cannot learn to jump in such a training, with the remedy; empty if it can. It changes no number.

    Its loss contains a derivative of the network by forward-mode automatic differentiation, and pairs the times of a batch.
    """
    found = {
        f"accumulation: {settings.accumulation}": settings.accumulation > 1,
        "batch_size: 1": settings.batch_size == 1,
        "compile: true": settings.compile,
        f"{processes} processes": processes > 1,
        f"precision: {settings.precision}": settings.precision not in ("fp32", "tf32"),
    }
    wrong = [what for what, there in found.items() if there]
    if not wrong:
        return ""
    return (
        "the loss of jumps has a derivative of the network and pairs the times of a batch, which is not supported with "
        f"{' or '.join(wrong)}; leave the method out, or set jumps: none, compile: false, processes: 1, precision: fp32, "
        "accumulation: 1 and a batch_size above 1"
    )


class TrainingOverrides(Settings):
    """The training settings of one method. A key that is given replaces that of the data set."""

    iterations: Count | SkipJsonSchema[None] = None
    batch_size: Count | SkipJsonSchema[None] = None
    learning_rate: Positive | SkipJsonSchema[None] = None
    schedule: Literal["polynomial", "constant"] | SkipJsonSchema[None] = None
    warmup_iterations: Natural | SkipJsonSchema[None] = None
    ema_decay: Decay | SkipJsonSchema[None] = None
    clip_norm: Positive | None = Field(None, description="null for no clipping where the data set clips")
    precision: Precision | SkipJsonSchema[None] = None
    accumulation: Count | SkipJsonSchema[None] = None

    @field_validator("*", mode="before")
    @classmethod
    def _set(cls, value: Any, info: ValidationInfo) -> Any:
        if value is None and info.field_name != "clip_norm":
            raise ValueError("null sets nothing; give a value, or leave the key out for that of the data set")
        return value

    @model_serializer
    def _what_is_set(self) -> dict[str, Any]:
        return {key: getattr(self, key) for key in type(self).model_fields if key in self.model_fields_set}
