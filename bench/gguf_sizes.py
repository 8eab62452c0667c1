"""What one forward pass of a GGUF model has to read and to multiply, from the headers of the file.

Just enough of GGUF v3 (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md) for names, shapes and types.
"""

import struct
from pathlib import Path

# type id -> (elements per block, bytes per block)
BLOCKS = {0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 10: (256, 84),
          11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 20: (32, 18), 23: (256, 136), 30: (1, 2), 39: (32, 17)}
SCALARS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
UINT32, STRING, ARRAY = 4, 8, 9


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def number(self, code):
        (value,) = struct.unpack_from("<" + code, self.data, self.at)
        self.at += struct.calcsize(code)
        return value

    def string(self):
        size = self.number("Q")
        text = self.data[self.at : self.at + size].decode("utf-8", "replace")
        self.at += size
        return text

    def value(self, kind):
        """A metadata value; None for arrays and for scalars other than 32-bit integers and strings."""
        if kind == UINT32:
            return self.number("I")
        if kind == STRING:
            return self.string()
        self.skip(kind)
        return None

    def skip(self, kind):
        if kind == STRING:
            self.string()
        elif kind == ARRAY:
            inner, count = self.number("I"), self.number("Q")
            if inner in SCALARS:
                self.at += SCALARS[inner] * count
            else:
                for _ in range(count):
                    self.skip(inner)
        else:
            self.at += SCALARS[kind]


def read_header(path):
    """(metadata, [(name, number of elements, bytes, is a matrix)])"""
    with open(path, "rb") as file:
        reader = Reader(file.read(64 << 20))  # headers of the models used here are far smaller
    if reader.data[:4] != b"GGUF":
        raise ValueError(f"{path}: not a GGUF file")
    reader.at = 8
    n_tensors, n_keys = reader.number("Q"), reader.number("Q")
    metadata = {}
    for _ in range(n_keys):
        key = reader.string()
        metadata[key] = reader.value(reader.number("I"))
    tensors = []
    for _ in range(n_tensors):
        name = reader.string()
        dims = [reader.number("Q") for _ in range(reader.number("I"))]
        kind = reader.number("I")
        reader.number("Q")
        elements = 1
        for dim in dims:
            elements *= dim
        per_block, block_bytes = BLOCKS[kind]
        tensors.append((name, elements, elements // per_block * block_bytes, len(dims) > 1))
    return metadata, tensors


def attention_shape(metadata):
    """Layers, heads of queries, heads of K and V, elements of a head."""
    arch = metadata["general.architecture"]
    heads = metadata[f"{arch}.attention.head_count"]
    kv_heads = metadata.get(f"{arch}.attention.head_count_kv") or heads
    head_dim = metadata.get(f"{arch}.attention.key_length") or metadata[f"{arch}.embedding_length"] // heads
    return metadata[f"{arch}.block_count"], heads, kv_heads, head_dim


def visible_positions(metadata, depth):
    """Cached positions that one row attends to, summed over layers."""
    arch = metadata["general.architecture"]
    layers = metadata[f"{arch}.block_count"]
    window = metadata.get(f"{arch}.attention.sliding_window") if arch == "gemma3" else None
    # Gemma 3: every sixth layer sees everything, the others the window.
    full = layers // 6 if window else layers
    return full * depth + (layers - full) * min(depth, window or depth)


def cache_bytes(metadata, depth, element_bytes=2):
    """Bytes of K and V that decoding one token reads with `depth` tokens in the cache."""
    _, _, kv_heads, head_dim = attention_shape(metadata)
    return visible_positions(metadata, depth) * kv_heads * head_dim * 2 * element_bytes


def held_cache_bytes(metadata, tokens, element_bytes=2):
    """Bytes of a cache that keeps `tokens` in every layer, those behind a window too."""
    layers, _, kv_heads, head_dim = attention_shape(metadata)
    return layers * tokens * kv_heads * head_dim * 2 * element_bytes


def attention_operations(metadata, depth):
    """Multiplications and additions of one row's attention over `depth` tokens: its scores, then the sum of V."""
    _, heads, _, head_dim = attention_shape(metadata)
    return visible_positions(metadata, depth) * heads * head_dim * 2 * 2


def pass_work(path):
    """Sizes of the weights that a pass multiplies, and of the cache.

    The embedding table is the head when there is no output tensor; otherwise only single rows of it are read.
    """
    metadata, tensors = read_header(path)
    head = "output.weight" if any(name == "output.weight" for name, *_ in tensors) else "token_embd.weight"
    work = {"bytes": 0, "params": 0, "head_bytes": 0, "head_params": 0, "file_bytes": Path(path).stat().st_size,
            "metadata": metadata}
    for name, elements, size, is_matrix in tensors:
        if not is_matrix or (name == "token_embd.weight" and head != name):
            continue
        work["bytes"] += size
        work["params"] += elements
        if name == head:
            work["head_bytes"], work["head_params"] = size, elements
    return work
