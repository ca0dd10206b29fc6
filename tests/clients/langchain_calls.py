"""Run with the interpreter of the environment ``clients``: uses a server through langchain-openai, tells what came.

Standard output: one JSON object. No part of ours is imported here.
"""

import asyncio
import json
import sys
from typing import Literal

from langchain_core.messages import HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel, ConfigDict

MESSAGES = [SystemMessage("Be brief."), HumanMessage("What is the capital of France?")]


class Closed(BaseModel):
    """Takes no further properties: a random model would write them to the end of its context."""

    model_config = ConfigDict(extra="forbid")


class Place(Closed):
    """A place."""

    kind: Literal["city", "country"]
    open: bool


class Query(Closed):
    """What to look up."""

    place: Literal["Lima", "Paris"]
    detailed: bool


@tool(args_schema=Query)
def look_up(place, detailed) -> str:
    """Look a place up."""
    return f"{place} {detailed}"


async def streamed(model):
    return "".join([chunk.content async for chunk in model.astream(MESSAGES)])


def agent_turn(model):
    """The model calls a tool, we run it, and the model hears what came of it."""
    calling = model.bind_tools([look_up], tool_choice="any", parallel_tool_calls=False)
    asked = calling.invoke(MESSAGES)
    [call, *_] = asked.tool_calls
    result = look_up.invoke(call)
    after = model.invoke([*MESSAGES, asked, result])
    return {
        "name": call["name"],
        "arguments": call["args"],
        "invalid": len(asked.invalid_tool_calls),
        "result": result.content if isinstance(result, ToolMessage) else None,
        "finish_reason": asked.response_metadata["finish_reason"],
        "after": after.content,
    }


def tool_stream(model):
    whole = None
    for chunk in model.bind_tools([look_up], tool_choice="look_up").stream(MESSAGES):
        whole = chunk if whole is None else whole + chunk
    return [{"name": call["name"], "arguments": call["args"]} for call in whole.tool_calls]


def main(url):
    model = ChatOpenAI(
        base_url=f"{url}/v1", api_key="none", model="tiny", temperature=0, max_tokens=200, seed=1, stream_usage=True,
        max_retries=0,
    )  # fmt: skip
    brief = model.bind(max_tokens=8)
    answer = brief.invoke(MESSAGES)
    chunks = list(brief.stream(MESSAGES))
    structured = {
        method: model.with_structured_output(Place, method=method).invoke(MESSAGES).model_dump()
        for method in ("json_schema", "function_calling")
    }
    strict = model.with_structured_output(Place, method="json_schema", strict=True, include_raw=True).invoke(MESSAGES)
    embeddings = OpenAIEmbeddings(base_url=f"{url}/v1", api_key="none", model="tiny", check_embedding_ctx_length=False)
    return {
        "text": answer.content,
        "usage": answer.usage_metadata,
        "finish_reason": answer.response_metadata["finish_reason"],
        "logprobs": len(brief.bind(logprobs=True).invoke(MESSAGES).response_metadata["logprobs"]["content"]),
        "streamed": "".join(chunk.content for chunk in chunks),
        "stream_usage": next(chunk.usage_metadata for chunk in reversed(chunks) if chunk.usage_metadata),
        "async_streamed": asyncio.run(streamed(brief)),
        "batch": [message.content for message in brief.batch([MESSAGES, MESSAGES])],
        "structured": structured,
        "strict_error": strict["parsing_error"] and str(strict["parsing_error"]),
        "agent": agent_turn(model),
        "tool_stream": tool_stream(model),
        "embeddings": [len(embeddings.embed_query("one")), len(embeddings.embed_documents(["one", "two"]))],
    }


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))
