"""A readable LLM serving engine: ``from minillm_serve import LLM, SamplingParams``.

Start reading at :mod:`minillm_serve.engine.core`; the step loop there names every other room of the house.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from minillm_serve.config import EngineConfig
from minillm_serve.params import PoolingParams, RequestError, SamplingParams, StructuredOutputsParams
from minillm_serve.request import RequestOutput

if TYPE_CHECKING:
    from minillm_serve.engine.llm import LLM

__version__ = "0.9.0"
__all__ = [
    "LLM",
    "EngineConfig",
    "PoolingParams",
    "RequestError",
    "RequestOutput",
    "SamplingParams",
    "StructuredOutputsParams",
]


def __getattr__(name: str) -> Any:
    """``LLM`` is loaded on first use: the scheduler, the grammar and the tests of both do without torch."""
    if name == "LLM":
        from minillm_serve.engine.llm import LLM

        return LLM
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
