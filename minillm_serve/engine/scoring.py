"""How well a document answers a query: the likelihood of the query after the document (Ponte & Croft 1998).

With a language model: read the document, then ask how probable the query is as what comes next (Sachan et al. 2022,
arXiv:2204.07496). A causal model does that without any training for search. ``minillm bench rerank`` measures it beside
the cosine of mean hidden states, which such a model is worse at.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from minillm_serve.model.tokenizer import Tokenizer
from minillm_serve.params import RequestError
from minillm_serve.request import RequestOutput

BRIDGE = "\n\nThe passage above answers the question:"


@dataclass(frozen=True)
class ScoredPair:
    """The prompt whose last ``query_tokens`` are the query."""

    token_ids: list[int]
    query_tokens: int

    def score(self, output: RequestOutput) -> float:
        """In (0, 1]: the geometric mean of the probabilities of the query's tokens, so that length does not count.

        output: of this prompt with ``PoolingParams(task="likelihood")``.
        """
        described = output.prompt_logprobs[-self.query_tokens :]
        return math.exp(sum(entry.logprob for entry in described) / self.query_tokens)


def pair(tokenizer: Tokenizer, query: str, document: str, max_query: int = 0, max_document: int = 0) -> ScoredPair:
    """max_query, max_document: keep so many tokens of each at most; 0 keeps all. Raises :class:`RequestError`."""
    if not query.strip():
        raise RequestError("the query must not be empty", "query")
    asked = tokenizer.encode(f" {query}")
    read = tokenizer.encode_prompt(document)
    asked, read = asked[: max_query or None], read[: max_document or None]
    return ScoredPair([*read, *tokenizer.encode(BRIDGE), *asked], len(asked))


def paired(queries: Sequence[str], documents: Sequence[str]) -> list[tuple[str, str]]:
    """One query with each document, or each query with its own. Raises :class:`RequestError`."""
    if not queries or not documents:
        raise RequestError("at least one query and one document are needed", "documents" if queries else "queries")
    if len(queries) not in (1, len(documents)):
        raise RequestError(
            f"give one query for all documents, or one for each: got {len(queries)} and {len(documents)}", "queries"
        )
    return list(zip(list(queries) * (len(documents) // len(queries)), documents, strict=True))
