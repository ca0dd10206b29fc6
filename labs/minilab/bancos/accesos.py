"""Which memory each program of a Triton kernel reads and writes, taken down while the interpreter runs it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from minilab.bancos.con_triton import HAY_TRITON, SIN_TRITON
from minilab.vistas.accesos import Acceso, EstadoAccesos, Memoria, dibuja_accesos
from minilab.widgets.panel import Panel, desliza

Event = tuple[tuple[int, ...], bool, list[int]]


def registra(lanza: Callable[[], Any], **tensores: torch.Tensor) -> EstadoAccesos:
    """Run ``lanza()``, which launches kernels, and find in ``tensores`` what each program touched.

    What ``lanza`` returns, if it is a tensor, is looked at too, under the name ``salida``. Addresses in none of the
    tensors are counted as outside. Raises RuntimeError, in Spanish, where there is no Triton.
    """
    if not HAY_TRITON:
        raise RuntimeError(SIN_TRITON)
    events: list[Event] = []
    with _taken_down(events):
        result = lanza()
    if isinstance(result, torch.Tensor):
        tensores["salida"] = result
    memories = tuple(_memory(name, tensor) for name, tensor in tensores.items())
    accesses, outside = [], 0
    for program, writes, addresses in events:
        for name, tensor in tensores.items():
            found = [place for a in addresses if (place := _element(tensor, a)) is not None]
            if found:
                accesses.append(Acceso(program, name, writes, frozenset(found)))
        outside += sum(all(_element(t, a) is None for t in tensores.values()) for a in addresses)
    return EstadoAccesos(memories, tuple(accesses), outside)


def ver_accesos(lanza: Callable[[], Any], **tensores: torch.Tensor) -> Panel:
    """The map of :func:`registra`, with a slider: 0 shows all programs, k the k-th alone."""
    state = registra(lanza, **tensores)
    slider = desliza("programa", 0, 0, len(state.programas))
    return Panel(lambda programa: state.solo(programa), dibuja_accesos, {"programa": slider}, pasos="programa")


@contextmanager
def _taken_down(events: list[Event]) -> Iterator[None]:
    """While it lasts, every load and store of the interpreter leaves its program and its unmasked addresses."""
    from triton.runtime.interpreter import interpreter_builder as builder

    load, store = builder.create_masked_load, builder.create_masked_store

    def note(writes: bool, pointers: Any, mask: Any) -> None:
        addresses = pointers.data.ravel()[mask.data.ravel().astype(bool)]
        events.append((tuple(builder.grid_idx), writes, [int(a) for a in addresses]))

    def noted_load(ptrs: Any, mask: Any, *rest: Any, **more: Any) -> Any:
        note(False, ptrs, mask)
        return load(ptrs, mask, *rest, **more)

    def noted_store(ptrs: Any, value: Any, mask: Any, *rest: Any, **more: Any) -> Any:
        note(True, ptrs, mask)
        return store(ptrs, value, mask, *rest, **more)

    builder.create_masked_load, builder.create_masked_store = noted_load, noted_store
    try:
        yield
    finally:
        builder.create_masked_load, builder.create_masked_store = load, store


def _memory(name: str, tensor: torch.Tensor) -> Memoria:
    columns = tensor.shape[-1] if tensor.dim() else 1
    return Memoria(name, tensor.numel() // max(columns, 1), columns)


def _element(tensor: torch.Tensor, address: int) -> int | None:
    """The place of an address in a dense tensor, counted in elements; None if it lies elsewhere."""
    place, rest = divmod(address - tensor.data_ptr(), tensor.element_size())
    return place if rest == 0 and 0 <= place < tensor.numel() else None
