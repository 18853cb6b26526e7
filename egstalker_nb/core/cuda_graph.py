"""CUDA graphs: hundreds of small kernels launched at once."""
from __future__ import annotations

import gc
from typing import Any, Callable

import torch


class Captured:
    """Repeats a function without arguments through a CUDA graph; on the CPU it simply calls it.

    A step of this model is bound by launching several hundred small kernels, not by arithmetic; replaying a captured
    graph launches them together. The function reads its inputs from tensors that stay where they are (write new
    values into them with `copy_`), never waits for the device, and returns tensors that the next call overwrites.
    Python inside runs twice: the first call runs it plainly, the second records it.

    Args:
        function: what to repeat. When a tensor that it touches was replaced, `forget` the recording, and `reset`
            where the work is of another kind.
    """

    def __init__(self, function: Callable[[], Any], device: torch.device):
        self.function, self.device = function, device
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self.reset()

    def reset(self) -> None:
        """Begin anew: the next call runs plainly."""
        self.ready = False
        self.forget()

    def forget(self) -> None:
        """The next call records again."""
        self.graph = self.result = None

    @property
    def recorded(self) -> bool:
        return self.graph is not None

    @property
    def recording(self) -> bool:
        """Whether the function is being recorded right now: then it must not wait for the device."""
        return self.stream is not None and torch.cuda.is_current_stream_capturing()

    def __call__(self) -> Any:
        if self.stream is None:
            return self.function()
        if not self.ready:
            self.ready = True
            return self._plainly()
        if self.graph is None:
            self._record()
        self.graph.replay()
        return self.result

    def _plainly(self) -> Any:
        """On the recording's own stream, to which autograd ties the parameters' gradient sums."""
        torch.autograd.graph.set_warn_on_accumulate_grad_stream_mismatch(False)
        here = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(here)
        with torch.cuda.stream(self.stream):
            result = self.function()
        here.wait_stream(self.stream)
        return result

    def _record(self) -> None:
        graph, collecting = torch.cuda.CUDAGraph(), gc.isenabled()
        gc.disable()  # to free the graph of an earlier run meanwhile is an operation that spoils the recording
        try:
            # other threads may read frames into pinned memory meanwhile
            with torch.cuda.graph(graph, stream=self.stream, capture_error_mode="thread_local"):
                self.result = self.function()
        finally:
            if collecting:
                gc.enable()
        self.graph = graph
