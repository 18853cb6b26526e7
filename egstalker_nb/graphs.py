"""CUDA graphs around the parts of a training step whose shapes stay the same."""
from __future__ import annotations

from typing import Callable

import torch
from torch import Tensor, nn


class _Call(nn.Module):
    """A module of its own around another, because capturing replaces the captured module's forward."""

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner = inner

    def forward(self, *args: Tensor):
        return self.inner(*args)


class Graphed:
    """Calls a module through a captured CUDA graph, forward and backward; on the CPU, simply calls it.

    A step of this model is bound by launching several hundred small kernels, not by arithmetic. Replaying a graph
    launches them at once. The graph is captured again when a shape changes (densification).
    """

    def __init__(self, module: nn.Module):
        self.module = module
        self._call: Callable = module
        self._shapes: tuple | None = None

    def __call__(self, *args: Tensor):
        if args[0].is_cuda:
            shapes = tuple(a.shape for a in args)
            if shapes != self._shapes:
                self._call, self._shapes = self._capture(args), shapes
        return self._call(*args)

    def _capture(self, args: tuple[Tensor, ...]) -> Callable:
        # capturing ties the parameters' gradient sums to its own stream; the wait this causes is harmless
        torch.autograd.graph.set_warn_on_accumulate_grad_stream_mismatch(False)
        samples = tuple(a.detach().clone().requires_grad_(a.requires_grad) for a in args)
        return torch.cuda.make_graphed_callables(_Call(self.module).train(self.module.training), samples,
                                                 allow_unused_input=True)
