"""What a puzzle is made of, and its judge: kernels run on several shapes beside the spec in float64."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from minillm_kernels.puzzles import diagnosis, fence
from minillm_kernels.puzzles.diagnosis import Verdict
from minillm_kernels.puzzles.fence import Fenced

Rand = Callable[..., Tensor]  # rand(*shape): normal numbers, fp32


@dataclass(frozen=True)
class Puzzle:
    """A task with its judge.

    doc: the module's docstring; its first line is the title, the line that begins with ``Spec:`` the spec.
    spec(**case) -> the right answer in torch; its inputs are float64 when it judges.
    cases(rand) -> inputs of each run by name: tensors fp32 or int32, any strides; other values are passed on.
    launch(*kernels, **case, **scratch, out): starts the kernels; out and scratch are dense.
    solution: kernels that are right, one for most puzzles.
    scratch(**case) -> shapes of the fp32 buffers that launch wants besides, by name.
    mistakes: well-known wrong answers by the text that tells them, functions with the spec's arguments.
    tolerance: error of an element, in units of its size plus the mean size of all.
    """

    doc: str
    spec: Callable[..., Tensor]
    cases: Callable[[Rand], Iterable[dict[str, Any]]]
    launch: Callable[..., None]
    solution: tuple[Any, ...]
    scratch: Callable[..., Mapping[str, tuple[int, ...]]] | None = None
    mistakes: Mapping[str, Callable[..., Tensor]] = field(default_factory=dict)
    tolerance: float = 1e-4

    @property
    def title(self) -> str:
        return self.doc.splitlines()[0]

    @property
    def spec_line(self) -> str:
        return next(line for line in self.doc.splitlines() if line.startswith("Spec:"))

    def check(self, *kernels: Any, seed: int = 0) -> Verdict:
        """Judge kernels (in the order of ``solution``) on all shapes; the verdict is of the first that goes wrong."""
        if len(kernels) != len(self.solution):
            names = ", ".join(kernel.__name__ for kernel in self.solution)
            raise TypeError(f"check takes {len(self.solution)} kernel(s) ({names}), got {len(kernels)}")
        generator = torch.Generator().manual_seed(seed)
        count = 0
        for case in self.cases(lambda *shape: torch.randn(shape, generator=generator)):
            verdict = self._judge(kernels, case)
            if verdict is not None:
                return verdict
            count += 1
        return diagnosis.right(count)

    def _judge(self, kernels: tuple[Any, ...], case: dict[str, Any]) -> Verdict | None:
        """The verdict on one case; None: nothing is wrong."""
        exact = {name: _double(value) for name, value in case.items()}
        expected = self.spec(**exact)
        inputs = [Fenced(name, value) for name, value in case.items() if isinstance(value, Tensor)]
        out = Fenced.empty("out", expected.shape, fence.OUTPUT)
        shapes = self.scratch(**case) if self.scratch else {}
        buffers = [Fenced.empty(name, shape, fence.SCRATCH) for name, shape in shapes.items()]
        given = {memory.name: memory.tensor for memory in (*inputs, *buffers, out)}
        where = diagnosis.describe(case)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # of NaN and inf, by the interpreter's numpy
                self.launch(*kernels, **(case | given))
                if fence.device().type == "cuda":
                    torch.cuda.synchronize()  # what goes wrong in the kernel is raised here
        except Exception as error:
            return diagnosis.raised(where, error, kernels)
        verdict = diagnosis.strayed(where, (out, *buffers, *inputs))
        if verdict is None:
            verdict = diagnosis.spoilt(where, inputs)
        if verdict is None:
            expected = expected.to(out.tensor.device)
            verdict = diagnosis.compare(where, out, expected, self.tolerance, self._mistakes(exact))
        return verdict

    def _mistakes(self, exact: dict[str, Any]) -> Iterable[tuple[str, Tensor]]:
        """Well-known wrong answers to the case, made only when they are asked for."""
        return ((text, mistake(**exact)) for text, mistake in self.mistakes.items())


def _double(value: Any) -> Any:
    return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value
