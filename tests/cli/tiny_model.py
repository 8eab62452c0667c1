"""Makes a tiny random llama model with a byte tokenizer and a chat template, as GGUF v3.

It says nothing sensible, but always the same, and fast: what tests of the command line need. Standard library
only. Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import random
import struct
from array import array

UINT32, FLOAT32, STRING, ARRAY, INT32 = 4, 6, 8, 9, 5
DIM, FFN, HEADS, KV_HEADS, LAYERS, CONTEXT = 32, 64, 4, 2, 2, 65536
CHAT_TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def byte_characters():
    """GPT-2's printable stand-ins for the 256 bytes, in byte order."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    characters, extra = [], 0
    for byte in range(256):
        if byte in printable:
            characters.append(chr(byte))
        else:
            characters.append(chr(256 + extra))
            extra += 1
    return characters


def text(value):
    data = value.encode("utf-8")
    return struct.pack("<Q", len(data)) + data


def metadata(template, markers=()):
    tokens = [*byte_characters(), "he", "<|im_start|>", "<|im_end|>", "<|endoftext|>", *markers]
    types = [1] * 257 + [3] * (3 + len(markers))
    head_dim = DIM // HEADS
    numbers = {
        "llama.block_count": LAYERS, "llama.context_length": CONTEXT, "llama.embedding_length": DIM,
        "llama.feed_forward_length": FFN, "llama.attention.head_count": HEADS,
        "llama.attention.head_count_kv": KV_HEADS, "llama.rope.dimension_count": head_dim,
        "llama.vocab_size": len(tokens), "tokenizer.ggml.bos_token_id": 259, "tokenizer.ggml.eos_token_id": 258,
    }
    strings = {"general.architecture": "llama", "general.name": "tiny", "tokenizer.ggml.model": "gpt2",
               "tokenizer.ggml.pre": "gpt-2"}
    if template:
        strings["tokenizer.chat_template"] = template
    floats = {"llama.attention.layer_norm_rms_epsilon": 1e-5, "llama.rope.freq_base": 10000.0}
    entries = [text(key) + struct.pack("<I", STRING) + text(value) for key, value in strings.items()]
    entries += [text(key) + struct.pack("<II", UINT32, value) for key, value in numbers.items()]
    entries += [text(key) + struct.pack("<If", FLOAT32, value) for key, value in floats.items()]
    for key, kind, values in (
        ("tokenizer.ggml.tokens", STRING, [text(token) for token in tokens]),
        ("tokenizer.ggml.merges", STRING, [text("h e")]),
        ("tokenizer.ggml.token_type", INT32, [struct.pack("<i", value) for value in types]),
    ):
        entries.append(text(key) + struct.pack("<IIQ", ARRAY, kind, len(values)) + b"".join(values))
    return entries, len(tokens)


def shapes(vocab):
    """Tensor names and shapes, innermost dimension first."""
    kv_dim = DIM // HEADS * KV_HEADS
    yield "token_embd.weight", (DIM, vocab)
    for layer in range(LAYERS):
        blk = f"blk.{layer}."
        yield blk + "attn_norm.weight", (DIM,)
        yield blk + "attn_q.weight", (DIM, DIM)
        yield blk + "attn_k.weight", (DIM, kv_dim)
        yield blk + "attn_v.weight", (DIM, kv_dim)
        yield blk + "attn_output.weight", (DIM, DIM)
        yield blk + "ffn_norm.weight", (DIM,)
        yield blk + "ffn_gate.weight", (DIM, FFN)
        yield blk + "ffn_up.weight", (DIM, FFN)
        yield blk + "ffn_down.weight", (FFN, DIM)
    yield "output_norm.weight", (DIM,)


def weights(vocab, seed=7):
    """Yields (name, shape, values) of every tensor, in the order of the file."""
    noise = random.Random(seed)
    for name, shape in shapes(vocab):
        size = 1
        for dim in shape:
            size *= dim
        if len(shape) == 1:
            values = array("f", [1.0] * size)
        else:
            values = array("f", (noise.gauss(0, 1.5 / shape[0] ** 0.5) for _ in range(size)))
            if name == "token_embd.weight":
                # Mostly bytes that print, so that answers are text: controls and specials stay unlikely.
                for token in range(vocab):
                    if not 97 <= token < 123 and token != 32:
                        for i in range(DIM):
                            values[token * DIM + i] *= 0.05
        yield name, shape, values


def write_tiny_model(path, chat=True, seed=7, template=CHAT_TEMPLATE, markers=()):
    """markers: more control tokens, with the ids from 260."""
    entries, vocab = metadata(template if chat else None, markers)
    infos, data = [], []
    offset = 0
    for name, shape, values in weights(vocab, seed):
        infos.append(text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, 0, offset))
        block = values.tobytes()
        block += bytes(-len(block) % 32)
        data.append(block)
        offset += len(block)
    head = b"GGUF" + struct.pack("<IQQ", 3, len(infos), len(entries)) + b"".join(entries) + b"".join(infos)
    with open(path, "wb") as file:
        file.write(head + bytes(-len(head) % 32) + b"".join(data))
