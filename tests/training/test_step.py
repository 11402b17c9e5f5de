"""One optimiser step: precision, accumulation, clipping, the loss scaler, several averages, compilation."""

import contextlib
import functools
import random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from trainings import CPU, Scaled

from fmbench.config.methods import METHODS
from fmbench.config.training_settings import TrainingSettings
from fmbench.errors import ConfigError
from fmbench.flow.objectives import build
from fmbench.networks.mlp import MLP
from fmbench.training import capture, precision
from fmbench.training.step import Step


def settings(**changes: Any) -> TrainingSettings:
    return TrainingSettings(**{"batch_size": 12, "learning_rate": 1e-2, "ema_decay": 0.5} | changes)


def made(factor: float | None = None, **changes: Any) -> Step:
    torch.manual_seed(3)
    objective = build(METHODS["fm_ot"])
    return Step(
        objective if factor is None else Scaled(objective, factor), MLP((2,), width=16, depth=2), settings(**changes), CPU
    )


def batch(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(12, 2, generator=g), torch.randn(12, 2, generator=g) * 3 + 1, torch.rand(12, generator=g)


def gradient(step: Step) -> Tensor:
    return torch.cat([p.grad.flatten() for p in step.parameters if p.grad is not None])


def weights(step: Step) -> Tensor:
    return torch.cat([p.detach().flatten() for p in step.parameters])


def test_steps_are_adam_on_the_mean_loss():
    """Against the textbook formulas, in float64, with the loss written out by hand."""
    step, plain = (made(betas=[0.5, 0.7], adam_epsilon=1e-3) for _ in range(2))
    plain.network.double()
    expected = averaged = weights(plain)
    mean = square = torch.zeros(())
    for n in range(3):
        x0, x1, u = batch(n)
        loss = step(x0, x1, u)
        t = u.double()[:, None]
        x_t, target = t * x1 + (1 - (1 - 1e-4) * t) * x0, x1 - (1 - 1e-4) * x0
        by_hand = (plain.network(u.double(), x_t) - target).square().mean()
        plain.network.zero_grad()
        by_hand.backward()
        assert float(loss) == pytest.approx(float(by_hand.detach()), rel=1e-5)
        g = gradient(plain)
        mean, square = 0.5 * mean + 0.5 * g, 0.7 * square + 0.3 * g**2
        expected = expected - 1e-2 * (mean / (1 - 0.5 ** (n + 1))) / ((square / (1 - 0.7 ** (n + 1))).sqrt() + 1e-3)
        nn.utils.vector_to_parameters(expected, plain.parameters)
        assert (weights(step) - expected).abs().max() < 1e-6
        warm = (1 + n) / (10 + n)
        averaged = warm * averaged + (1 - warm) * expected
        (average,) = step.averages
        assert (torch.cat([a.flatten() for a in average.averages]) - averaged).abs().max() < 1e-6


# Accumulation


@pytest.mark.parametrize("pieces", [2, 3, 12])
def test_micro_batches_have_the_gradient_of_the_batch(pieces):
    whole, cut = made(), made(accumulation=pieces)
    losses = [float(step(*batch())) for step in (whole, cut)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)
    error = (gradient(cut) - gradient(whole)).norm() / gradient(whole).norm()
    assert error < 1e-6
    first = made()
    first(*(piece[: 12 // pieces] for piece in batch()))
    assert (gradient(first) - gradient(whole)).norm() / gradient(whole).norm() > 0.05  # a single piece has another gradient


def test_a_batch_that_cannot_be_cut():
    with pytest.raises(ValueError, match="a batch of 10 cannot be cut into accumulation = 3 equal micro-batches"):
        made(accumulation=3)(*(piece[:10] for piece in batch()))


# Precision


@pytest.mark.parametrize(("name", "bits"), [("bf16", 8), ("fp16", 11)])
def test_the_network_alone_runs_in_16_bits(name, bits):
    seen = []
    low, full = made(factor=1e-3, precision=name), made(factor=1e-3)
    for module in low.network.modules():
        if isinstance(module, nn.Linear):
            module.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    losses = [step(*batch()) for step in (low, full)]
    assert set(seen) == {precision.AUTOCAST[name]}
    assert losses[0].dtype == torch.float32 and {p.dtype for p in low.parameters} == {gradient(low).dtype} == {torch.float32}
    error = float((gradient(low) - gradient(full)).norm() / gradient(full).norm())
    assert 0 < error < 8 * 2.0**-bits


def test_fp32_has_no_loss_scale():
    step = made()
    assert not step.scaler.is_enabled() and step.scaler.state_dict() == {}


def test_a_step_that_overflows_is_skipped_and_the_scale_halved():
    """The scale starts at 2^16, and the largest number of fp16 is 65504."""
    step = made(factor=100.0, precision="fp16")
    before, scales, moved = weights(step), [], []
    for number in range(12):
        assert torch.isfinite(step(*batch(number)))
        moved.append(not torch.equal(weights(step), before))
        before, _ = weights(step), scales.append(step.scaler.get_scale())
    skipped = moved.index(True)
    assert skipped > 0 and all(moved[skipped:]) and torch.isfinite(before).all()
    assert scales == [2.0 ** (15 - min(k, skipped - 1)) for k in range(12)]
    assert step.skipped() == skipped and step.ema.updates == 12
    assert made().skipped() == 0


@pytest.mark.parametrize("name", ["fp32", "fp16"])
def test_clipping_bounds_the_gradient_and_not_the_scaled_one(name):
    free, clipped, loose = (
        made(1e-3, **c) for c in ({}, {"precision": name, "clip_norm": 1e-5}, {"precision": name, "clip_norm": 1})
    )
    for step in (free, clipped, loose):
        step(*batch())
        assert step.skipped() == 0
    assert float(gradient(clipped).norm()) == pytest.approx(1e-5, rel=1e-2)
    assert 1e-4 < float(gradient(free).norm()) < 1
    assert (gradient(loose) - gradient(free)).norm() < 0.01 * gradient(free).norm()


def test_tf32_needs_a_gpu():
    with pytest.raises(ConfigError, match="precision tf32 needs an NVIDIA GPU, and the device is 'cpu'; choose fp32"):
        made(precision="tf32")


@pytest.mark.parametrize("name", ["bf16", "fp16"])
def test_an_unsupported_precision_is_found_before_the_first_step(name, monkeypatch):
    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("not implemented for this device")

    monkeypatch.setattr(torch, "autocast", refuse)
    with pytest.raises(ConfigError, match=f"precision {name} is not supported on the device 'cpu': not implemented"):
        made(precision=name)


def switches() -> list[Any]:
    """torch's settings for products and convolutions, from both of its interfaces. They can be read without a GPU."""
    new = [kind.fp32_precision for kind in (torch.backends.cuda.matmul, torch.backends.cudnn.conv, torch.backends.cudnn.rnn)]
    return [*new, torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32]


@pytest.mark.parametrize(("name", "inside"), [("fp32", "ieee"), ("tf32", "tf32"), ("bf16", "ieee")])
def test_the_rounding_of_products_on_a_gpu_is_restored_afterwards(name, inside):
    before = switches()
    with precision.matrix_precision(name, torch.device("cuda")):
        assert switches() == [inside] * 3 + [inside == "tf32"] * 2
        with precision.matrix_precision("tf32", torch.device("cuda")):
            assert switches() == ["tf32"] * 3 + [True] * 2
        assert switches() == [inside] * 3 + [inside == "tf32"] * 2
    assert switches()[1:] == before[1:] and {before[0], switches()[0]} <= {"none", "ieee"}
    with precision.matrix_precision(name, CPU):
        assert switches()[1:] == before[1:]
    with pytest.raises(KeyError), precision.matrix_precision("tf32", torch.device("cuda")):
        raise KeyError
    assert switches()[1:] == before[1:]


# Capture, with stand-ins for a GPU's graph; tests/test_cuda.py tests the real one


class Tape(TorchDispatchMode):
    """Records every operation with its tensors and numbers, and replays them. As in a graph, Python code between them is lost."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Any] = []

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = operation(*args, **(kwargs or {}))
        self.calls.append((operation, args, kwargs or {}, output))
        return output

    @torch.no_grad()
    def replay(self) -> None:
        for operation, args, kwargs, output in self.calls:
            for old, new in zip(tree_leaves(output), tree_leaves(operation(*args, **kwargs)), strict=True):
                if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


@pytest.fixture
def recorded(monkeypatch):
    """Steps are recorded on the CPU, on a tape."""

    def record(work: Any, inputs: Any) -> Any:
        step = work.__self__
        moved = [*step.parameters, *(value for state in step.optimiser.state.values() for value in state.values())]
        before, tape = [value.detach().clone() for value in moved], Tape()
        with tape:
            loss = work(*inputs)
        with torch.no_grad():  # a graph runs nothing while it is recorded
            for value, kept in zip(moved, before, strict=True):
                value.copy_(kept)
            loss.fill_(torch.nan)
        return tape.replay, loss

    def rehearse(work: Any, inputs: Any, device: Any) -> str:
        work(*inputs)
        return ""

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    monkeypatch.setattr("fmbench.training.step._can_capture", lambda device: True)
    monkeypatch.setattr(capture, "record", record)
    monkeypatch.setattr(capture, "rehearse", rehearse)
    return monkeypatch


VARIANTS: list[dict[str, Any]] = [{}, {"clip_norm": 0.1}, {"accumulation": 3}, {"more_ema_decays": [0.9]}, {"precision": "bf16"}]


@pytest.mark.parametrize("changes", VARIANTS)
def test_a_recorded_step_equals_the_plain_one_to_the_bit(changes, recorded):
    """The rate is a float32 there."""
    plain, captured = made(**changes), made(**changes, compile=True)
    captured.compile(*batch())
    assert captured._recording is not None and torch.equal(weights(plain), weights(captured))
    losses: list[Tensor] = []
    for i, rate in enumerate((2.0**-6, 2.0**-8, 2.0**-7, 2.0**-9)):
        for step in (plain, captured):
            step.set_rate(rate)
            losses.append(step(*batch(i)))
    assert len({float(loss) for loss in losses}) == 4  # all differ, so none was overwritten
    assert [float(loss) for loss in losses[::2]] == [float(loss) for loss in losses[1::2]]
    assert torch.equal(weights(plain), weights(captured))
    for a, b in zip(plain.averages, captured.averages, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a.averages, b.averages, strict=True))
    assert captured.skipped() == 0 and {float(s["step"]) for s in captured.optimiser.state.values()} == {4.0}


def test_a_number_is_frozen_on_the_tape(recorded):
    """The stand-in behaves like a graph: a learning rate that is not a tensor keeps its old value."""
    plain, captured = made(), made(compile=True)
    captured.compile(*batch())
    for step in (plain, captured):
        for group in step.optimiser.param_groups:
            group["lr"] = 2.0**-4
        step(*batch(1))
    assert not torch.equal(weights(plain), weights(captured))


def test_a_recorded_step_takes_no_other_shape(recorded):
    step = made(compile=True)
    step.compile(*batch())
    with pytest.raises(ValueError, match=r"recorded with a tensor of shape \(12, 2\), not \(1, 2\)"):
        step(*(x[:1] for x in batch()))


@pytest.fixture
def queues(monkeypatch):
    """The functions of torch.cuda that a rehearsal calls, without a GPU. The list holds the modes it set."""
    queue, mode = SimpleNamespace(wait_stream=lambda other: None), ["default"]
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: queue)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: queue)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: mode[-1])
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", mode.append)
    return mode


@pytest.mark.parametrize("draw", [lambda: torch.rand(()), random.random, np.random.rand, None])
def test_a_rehearsal_finds_random_numbers_of_the_cpu(draw, queues):
    found = capture.rehearse(lambda x: x if draw is None else x * float(draw()), [torch.zeros(1)], CPU)
    assert found == ("" if draw is None else "it draws random numbers on the CPU")
    assert queues == ["default", "error", "default"]


def test_a_rehearsal_finds_a_wait_for_the_gpu_and_hides_no_other_error(queues):
    def work(x: Tensor) -> None:
        if queues[-1] == "error":
            raise RuntimeError("called a synchronizing CUDA operation\nsomewhere")

    found = capture.rehearse(work, [torch.zeros(1)], CPU)
    assert found == "it waits for the GPU (called a synchronizing CUDA operation)" and queues[-1] == "default"

    def broken(x: Tensor) -> None:
        raise RuntimeError("shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="multiplied"):
        capture.rehearse(broken, [torch.zeros(1)], CPU)
    assert queues[-1] == "default"


def test_running_out_of_memory_while_recording_is_not_an_error_of_compilation(recorded):
    def fail(*_: Any) -> None:
        raise torch.OutOfMemoryError("out of memory")

    recorded.setattr(capture, "record", fail)
    with pytest.raises(torch.OutOfMemoryError):
        made(compile=True).compile(*batch())


def test_compiling_changes_no_running_statistics(recorded):
    class Normed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.map, self.norm = nn.Linear(3, 2), nn.BatchNorm1d(2)

        def forward(self, t: Tensor, x: Tensor) -> Tensor:
            out: Tensor = self.norm(self.map(torch.cat([x, t[:, None]], 1)))
            return out

    step = Step(build(METHODS["fm_ot"]), Normed(), settings(compile=True), CPU)
    before = [buffer.clone() for buffer in step.network.buffers()]
    step.compile(*batch())
    assert len(before) == 3 and all(torch.equal(a, b) for a, b in zip(before, step.network.buffers(), strict=True))
    step(*batch())
    assert not torch.equal(before[0], next(step.network.buffers()))


def test_a_warm_up_changes_no_buffer_that_a_network_replaces():
    class Counts(nn.Module):
        seen: Tensor
        nothing: Tensor | None

        def __init__(self) -> None:
            super().__init__()
            self.map = nn.Linear(3, 2)
            self.register_buffer("seen", torch.zeros(()))
            self.register_buffer("nothing", None)

        def forward(self, t: Tensor, x: Tensor) -> Tensor:
            self.seen = self.seen + 1
            out: Tensor = self.map(torch.cat([x, t[:, None]], 1))
            return out

    network = Counts()
    step = Step(build(METHODS["fm_ot"]), network, settings(), CPU)
    step.warm_up(*batch())
    assert network.seen == 0 and network.nothing is None
    step(*batch())
    assert network.seen == 1


def test_a_recorded_step_resumes_from_a_checkpoint(recorded, tmp_path):
    step = made(compile=True)
    step.compile(*batch())
    for i in range(5):
        step.set_rate(2.0 ** -(6 + i))
        step(*batch(i))
        if i == 2:
            torch.save(step.state_dict(), tmp_path / "state")
    other = made(compile=True)
    other.compile(*batch(9))
    other(*batch(9))
    other.load_state_dict(torch.load(tmp_path / "state", weights_only=True))
    assert other._recording is None  # it would use moments that are gone
    for i in (3, 4):
        other.set_rate(2.0 ** -(6 + i))
        if i == 4:
            other.compile(*batch())
        other(*batch(i))
    assert torch.equal(weights(step), weights(other)) and other._recording is not None


def test_a_step_that_waits_for_the_gpu_is_not_recorded(recorded):
    recorded.setattr(capture, "rehearse", lambda *_: "called a synchronizing CUDA operation")
    step = made(compile=True)
    step.compile(*batch())
    assert step._recording is None and step.uncaptured == "called a synchronizing CUDA operation"
    plain = made()
    assert float(step(*batch())) == float(plain(*batch()))


def test_a_recording_that_fails_after_the_rehearsal_is_an_error(recorded):
    def fail(*_: Any) -> None:
        raise RuntimeError("operation not permitted when stream is capturing")

    recorded.setattr(capture, "record", fail)
    with pytest.raises(ConfigError, match=r"compile: the step cannot be captured in a CUDA graph \(.*set it to false"):
        made(compile=True).compile(*batch())


@pytest.mark.parametrize("changes", [{"compile": False}, {"compile": True, "precision": "fp16"}])
def test_steps_that_are_not_captured(changes, recorded):
    step = made(**changes)
    if changes["compile"]:
        step.compile(*batch())
    assert step._recording is None and not step.optimiser.param_groups[0]["capturable"]
    assert bool(step.uncaptured) == changes["compile"]


# Averages


def test_several_averages_equal_those_of_one_each():
    together = made(ema_decay=0.9, more_ema_decays=[0.0, 0.15])
    apart = [made(ema_decay=decay) for decay in (0.9, 0.0, 0.15)]
    for number in range(5):
        for step in (together, *apart):
            step(*batch(number))
    for average, alone in zip(together.averages, apart, strict=True):
        assert average.updates == 5
        assert all(torch.equal(a, b) for a, b in zip(average.averages, alone.ema.averages, strict=True))
    kept = [torch.cat([a.flatten() for a in average.averages]) for average in together.averages]
    assert torch.equal(kept[1], weights(together))  # decay 0 is the weights
    assert not torch.equal(kept[0], kept[2])
    for average, values in zip(together.averages, kept, strict=True):
        state = together.averaged(average)
        assert list(state) == list(together.network.state_dict())
        assert torch.equal(torch.cat([value.flatten() for value in state.values()]), values)


@pytest.mark.parametrize("name", ["fp32", "fp16"])
def test_a_step_resumes_from_its_state(name):
    changes = {"precision": name, "more_ema_decays": [0.2], "clip_norm": 0.5}
    whole, first, second = (made(factor=100.0, **changes) for _ in range(3))
    for number in range(9):
        whole(*batch(number))
        (first if number < 3 else second)(*batch(number))
        if number == 2:
            second.load_state_dict(first.state_dict())
    assert torch.equal(weights(whole), weights(second))
    for one, other in zip(whole.averages, second.averages, strict=True):
        assert one.updates == other.updates == 9
        assert all(torch.equal(a, b) for a, b in zip(one.averages, other.averages, strict=True))
    assert whole.scaler.state_dict() == second.scaler.state_dict()


def test_a_state_does_not_change_whether_a_step_is_captured():
    """Adam is capturable in a captured step only."""
    step, other = made(), made()
    step(*batch())
    state = step.state_dict()
    for group in state["optimiser"]["param_groups"]:
        group["capturable"] = True
    other.load_state_dict(state)
    assert [group["capturable"] for group in other.optimiser.param_groups] == [False]


# Compilation


def test_a_compiled_network_keeps_its_names_and_weights(monkeypatch):
    calls = []

    def backend(graph: Any, inputs: Any) -> Any:
        calls.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    torch._dynamo.reset()
    compiled, plain = made(compile=True, accumulation=2), made(accumulation=2)
    before = weights(compiled)
    assert compiled.compile(*batch()) > 0
    assert calls and torch.equal(weights(compiled), before) and compiled.ema.updates == 0
    compilations = len(calls)
    for number in range(3):
        assert torch.equal(compiled(*batch(number)), plain(*batch(number)))
    assert len(calls) == compilations  # no step compiled again
    assert list(compiled.state_dict()["network"]) == list(plain.state_dict()["network"])
    assert torch.equal(weights(compiled), weights(plain)) and not torch.equal(weights(compiled), before)


def test_a_network_that_cannot_be_compiled(monkeypatch):
    def backend(graph: Any, inputs: Any) -> Any:
        raise RuntimeError("no compiler here")

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    torch._dynamo.reset()
    with pytest.raises(ConfigError, match=r"compile: the network cannot be compiled here \(.*no compiler here.*set it to false"):
        made(compile=True).compile(*batch())
