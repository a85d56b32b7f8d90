"""A module whose trainable parameters are views of one flat vector, and so are their gradients.

Loading a model, a step of SGD and an aggregation are then one vector operation each.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ..core.errors import ConfigError
from ..core.messages import Model
from .layout import Layout, MemoryFormat
from .outputs import output_tensor

Places = dict[str, tuple[slice, list[int], tuple[int, ...]]]
"""Where each parameter lies in the flat vector: its slice, its shape there, and the dimensions' way back."""


class FlatModule:
    """A module and its flat vectors.

    Args:
        module: on its device; its parameters and buffers become views.
        inputs: some of the inputs that it takes, [n, *shape].
        memory_format: see `Layout`.

    Attributes:
        module: the module.
        layout: how inputs and weights lie.
        weights: [d] all trainable parameters.
        gradient: [d] their gradients.
        buffers: [b] all floating-point buffers that a state_dict holds.
        parameters: the trainable parameters, views of `weights`.
        places: where they lie there, by name.

    Raises:
        ConfigError: when the module has no trainable parameter, or these are neither all float32 nor all float64.
    """

    def __init__(self, module: nn.Module, inputs: Tensor, memory_format: MemoryFormat) -> None:
        self.module = module
        named = {name: p for name, p in module.named_parameters() if p.requires_grad}
        if {p.dtype for p in named.values()} not in ({torch.float32}, {torch.float64}):
            raise ConfigError(
                "the model needs trainable parameters, all float32 or all float64; freeze or convert the others"
            )
        self.parameters = list(named.values())
        device, dtype = self.parameters[0].device, self.parameters[0].dtype
        self.layout = Layout(device, dtype, Layout.uses_channels_last(module, inputs, memory_format))
        self._flatten_parameters(named)
        self._flatten_buffers()
        frozen = {name for name, p in module.named_parameters(remove_duplicate=False) if not p.requires_grad}
        self._frozen = frozen - set(getattr(module, "drawn", ()))  # drawn at random, and to be had from nowhere else
        # counters (of batch norm) do not travel: every job starts from the module's own, whoever worked before
        counters = [buffer for buffer in module.buffers() if not buffer.is_floating_point()]
        self._counters = [(buffer, buffer.clone()) for buffer in counters]

    def _flatten_parameters(self, named: Mapping[str, nn.Parameter]) -> None:
        orders = [self.layout.parameter_order(p) for p in self.parameters]
        self.weights = torch.cat(
            [p.detach().permute(order).reshape(-1) for p, (order, _) in zip(self.parameters, orders, strict=True)]
        )
        self.gradient = torch.zeros_like(self.weights)
        self.places: Places = {}
        start = 0
        for (name, p), (order, back) in zip(named.items(), orders, strict=True):
            shape, place = [p.shape[i] for i in order], slice(start, start + p.numel())
            p.data = self.weights[place].view(shape).permute(back)
            p.grad = self.gradient[place].view(shape).permute(back)
            self.places[name] = (place, shape, back)
            start += p.numel()
        self._slots = [p.detach() for p in self.parameters]

    def _flatten_buffers(self) -> None:
        owners = self._buffer_owners()
        none = torch.zeros(0, device=self.layout.device, dtype=self.layout.dtype)
        values = [owner._buffers[name] for _, owner, name in owners]
        self.buffers = torch.cat([none, *(b.detach().reshape(-1).to(none.dtype) for b in values if b is not None)])
        start = 0
        for _, owner, name in owners:
            buffer = owner._buffers[name]
            assert buffer is not None
            owner._buffers[name] = self.buffers[start : start + buffer.numel()].view(buffer.shape)
            start += buffer.numel()

    def _buffer_owners(self) -> list[tuple[str, nn.Module, str]]:
        """The full name, the owner and the owner's name of every floating-point buffer that a state_dict holds.

        Others, such as rotary frequencies, follow from the module's settings and need not travel.
        """
        return [
            (f"{path}.{name}" if path else name, owner, name)
            for path, owner in self.module.named_modules()
            for name, buffer in owner.named_buffers(recurse=False)
            if buffer.is_floating_point() and name not in owner._non_persistent_buffers_set
        ]

    # -- models in and out

    def load(self, model: Model) -> None:
        """Make the module this model."""
        self.weights.copy_(model.weights)
        self.buffers.copy_(model.buffers)
        for counter, start in self._counters:
            counter.copy_(start)

    def read(self, state_dict: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Weights [d] and buffers [b] of a plain state_dict, which may leave out what is frozen.

        Raises:
            RuntimeError: when it does not fit the module, as `nn.Module.load_state_dict` does.
        """
        frozen = {name: value for name, value in self.module.state_dict().items() if name in self._frozen}
        self.module.load_state_dict({**frozen, **state_dict})
        return self.weights.clone(), self.buffers.clone()

    def state_dict(self) -> dict[str, Tensor]:
        """The loaded model as a plain state_dict of contiguous CPU tensors, without what is frozen."""
        named = self.module.state_dict().items()
        return {name: value.detach().cpu().clone().contiguous() for name, value in named if name not in self._frozen}

    # -- outputs and steps

    def outputs(self, stored: Tensor) -> Tensor:
        """The loaded model's outputs on inputs as `Layout.place` returned them."""
        return output_tensor(self.module(self.layout.view(stored)))

    def outputs_of(self, model: Model, inputs: Tensor) -> Tensor:
        """The outputs of `model` on inputs [B, *shape], without loading it: gradients reach the inputs."""
        views = {n: model.weights[at].view(shape).permute(back) for n, (at, shape, back) in self.places.items()}
        return output_tensor(functional_call(self.module, {**views, **self.named_buffers(model.buffers)}, (inputs,)))

    def named_buffers(self, buffers: Tensor) -> dict[str, Tensor]:
        """Views of flat buffers [..., b] by name."""
        views, start = {}, 0
        for full_name, owner, name in self._buffer_owners():
            buffer = owner._buffers[name]
            assert buffer is not None
            part = buffers[..., start : start + buffer.numel()]
            views[full_name] = part.view(*buffers.shape[:-1], *buffer.shape)
            start += buffer.numel()
        return views

    def plain_step(self, loss: Tensor, lr: float) -> None:
        """One plain step of SGD in place, without laying the gradient out in one vector."""
        gradients = torch.autograd.grad(loss, self.parameters, allow_unused=True)
        for slot, gradient in zip(self._slots, gradients, strict=True):
            if gradient is not None:
                slot.add_(gradient, alpha=-lr)


def clip_norm(gradient: Tensor, limit: float) -> None:
    """Scale the gradient down to the norm `limit`, in place."""
    norm = torch.linalg.vector_norm(gradient)
    gradient.mul_((limit / (norm + 1e-12)).clamp(max=1.0))
