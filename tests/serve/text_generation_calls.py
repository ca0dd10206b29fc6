"""Run with the interpreter of the environment ``tgi-client``: calls a server with text_generation, tells what came.

Standard output: one JSON object. No part of ours is imported here.
"""

import asyncio
import json
import sys

from text_generation import AsyncClient, Client

PROMPT = "Once upon a time"


def texts(events):
    events = list(events)
    return {"text": events[-1].generated_text, "tokens": "".join(event.token.text for event in events)}


def error_of(call):
    try:
        call()
    except Exception as error:
        return type(error).__name__
    return None


async def ask_async(url):
    client = AsyncClient(url)
    whole = await client.generate(PROMPT, max_new_tokens=10)
    events = [event async for event in client.generate_stream(PROMPT, max_new_tokens=10)]
    return whole.generated_text, texts(events)


def main(url):
    client = Client(url)
    whole = client.generate(PROMPT, max_new_tokens=10, decoder_input_details=True)
    assert "".join(token.text for token in whole.details.prefill) == PROMPT
    stop = whole.generated_text[4:6]
    async_whole, async_stream = asyncio.run(ask_async(url))
    chat = client.chat([{"role": "user", "content": "What is the capital of France?"}], max_tokens=6, temperature=0.0)
    best = client.generate(PROMPT, max_new_tokens=4, do_sample=True, best_of=2, top_n_tokens=2)
    too_long = {"max_new_tokens": 100_000}
    return {
        "generate": {
            "text": whole.generated_text,
            "tokens": "".join(token.text for token in whole.details.tokens),
            "finish_reason": whole.details.finish_reason.value,
            "generated_tokens": whole.details.generated_tokens,
        },
        "stream": texts(client.generate_stream(PROMPT, max_new_tokens=10)),
        "async_generate": async_whole,
        "async_stream": async_stream,
        "best_of": len(best.details.best_of_sequences),
        "stopped": client.generate(PROMPT, stop_sequences=[stop]).details.finish_reason.value,
        "grammar": client.generate(PROMPT, grammar={"type": "regex", "value": "[0-9]{4}"}).generated_text,
        "chat": chat.choices[0].message.content,
        "errors": {
            "validation": error_of(lambda: client.generate(PROMPT, **too_long)),
            "stream": error_of(lambda: list(client.generate_stream(PROMPT, **too_long))),
            "path": error_of(lambda: Client(url + "/nothing").generate(PROMPT)),
        },
    }


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))
