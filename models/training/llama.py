"""A small Llama decoder in plain PyTorch, used only to train the embedded model.

Its parameters carry the names of a Hugging Face Llama checkpoint, so that `export` can write a folder which
Transformers (and attend itself) load as it is. `train.py` trains it, `evaluate.py` reads the exported folder.
"""
import json
import math
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn


@dataclass
class Shape:
    vocab: int = 4096
    hidden: int = 192
    inner: int = 512
    layers: int = 6
    heads: int = 6
    kv_heads: int = 3
    head_dim: int = 32
    positions: int = 1024
    theta: float = 10000.0
    eps: float = 1e-5
    dropout: float = 0.1


class Norm(nn.Module):
    def __init__(self, size, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x):
        return F.rms_norm(x.float(), x.shape[-1:], self.weight, self.eps)


class Attention(nn.Module):
    def __init__(self, s):
        super().__init__()
        self.s = s
        self.q_proj = nn.Linear(s.hidden, s.heads * s.head_dim, bias=False)
        self.k_proj = nn.Linear(s.hidden, s.kv_heads * s.head_dim, bias=False)
        self.v_proj = nn.Linear(s.hidden, s.kv_heads * s.head_dim, bias=False)
        self.o_proj = nn.Linear(s.heads * s.head_dim, s.hidden, bias=False)

    def split(self, x, heads):
        return x.view(*x.shape[:2], heads, self.s.head_dim).transpose(1, 2)

    def forward(self, x, cos, sin, weights=None):
        s = self.s
        q = rotate(self.split(self.q_proj(x), s.heads), cos, sin)
        k = rotate(self.split(self.k_proj(x), s.kv_heads), cos, sin)
        v = self.split(self.v_proj(x), s.kv_heads)
        group = s.heads // s.kv_heads
        k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
        if weights is not None:  # measuring: keep the matrix
            scores = q @ k.transpose(-1, -2) / math.sqrt(s.head_dim)
            mask = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
            probs = scores.masked_fill(mask, float("-inf")).softmax(-1)
            weights.append(probs)
            out = probs @ v
        else:
            out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.o_proj(out.transpose(1, 2).flatten(2))


def rotate(x, cos, sin):
    a, b = x.chunk(2, -1)
    return (x * cos + torch.cat([-b, a], -1) * sin).to(x.dtype)


class Mlp(nn.Module):
    def __init__(self, s):
        super().__init__()
        self.gate_proj = nn.Linear(s.hidden, s.inner, bias=False)
        self.up_proj = nn.Linear(s.hidden, s.inner, bias=False)
        self.down_proj = nn.Linear(s.inner, s.hidden, bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, s):
        super().__init__()
        self.self_attn = Attention(s)
        self.mlp = Mlp(s)
        self.input_layernorm = Norm(s.hidden, s.eps)
        self.post_attention_layernorm = Norm(s.hidden, s.eps)
        self.drop = nn.Dropout(s.dropout)

    def forward(self, x, cos, sin, weights=None):
        x = x + self.drop(self.self_attn(self.input_layernorm(x), cos, sin, weights))
        return x + self.drop(self.mlp(self.post_attention_layernorm(x)))


class Inner(nn.Module):
    def __init__(self, s):
        super().__init__()
        self.embed_tokens = nn.Embedding(s.vocab, s.hidden)
        self.layers = nn.ModuleList(Layer(s) for _ in range(s.layers))
        self.norm = Norm(s.hidden, s.eps)


class Llama(nn.Module):
    def __init__(self, s):
        super().__init__()
        self.s = s
        self.model = Inner(s)
        angles = torch.outer(torch.arange(s.positions).float(),
                             s.theta ** (-torch.arange(0, s.head_dim, 2).float() / s.head_dim))
        angles = torch.cat([angles, angles], -1)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)
        for name, p in self.named_parameters():
            if p.dim() == 2:
                scale = 0.02 if "embed" in name else 1 / math.sqrt(p.shape[1])
                if "o_proj" in name or "down_proj" in name:
                    scale /= math.sqrt(2 * s.layers)
                nn.init.normal_(p, std=scale)

    def forward(self, ids, weights=None):
        n = ids.shape[1]
        cos, sin = self.cos[:n], self.sin[:n]
        x = self.model.embed_tokens(ids)
        for layer in self.model.layers:
            x = layer(x, cos, sin, weights)
        return F.linear(self.model.norm(x), self.model.embed_tokens.weight)

    def loss(self, ids, labels):
        """Mean cross entropy over the labels that are not -100; labels[t] is the token after ids[t]."""
        return F.cross_entropy(self(ids).float().flatten(0, 1), labels.flatten(), ignore_index=-100)


def export(model, folder):
    """Write config.json, generation_config.json and model.safetensors (f16)."""
    s, folder = model.s, Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "architectures": ["LlamaForCausalLM"], "attention_bias": False, "attention_dropout": 0.0,
        "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0, "head_dim": s.head_dim, "hidden_act": "silu",
        "hidden_size": s.hidden, "initializer_range": 0.02, "intermediate_size": s.inner,
        "max_position_embeddings": s.positions, "mlp_bias": False, "model_type": "llama",
        "num_attention_heads": s.heads, "num_hidden_layers": s.layers, "num_key_value_heads": s.kv_heads,
        "rms_norm_eps": s.eps, "rope_scaling": None, "rope_theta": s.theta, "tie_word_embeddings": True,
        "torch_dtype": "float16", "use_cache": True, "vocab_size": s.vocab,
    }
    generation = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0, "do_sample": True,
                  "temperature": 0.6, "top_k": 40, "top_p": 0.9, "max_new_tokens": 400}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")
    save_file({k: v.detach().to(torch.float16).contiguous() for k, v in model.state_dict().items()},
              folder / "model.safetensors", metadata={"format": "pt"})
