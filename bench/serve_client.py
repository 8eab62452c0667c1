"""Talks to OpenAI-compatible servers for bench/serve_load.py and bench/serve_soak.py. Standard library only."""

import asyncio
import json
import re
import time
import urllib.parse
import urllib.request


class Failure(Exception):
    """A server answered something else than what was asked for."""


def call(server, path, body=None):
    """The answer of one request, parsed if it is JSON."""
    request = urllib.request.Request(server["url"].rstrip("/") + path, json.dumps(body).encode() if body is not None else None,
                                     {"Content-Type": "application/json"})
    if server.get("key"):
        request.add_header("Authorization", f"Bearer {server['key']}")
    with urllib.request.urlopen(request, timeout=300) as answer:
        data = answer.read()
    return json.loads(data) if answer.headers.get_content_type() == "application/json" else data.decode()


def metric(server, name):
    """A metric of Prometheus, summed over its labels."""
    return metric_in(call(server, "/metrics"), name)


def metric_in(text, name, label=""):
    """The same of a text that /metrics gave; of those with `label`, as in part="all"."""
    found = re.findall(rf"^{re.escape(name)}({{.*}})? (\S+)$", text, re.MULTILINE)
    values = [float(value) for labels, value in found if label in labels]
    if not values:
        raise Failure(f"/metrics has no {name}")
    return sum(values)


async def read_head(reader):
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    headers = {key.strip().lower(): value.strip() for key, _, value in (line.partition(":") for line in lines[1:])}
    return int(lines[0].split()[1]), headers


async def body_pieces(reader, headers):
    if headers.get("transfer-encoding", "").lower() != "chunked":
        while piece := await reader.read(65536):
            yield piece
        return
    while size := int((await reader.readline()).split(b";")[0], 16):
        yield await reader.readexactly(size)
        await reader.readexactly(2)
    await reader.readline()


async def stream_events(server, body):
    """The chunks of one streamed chat, parsed. Leaving the loop early hangs up."""
    url = urllib.parse.urlsplit(server["url"])
    data = json.dumps({**body, "stream": True}).encode()
    reader, writer = await asyncio.open_connection(url.hostname, url.port or 80)
    try:
        key = f"Authorization: Bearer {server['key']}\r\n" if server.get("key") else ""
        writer.write((f"POST {url.path.rstrip('/')}/v1/chat/completions HTTP/1.1\r\nHost: {url.netloc}\r\n{key}"
                      f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\nConnection: close\r\n\r\n"
                      ).encode() + data)
        status, headers = await read_head(reader)
        buffer = b""
        async for piece in body_pieces(reader, headers):
            buffer += piece
            while status == 200 and (end := buffer.find(b"\n\n")) >= 0:
                event, buffer = buffer[:end], buffer[end + 2:]
                if not event.startswith(b"data:") or event[5:].strip() == b"[DONE]":
                    continue
                chunk = json.loads(event[5:])
                if "error" in chunk:
                    raise Failure(str(chunk["error"]))
                yield chunk
        if status != 200:
            raise Failure(f"status {status}: {buffer[:200].decode(errors='replace')}")
    finally:
        writer.close()


async def stream_one(server, body, on_first=None):
    """One answer: seconds to the first text and to the end, token counts, the text, the report of speculation."""
    start = time.perf_counter()
    first, usage, text = None, None, []
    async for chunk in stream_events(server, {**body, "stream_options": {"include_usage": True}}):
        usage = chunk.get("usage") or usage
        for choice in chunk.get("choices", ()):
            delta = choice.get("delta", {}).get("content")
            if delta:
                if first is None:
                    first = time.perf_counter() - start
                    if on_first is not None:
                        on_first()
                text.append(delta)
    if usage is None or first is None:
        raise Failure("the stream told no text or no usage")
    return {"first_s": first, "total_s": time.perf_counter() - start, "tokens": usage["completion_tokens"],
            "prompt_tokens": usage.get("prompt_tokens", 0), "text": "".join(text),
            "speculation": usage.get("speculation")}


def question(prompt, args, server):
    """The body of a request for exactly args.new_tokens tokens."""
    return {"model": server["model"], "max_tokens": args.new_tokens, "ignore_eos": True, "temperature": args.temperature,
            "seed": 1, "messages": [{"role": "user", "content": prompt}]}
