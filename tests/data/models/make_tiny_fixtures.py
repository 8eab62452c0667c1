#!/usr/bin/env python3
"""Makes the tiny_* fixtures of this folder: models of two layers with random weights, as a Hugging Face folder and as
GGUF, with the outputs of the reference below, which computes in double precision and shares no code with the
program.  usage: make_tiny_fixtures.py [OUT_DIR]
                 make_tiny_fixtures.py --check GOLDEN_DIR     (the reference itself, against transformers' outputs)

tiny_rope_linear, tiny_rope_llama3, tiny_rope_yarn: the rotary scalings of llama. tiny_gemma3_softcap: soft caps of
attention scores and of logits (no released Gemma 3 has them, but its configuration does), beside the sliding window,
the two rotary bases and the sandwich norms. Standard library only; takes some seconds.

Formulas: transformers' modeling_llama, modeling_gemma3 and modeling_rope_utils; docs/models.md names the papers."""

import json
import math
import random
import struct
import sys
from operator import mul
from pathlib import Path

LENGTHS = (1, 7, 44)  # the last one leaves the window and the original context of the scaled models
GREEDY_STEPS = 16
WINDOW, ORIGINAL_CONTEXT = 16, 32
SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 96, "max_position_embeddings": 256,
         "tie_word_embeddings": True, "eos_token_id": 2, "bos_token_id": 1}
LLAMA = {**SIZES, "model_type": "llama", "hidden_act": "silu", "rms_norm_eps": 1e-5}
CASES = {
    "tiny_rope_linear": {**LLAMA, "rope_theta": 10000.0, "rope_scaling": {"rope_type": "linear", "factor": 4.0}},
    "tiny_rope_llama3": {**LLAMA, "rope_parameters": {
        "rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": ORIGINAL_CONTEXT}},
    "tiny_rope_yarn": {**LLAMA, "rope_parameters": {
        "rope_type": "yarn", "rope_theta": 10000.0, "factor": 8.0, "beta_fast": 32.0, "beta_slow": 1.0,
        "original_max_position_embeddings": ORIGINAL_CONTEXT}},
    "tiny_gemma3_softcap": {
        **SIZES, "model_type": "gemma3_text", "hidden_activation": "gelu_pytorch_tanh", "rms_norm_eps": 1e-6,
        "query_pre_attn_scalar": 16, "sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention"],
        "rope_theta": 1000000.0, "rope_local_base_freq": 10000.0,
        "attn_logit_softcapping": 5.0, "final_logit_softcapping": 4.0},
}
PROJECTIONS = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
               "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
               "mlp.down_proj": "ffn_down"}
LLAMA_NORMS = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
GEMMA_NORMS = {"input_layernorm": "attn_norm", "post_attention_layernorm": "post_attention_norm",
               "pre_feedforward_layernorm": "ffn_norm", "post_feedforward_layernorm": "post_ffw_norm",
               "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm"}


# --- numbers -----------------------------------------------------------------------------------------------

def to_bf16(value):
    """The 16 bits of the nearest bfloat16."""
    (bits,) = struct.unpack("<I", struct.pack("<f", value))
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16) & 0xFFFF


def from_bf16(bits):
    return struct.unpack("<f", struct.pack("<I", bits << 16))[0]


def to_f32(value):
    return struct.unpack("<f", struct.pack("<f", value))[0]


def dot(a, b):
    return sum(map(mul, a, b))


# --- the reference -----------------------------------------------------------------------------------------

def rope_of(config, sliding):
    """Inverse frequencies and the factor on cos and sin."""
    gemma = config["model_type"].startswith("gemma3")
    scaling = dict(config.get("rope_parameters") or config.get("rope_scaling") or {})
    if "full_attention" in scaling:
        scaling = scaling["sliding_attention" if sliding else "full_attention"]
    elif gemma and sliding:
        scaling = {"rope_theta": config["rope_local_base_freq"]}
    theta = scaling.get("rope_theta", config.get("rope_theta"))
    kind, factor = scaling.get("rope_type", "default"), scaling.get("factor", 1.0)
    dim = config["head_dim"]
    plain = [theta ** (-2 * j / dim) for j in range(dim // 2)]
    if kind == "default":
        return plain, 1.0
    if kind == "linear":
        return [f / factor for f in plain], 1.0
    old = scaling["original_max_position_embeddings"]
    if kind == "llama3":
        low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
        # How many of its turns fit into the original context decides; between the two limits it is mixed.
        shares = [min(1.0, max(0.0, (old * f / (2 * math.pi) - low) / (high - low))) for f in plain]
        return [f * (s + (1 - s) / factor) for f, s in zip(plain, shares)], 1.0
    assert kind == "yarn", kind

    def pair(turns):
        return dim * math.log(old / (turns * 2 * math.pi)) / (2 * math.log(theta))

    first = max(math.floor(pair(scaling.get("beta_fast", 32))), 0)
    last = min(math.ceil(pair(scaling.get("beta_slow", 1))), dim - 1)
    ramp = [min(1.0, max(0.0, (j - first) / max(last - first, 0.001))) for j in range(dim // 2)]
    return [f / factor * r + f * (1 - r) for f, r in zip(plain, ramp)], 0.1 * math.log(factor) + 1.0


def sliding_layers(config):
    n = config["num_hidden_layers"]
    if not config["model_type"].startswith("gemma3"):
        return [False] * n
    if config.get("layer_types"):
        return [kind == "sliding_attention" for kind in config["layer_types"]]
    return [(i + 1) % config["sliding_window_pattern"] != 0 for i in range(n)]


class Reference:
    """One sequence, token by token. rounded: keys, values and inputs of products as bfloat16, which shows how far the
    serving path of the program may move."""

    def __init__(self, config, weights, rounded=False):
        self.c, self.w, self.rounded = config, weights, rounded
        self.gemma = config["model_type"].startswith("gemma3")
        self.sliding = sliding_layers(config)
        self.ropes = {sliding: rope_of(config, sliding) for sliding in set(self.sliding)}
        self.cache = [([], []) for _ in self.sliding]

    def product(self, name, x):
        x = self.store(x)
        y = [dot(row, x) for row in self.w[name + ".weight"]]
        bias = self.w.get(name + ".bias")
        return [a + b for a, b in zip(y, bias)] if bias else y

    def store(self, x):
        return [from_bf16(to_bf16(value)) for value in x] if self.rounded else x

    def norm(self, name, x):
        scale = 1.0 / math.sqrt(dot(x, x) / len(x) + self.c["rms_norm_eps"])
        offset = 1.0 if self.gemma else 0.0
        return [v * scale * (w + offset) for v, w in zip(x, self.w[name + ".weight"])]

    def heads(self, x, norm, layer, position):
        """Splits into heads, norms (Gemma) and rotates them; norm None: leaves them."""
        dim = self.c["head_dim"]
        out = [x[i:i + dim] for i in range(0, len(x), dim)]
        if norm is None:
            return out
        if self.gemma:
            out = [self.norm(norm, head) for head in out]
        frequencies, factor = self.ropes[self.sliding[layer]]
        rotated = []
        for head in out:
            cos = [factor * math.cos(position * f) for f in frequencies]
            sin = [factor * math.sin(position * f) for f in frequencies]
            a, b = head[:dim // 2], head[dim // 2:]
            rotated.append([x * c - y * s for x, y, c, s in zip(a, b, cos, sin)] +
                           [y * c + x * s for x, y, c, s in zip(a, b, cos, sin)])
        return rotated

    def attend(self, layer, x):
        at = f"model.layers.{layer}.self_attn."
        keys, values = self.cache[layer]
        position = len(keys)
        q = self.heads(self.product(at + "q_proj", x), at + "q_norm", layer, position)
        k = self.heads(self.product(at + "k_proj", x), at + "k_norm", layer, position)
        keys.append([self.store(head) for head in k])
        values.append([self.store(head) for head in self.heads(self.product(at + "v_proj", x), None, layer, position)])
        first = max(0, position + 1 - self.c["sliding_window"]) if self.sliding[layer] else 0
        scale = 1.0 / math.sqrt(self.c["query_pre_attn_scalar"] if self.gemma else self.c["head_dim"])
        cap = self.c.get("attn_logit_softcapping") if self.gemma else None
        group = len(q) // len(k)
        out = []
        for h, head in enumerate(q):
            scores = [dot(head, keys[j][h // group]) * scale for j in range(first, position + 1)]
            if cap:
                scores = [cap * math.tanh(score / cap) for score in scores]
            top = max(scores)
            shares = [math.exp(score - top) for score in scores]
            total = sum(shares)
            rows = [values[j][h // group] for j in range(first, position + 1)]
            out += [dot(shares, column) / total for column in zip(*rows)]
        return self.product(at + "o_proj", out)

    def mlp(self, layer, x):
        at = f"model.layers.{layer}.mlp."
        gate, up = self.product(at + "gate_proj", x), self.product(at + "up_proj", x)
        if self.gemma:
            active = [0.5 * v * (1 + math.tanh(math.sqrt(2 / math.pi) * (v + 0.044715 * v ** 3))) for v in gate]
        else:
            active = [v / (1 + math.exp(-v)) for v in gate]
        return self.product(at + "down_proj", list(map(mul, active, up)))

    def step(self, token):
        """returns: the residual stream after the embedding and every layer, the normed last one, logits."""
        scale = math.sqrt(self.c["hidden_size"]) if self.gemma else 1.0
        x = [value * scale for value in self.w["model.embed_tokens.weight"][token]]
        hidden = [x]
        for layer in range(self.c["num_hidden_layers"]):
            at = f"model.layers.{layer}."
            branch = self.attend(layer, self.norm(at + "input_layernorm", x))
            if self.gemma:
                branch = self.norm(at + "post_attention_layernorm", branch)
            x = [a + b for a, b in zip(x, branch)]
            before = "pre_feedforward_layernorm" if self.gemma else "post_attention_layernorm"
            branch = self.mlp(layer, self.norm(at + before, x))
            if self.gemma:
                branch = self.norm(at + "post_feedforward_layernorm", branch)
            x = [a + b for a, b in zip(x, branch)]
            hidden.append(x)
        final = self.norm("model.norm", x)
        logits = self.product("model.embed_tokens" if self.c["tie_word_embeddings"] else "lm_head", final)
        cap = self.c.get("final_logit_softcapping") if self.gemma else None
        return hidden, final, [cap * math.tanh(z / cap) for z in logits] if cap else logits


def run(config, weights, ids, rounded=False):
    """The outputs of all positions, and the reference behind the last one."""
    reference = Reference(config, weights, rounded)
    return [reference.step(token) for token in ids], reference


def logits_of(config, weights, ids, rounded=False):
    return [z for _, _, logits in run(config, weights, ids, rounded)[0] for z in logits]


def largest_difference(a, b):
    return max(abs(x - y) for x, y in zip(a, b))


# --- weights and files -------------------------------------------------------------------------------------

def make_weights(config, noise):
    """Values as the files hold them: matrices bfloat16, norms float32."""
    hidden, ffn, head = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    q, kv = config["num_attention_heads"] * head, config["num_key_value_heads"] * head
    gemma = config["model_type"].startswith("gemma3")

    def matrix(rows, columns, deviation):
        return [[from_bf16(to_bf16(noise.gauss(0, deviation))) for _ in range(columns)] for _ in range(rows)]

    def vector(n, mean):
        return [to_f32(noise.gauss(mean, 0.2)) for _ in range(n)]

    weights = {"model.embed_tokens.weight": matrix(config["vocab_size"], hidden, 0.5)}
    for layer in range(config["num_hidden_layers"]):
        at = f"model.layers.{layer}."
        shapes = {"self_attn.q_proj": (q, hidden), "self_attn.k_proj": (kv, hidden), "self_attn.v_proj": (kv, hidden),
                  "self_attn.o_proj": (hidden, q), "mlp.gate_proj": (ffn, hidden), "mlp.up_proj": (ffn, hidden),
                  "mlp.down_proj": (hidden, ffn)}
        for name, (rows, columns) in shapes.items():
            # Queries and keys a little larger, so that attention is peaked and rotations and caps tell.
            gain = 1.4 if name[-6:] in ("q_proj", "k_proj") else 1.0
            weights[at + name + ".weight"] = matrix(rows, columns, gain / math.sqrt(columns))
        for name in GEMMA_NORMS if gemma else LLAMA_NORMS:
            on_heads = name.startswith("self_attn.")
            weights[at + name + ".weight"] = vector(head if on_heads else hidden, (0.9 if on_heads else 0.0) if gemma else 1.0)
    weights["model.norm.weight"] = vector(hidden, 0.0 if gemma else 1.0)
    return weights


def flat(values):
    return [x for row in values for x in row] if isinstance(values[0], list) else values


def shape_of(values):
    return [len(values), len(values[0])] if isinstance(values[0], list) else [len(values)]


def pack(dtype, values):
    values = flat(values)
    if dtype == "BF16":
        return struct.pack(f"<{len(values)}H", *map(to_bf16, values))
    return struct.pack(f"<{len(values)}{'i' if dtype == 'I32' else 'f'}", *values)


def write_safetensors(path, tensors):
    """tensors: name -> (dtype, shape, bytes)."""
    header, offset = {}, 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + len(data)]}
        offset += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(data for _, _, data in tensors.values()))


def gguf_string(value):
    return struct.pack("<Q", len(value.encode())) + value.encode()


def gguf_entry(key, value):
    head = gguf_string(key)
    if isinstance(value, str):
        return head + struct.pack("<I", 8) + gguf_string(value)
    if isinstance(value, list):  # of booleans
        return head + struct.pack("<IIQ", 9, 7, len(value)) + bytes(value)
    return head + (struct.pack("<If", 6, value) if isinstance(value, float) else struct.pack("<II", 4, value))


def gguf_metadata(name, config):
    gemma = config["model_type"].startswith("gemma3")
    arch = "gemma3" if gemma else "llama"
    keys = {"block_count": config["num_hidden_layers"], "context_length": config["max_position_embeddings"],
            "embedding_length": config["hidden_size"], "feed_forward_length": config["intermediate_size"],
            "vocab_size": config["vocab_size"], "attention.head_count": config["num_attention_heads"],
            "attention.head_count_kv": config["num_key_value_heads"], "attention.key_length": config["head_dim"],
            "attention.value_length": config["head_dim"], "rope.dimension_count": config["head_dim"],
            "attention.layer_norm_rms_epsilon": config["rms_norm_eps"]}
    scaling = config.get("rope_parameters") or config.get("rope_scaling") or {}
    keys["rope.freq_base"] = scaling.get("rope_theta", config.get("rope_theta"))
    if scaling.get("rope_type") in ("linear", "yarn"):  # llama3 stands in rope_freqs.weight
        keys["rope.scaling.type"], keys["rope.scaling.factor"] = scaling["rope_type"], scaling["factor"]
    if scaling.get("rope_type") == "yarn":
        keys["rope.scaling.original_context_length"] = scaling["original_max_position_embeddings"]
    if gemma:
        keys.update({"rope.freq_base_swa": config["rope_local_base_freq"],
                     "attention.sliding_window": config["sliding_window"],
                     "attention.sliding_window_pattern": sliding_layers(config),
                     "attn_logit_softcapping": config["attn_logit_softcapping"],
                     "final_logit_softcapping": config["final_logit_softcapping"]})
    return {"general.architecture": arch, "general.name": name, "tokenizer.ggml.model": "no_vocab",
            **{f"{arch}.{key}": value for key, value in keys.items()}}


def gguf_tensors(config, weights):
    gemma = config["model_type"].startswith("gemma3")
    names = {**PROJECTIONS, **(GEMMA_NORMS if gemma else LLAMA_NORMS)}
    tensors = {}
    if (config.get("rope_parameters") or {}).get("rope_type") == "llama3":
        scaled = rope_of(config, False)[0]
        plain = rope_of({**config, "rope_parameters": {"rope_theta": config["rope_parameters"]["rope_theta"]}}, False)[0]
        tensors["rope_freqs.weight"] = [a / b for a, b in zip(plain, scaled)]
    for name, values in weights.items():
        if name.startswith("model.layers."):
            _, _, layer, stem = name.removesuffix(".weight").split(".", 3)
            target = f"blk.{layer}.{names[stem]}.weight"
        else:
            target = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}[name]
        if not gemma and target.endswith(("attn_q.weight", "attn_k.weight")):
            # Architecture llama rotates neighbouring rows: (j, j + d/2) of a head become (2j, 2j + 1).
            half = config["head_dim"] // 2
            starts = range(0, len(values), 2 * half)
            values = [values[start + j + part] for start in starts for j in range(half) for part in (0, half)]
        if gemma and not isinstance(values[0], list):
            values = [1.0 + value for value in values]
        tensors[target] = values
    return tensors


def write_gguf(path, metadata, tensors):
    infos, data, offset = [], [], 0
    for name, values in tensors.items():
        matrix = isinstance(values[0], list)
        block = pack("BF16" if matrix else "F32", values)
        block += bytes(-len(block) % 32)
        dims = shape_of(values)[::-1]
        infos.append(gguf_string(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, 30 if matrix else 0, offset))
        data.append(block)
        offset += len(block)
    head = b"GGUF" + struct.pack("<IQQ", 3, len(infos), len(metadata))
    head += b"".join(gguf_entry(key, value) for key, value in metadata.items()) + b"".join(infos)
    path.write_bytes(head + bytes(-len(head) % 32) + b"".join(data))


# --- cases -------------------------------------------------------------------------------------------------

def expected_of(config, weights, prefix, ids):
    outputs, reference = run(config, weights, ids)
    layers = config["num_hidden_layers"] + 1
    hidden = [row for layer in range(layers) for row in (streams[layer] for streams, _, _ in outputs)]
    greedy, margins, logits = [], [], outputs[-1][2]
    for _ in range(GREEDY_STEPS):
        best, second = sorted(range(len(logits)), key=lambda i: -logits[i])[:2]
        greedy.append(best)
        margins.append(logits[best] - logits[second])
        logits = reference.step(best)[2]
    final, all_logits = [row for _, row, _ in outputs], [row for _, _, row in outputs]
    size = config["hidden_size"]
    return {prefix + "input_ids": ("I32", [len(ids)], pack("I32", ids)),
            prefix + "logits": ("F32", [len(ids), config["vocab_size"]], pack("F32", all_logits)),
            prefix + "hidden": ("F32", [layers, len(ids), size], pack("F32", hidden)),
            prefix + "final_norm": ("F32", [len(ids), size], pack("F32", final)),
            prefix + "greedy_ids": ("I32", [GREEDY_STEPS], pack("I32", greedy)),
            prefix + "greedy_margin": ("F32", [GREEDY_STEPS], pack("F32", margins))}


def without_features(config):
    """The same model without each thing that its fixture is for."""
    if "rope_parameters" in config:
        yield "scaling", {**config, "rope_parameters": {"rope_theta": config["rope_parameters"]["rope_theta"]}}
    if "rope_scaling" in config:
        yield "scaling", {**config, "rope_scaling": None}
    for key in ("attn_logit_softcapping", "final_logit_softcapping"):
        if key in config:
            yield key, {**config, key: None}


def make(name, config, out):
    noise = random.Random(name)
    weights = make_weights(config, noise)
    sequences = [[noise.randrange(config["vocab_size"]) for _ in range(n)] for n in LENGTHS]
    longest = sequences[-1]
    logits = logits_of(config, weights, longest)
    for feature, other in without_features(config):
        moved = largest_difference(logits, logits_of(other, weights, longest))
        print(f"{name}: without {feature} logits move by {moved:.2f}")
        assert moved > 0.2, "a test of this fixture would not notice"
    rounded = logits_of(config, weights, longest, rounded=True)
    mean = sum(abs(a - b) for a, b in zip(logits, rounded)) / len(logits)
    print(f"{name}: in bfloat16 by {largest_difference(logits, rounded):.3f}, {mean:.4f} on average")
    folder = out / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    write_safetensors(folder / "model.safetensors",
                      {key: ("BF16" if isinstance(values[0], list) else "F32", shape_of(values),
                             pack("BF16" if isinstance(values[0], list) else "F32", values))
                       for key, values in weights.items()})
    write_gguf(folder / "model.gguf", gguf_metadata(name, config), gguf_tensors(config, weights))
    expected = {}
    for i, ids in enumerate(sequences):
        expected.update(expected_of(config, weights, f"seq{i}.", ids))
    write_safetensors(folder / "expected.safetensors", expected)


def read_safetensors(path):
    blob = path.read_bytes()
    (n,) = struct.unpack("<Q", blob[:8])
    header = json.loads(blob[8:8 + n])
    header.pop("__metadata__", None)
    out = {}
    for name, info in header.items():
        begin, end = (8 + n + offset for offset in info["data_offsets"])
        code = {"F32": "f", "BF16": "H", "I32": "i"}[info["dtype"]]
        values = list(struct.unpack(f"<{(end - begin) // struct.calcsize(code)}{code}", blob[begin:end]))
        if info["dtype"] == "BF16":
            values = list(map(from_bf16, values))
        if len(info["shape"]) == 2:
            width = info["shape"][1]
            values = [values[i:i + width] for i in range(0, len(values), width)]
        out[name] = values
    return out


def check(golden):
    worst = 0.0
    for name in ("llama_gqa_tied", "llama_bias_mha", "llama_rope_linear", "llama3_rope", "llama3_rope_legacy_cfg",
                 "llama_rope_yarn", "gemma3_text", "gemma3_text_legacy_cfg"):
        folder = golden / "models" / name
        config = json.loads((folder / "config.json").read_text())
        weights = {}
        for file in sorted(folder.glob("model*.safetensors")):
            weights.update(read_safetensors(file))
        expected = read_safetensors(folder / "expected.safetensors")
        longest = max((key for key in expected if key.endswith("input_ids")), key=lambda key: len(expected[key]))
        ids = expected[longest][:40]
        want = flat(expected[longest.replace("input_ids", "logits")][:40])
        difference = largest_difference(logits_of(config, weights, ids), want)
        worst = max(worst, difference)
        print(f"{name}: {len(ids)} tokens, logits within {difference:.1e}")
    return 0 if worst < 1e-4 else 1


def main():
    if sys.argv[1:2] == ["--check"]:
        return check(Path(sys.argv[2]))
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent
    for name, config in CASES.items():
        make(name, config, out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
