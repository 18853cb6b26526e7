"""CUDA graphs: launching the hundreds of small kernels of a step at once."""
from __future__ import annotations

import gc
from contextlib import contextmanager
from typing import Any, Callable, Iterator, Optional, Sequence

import torch
from torch import Tensor


def in_place(static: Optional[Sequence[Tensor]], values: Sequence[Tensor]) -> Sequence[Tensor]:
    """Put new values into the static tensors that a captured function reads.

    Args:
        static: those of the call before; None before the first one.
        values: of the same shapes.

    Returns:
        the static tensors: `values` themselves in the first call.
    """
    if static is None:
        return values
    for own, given in zip(static, values):
        own.copy_(given)
    return static


class Branch:
    """Work beside that of the current stream, as small kernels leave most of a GPU idle; on the CPU it is done at once.

    `with branch():` it begins after what was launched before, and `join` lets what follows wait for it. A captured
    function may use it. Tensors that go over must be kept until then, or their memory would be used again too early.

    Args:
        device: where its kernels run.
    """

    def __init__(self, device: torch.device):
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    @contextmanager
    def __call__(self) -> Iterator[None]:
        if self.stream is None:
            yield
            return
        self.stream.wait_stream(torch.cuda.current_stream(self.stream.device))
        with torch.cuda.stream(self.stream):
            yield

    def join(self) -> None:
        """The current stream waits for this work."""
        if self.stream is not None:
            torch.cuda.current_stream(self.stream.device).wait_stream(self.stream)


class Captured:
    """Replays a function without arguments as a CUDA graph; on the CPU it simply calls the function.

    A step of this model is bound by launching several hundred small kernels, not by arithmetic; replaying a captured
    graph launches them together. The function must read its inputs from static tensors (see `in_place`) and must not
    synchronise with the device; the next call overwrites the tensors that it returns. Its Python code runs twice: the
    first call is a warm-up without a graph, the second captures.

    Args:
        function: the work of one call. If a tensor that it uses was replaced, call `forget`; if it launches other
            kernels than before, call `reset`.
        device: where its kernels run.
    """

    def __init__(self, function: Callable[[], Any], device: torch.device):
        self.function = function
        self.branch = Branch(device)
        self.graph: Optional[torch.cuda.CUDAGraph] = None
        self.result: Any = None
        self.reset()

    def reset(self) -> None:
        """Drop the graph; the next call is a warm-up."""
        self.ready = False
        self.forget()

    def forget(self) -> None:
        """Drop the graph; the next call captures again."""
        self.graph = self.result = None

    @property
    def recorded(self) -> bool:
        """Whether there is a captured graph."""
        return self.graph is not None

    @property
    def recording(self) -> bool:
        """Whether the function is being captured right now; it must not synchronise then."""
        return self.branch.stream is not None and torch.cuda.is_current_stream_capturing()

    def __call__(self) -> Any:
        if self.branch.stream is None:
            return self.function()
        if not self.ready:
            self.ready = True
            return self.run_eagerly()
        if self.graph is None:
            self.graph = self._capture()
        self.graph.replay()
        return self.result

    def run_eagerly(self) -> Any:
        """Run once without a graph, on the capture stream, as autograd ties gradient accumulation to that stream."""
        assert self.branch.stream is not None, "only on CUDA"
        torch.autograd.graph.set_warn_on_accumulate_grad_stream_mismatch(False)
        with self.branch():
            result = self.function()
        self.branch.join()
        return result

    def _capture(self) -> torch.cuda.CUDAGraph:
        graph, collecting = torch.cuda.CUDAGraph(), gc.isenabled()
        gc.disable()  # freeing an older graph during the capture would invalidate it
        try:
            # thread_local: other threads may copy frames into pinned memory during the capture
            with torch.cuda.graph(graph, stream=self.branch.stream, capture_error_mode="thread_local"):
                self.result = self.function()
        finally:
            if collecting:
                gc.enable()
        return graph
