"""The attention rows of the table: a step is split into decodes and prompt chunks, each with a kernel of its own.

The plan is made on the host once per step: what the kernels read of it travels in one copy from pinned memory, and no
layer waits for the GPU. Decodes (one query token) go to decode.py, which spreads each sequence's keys over the GPU;
longer chunks to prefill.py, which spreads the queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import triton
from numpy.typing import NDArray
from torch import Tensor

from minillm_kernels.ops import HeadNorms
from minillm_kernels.triton.cache import TritonKV
from minillm_kernels.triton.decode import DecodeWork, decode_attention
from minillm_kernels.triton.prefill import PrefillWork, prefill_attention
from minillm_kernels.triton.rope_kv import rope_kv
from minillm_kernels.triton.tiles import capacity, plan_tiles

Angles = tuple[Tensor, Tensor, Tensor]


@dataclass
class TritonPlan:
    """Who attends to what in this step; the same for every layer.

    decode: the sequences with one query token; decode_rows: their rows of q, a slice where they lie side by side, None:
    all of q. prefill: the others. decode's scratch may have no heads yet, then the first layer makes it for all.
    """

    decode: DecodeWork | None
    decode_rows: slice | Tensor | None = None
    prefill: PrefillWork | None = None

    def decode_work(self, heads: int, dim: int) -> DecodeWork:
        """:attr:`decode` with scratch for H query heads of size D."""
        cap = len(self.decode.tile_seq)
        if self.decode.partials.shape != (cap, heads, dim):
            partials, lse = (self.decode.partials.new_empty(cap, heads, *tail) for tail in ((dim,), ()))
            self.decode = replace(self.decode, partials=partials, lse=lse)
        return self.decode


def angles(tables: tuple[Tensor, Tensor], positions: Tensor) -> Angles:
    """cos and sin tables [positions, D/2] and positions [T], as they are: the kernel looks its angles up itself."""
    return *tables, positions


def plan_attention(tables: Tensor, seq_lens: Sequence[int], query_lens: Sequence[int], block_size: int) -> TritonPlan:
    """Same contract as :func:`minillm_kernels.ref.plan_attention`; tables already on the GPU stay where they are.

    Sequences without queries have no part in the step. block_size: the kernels know it from the cache.
    """
    lens, queries = np.asarray(seq_lens, np.int32), np.asarray(query_lens, np.int32)
    starts = np.cumsum(queries, dtype=np.int32) - queries
    decodes, chunks = np.flatnonzero(queries == 1), np.flatnonzero(queries > 1)
    chunks = chunks[np.argsort(lens[chunks], kind="stable")]  # the longest last, as prefill.py wants it

    fields: dict[str, NDArray] = {}
    if not tables.is_cuda:
        fields["tables"] = tables.numpy()
    if len(decodes):
        tiles = plan_tiles(lens[decodes], capacity(len(decodes)))
        fields |= {
            "decode_rows": starts[decodes],
            "rows": decodes,
            "seq_lens": lens[decodes],
            "tile_seq": tiles.tile_seq,
            "tile_start": tiles.tile_start,
            "tile_first": tiles.tile_first,
            "num_tiles": np.array([len(tiles.tile_seq)]),
            "chunk": np.array([tiles.chunk]),
        }
    if len(chunks):
        fields |= {
            "chunk_rows": chunks,
            "chunk_starts": starts[chunks],
            "chunk_lens": queries[chunks],
            "chunk_seq_lens": lens[chunks],
            "chunk_before": np.cumsum(queries[chunks]) - queries[chunks],
        }
    on = _upload(fields, _device(tables))
    if tables.is_cuda:
        on["tables"] = tables.to(torch.int32)

    decode, decode_rows, prefill = None, None, None
    if len(decodes):
        names = ("tables", "rows", "seq_lens", "tile_seq", "tile_start", "tile_first", "num_tiles", "chunk")
        no_scratch = torch.empty(0, device=on["tables"].device)
        decode = DecodeWork(*(on[name] for name in names), no_scratch, no_scratch)
        first, last = int(starts[decodes[0]]), int(starts[decodes[-1]])
        decode_rows = slice(first, last + 1) if last - first + 1 == len(decodes) else on["decode_rows"]
    if len(chunks):
        names = ("tables", "chunk_rows", "chunk_starts", "chunk_lens", "chunk_seq_lens", "chunk_before")
        sizes = queries[chunks]
        prefill = PrefillWork(*(on[name] for name in names), int(sizes.sum()), int(sizes.max()))
    return TritonPlan(decode, decode_rows, prefill)


def _device(tables: Tensor) -> torch.device:
    """Where the kernels run: the GPU if there is one, though the tables may not be there yet."""
    if tables.is_cuda or triton.knobs.runtime.interpret or not torch.cuda.is_available():
        return tables.device
    return torch.device("cuda", torch.cuda.current_device())


def _upload(fields: dict[str, NDArray], device: torch.device) -> dict[str, Tensor]:
    """Integers of any shapes, packed into one int32 buffer, as views of its copy on the device."""
    on_gpu, size = device.type == "cuda", sum(values.size for values in fields.values())
    packed = torch.empty(size, dtype=torch.int32, pin_memory=on_gpu)
    np.concatenate([values.ravel() for values in fields.values()], out=packed.numpy(), casting="same_kind")
    parts = packed.to(device, non_blocking=True).split([values.size for values in fields.values()])
    return {name: part.view(values.shape) for (name, values), part in zip(fields.items(), parts, strict=True)}


def write_kv(k: Tensor, v: Tensor, cache: TritonKV, slots: Tensor) -> None:
    """Same contract as :func:`minillm_kernels.ref.write_kv`; a token with a negative slot is not written."""
    rope_kv(torch.cat((k, k, v), 1), None, None, cache, slots)  # the first k stands where queries would


def attention(q: Tensor, cache: TritonKV, plan: TritonPlan, scale: float, window: int = 0) -> Tensor:
    """Same contract as :func:`minillm_kernels.ref.attention`. q may be a slice of qkv."""
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    if plan.decode is not None:
        work, rows = plan.decode_work(*q.shape[1:]), plan.decode_rows
        if rows is None:
            decode_attention(q, cache, work, scale, window, out)
        elif isinstance(rows, slice):
            decode_attention(q[rows], cache, work, scale, window, out[rows])
        else:
            own = q[rows]
            out[rows] = decode_attention(own, cache, work, scale, window, own.new_empty(own.shape))
    if plan.prefill is not None:
        prefill_attention(q, cache, plan.prefill, scale, window, out)
    return out


def attend(
    q: Tensor, k: Tensor, v: Tensor, cache: TritonKV, slots: Tensor, plan: TritonPlan, scale: float, window: int
) -> Tensor:
    """Same contract as :func:`minillm_kernels.ref.attend`."""
    write_kv(k, v, cache, slots)
    return attention(q, cache, plan, scale, window)


def fused_attend_qkv(
    qkv: Tensor,
    norms: HeadNorms | None,
    angles: Angles | None,
    cache: TritonKV,
    slots: Tensor,
    plan: TritonPlan,
    kv_heads: int,
    scale: float,
    window: int,
) -> Tensor:
    """Same contract as :meth:`minillm_kernels.ops.Ops.attend_qkv`: one kernel up to the cache, then attention."""
    rope_kv(qkv, norms, angles, cache, slots)
    return attention(qkv[:, : qkv.shape[1] - 2 * kv_heads], cache, plan, scale, window)
