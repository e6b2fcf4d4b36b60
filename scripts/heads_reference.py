#!/usr/bin/env python3
"""What heads do and what is lost without them, by Hugging Face Transformers (eager attention, float32, CPU) and numpy.

    scripts/heads_reference.py CHECKPOINT OUT_FILE --ids 1,2,3 [--vocabulary-step N] [--value-layers 0,5]
        [--other CHECKPOINT] [--ablate '0.1=zero 2.0=mean' ...]

It needs the Python packages torch, transformers, safetensors and numpy. It writes one safetensors file:
  input_ids          i64 [tokens]
  scores             f64 [layers · heads, 9]           previous token, duplicate token, induction (NaN where the text's
                                                       second half does not repeat the first), sink, self, local,
                                                       entropy, distance, weight of the strongest key
  rollout            f32 [tokens, tokens]              through all layers (Abnar and Zuidema 2020)
  value_weighted.L   f32 [heads, tokens, tokens]       norms of alpha_ij v_j W_O (Kobayashi et al. 2020)
  divergence         f64 [layers · heads]              Jensen-Shannon, in bits, from the maps of the --other checkpoint
  ablate.K           u8  [bytes]                       LAYER.HEAD=zero|mean|uniform, with spaces between
  ablate.K.logits    f32 [tokens, vocabulary / N]      every N-th logit with these heads silenced, by hooks on the output
                                                       projection's input: 0; the mean of the head's outputs up to each
                                                       position; or the mean of the values that the position may see
"""
import argparse
import pathlib

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

NEAR = 8


def load(folder):
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32)
    return model.eval()


class Parts:
    """Where a family keeps a layer's values and its output projection."""

    def __init__(self, model):
        config = self.config = model.config
        self.heads = config.num_attention_heads
        self.kv_heads = getattr(config, "num_key_value_heads", None) or self.heads
        self.dim = getattr(config, "head_dim", None) or config.hidden_size // self.heads
        self.window = getattr(config, "sliding_window", None)
        kind = config.model_type
        if kind == "gpt2":
            layers = model.transformer.h
            self.output = [layer.attn.c_proj for layer in layers]
            self.value_module = [layer.attn.c_attn for layer in layers]
            self.split = lambda out: out[..., 2 * self.heads * self.dim:]
        elif kind == "bloom":
            layers = model.transformer.h
            self.output = [layer.self_attention.dense for layer in layers]
            self.value_module = [layer.self_attention.query_key_value for layer in layers]
            self.split = lambda out: out.reshape(*out.shape[:-1], self.heads, 3, self.dim)[..., 2, :].flatten(-2)
        else:
            layers = model.model.layers
            self.output = [layer.self_attn.o_proj for layer in layers]
            self.value_module = [layer.self_attn.v_proj for layer in layers]
            self.split = lambda out: out

    def values(self, out):
        """[tokens, heads, dim], each query head with the values of its key/value head"""
        values = self.split(out)[0].reshape(-1, self.kv_heads, self.dim)
        return values.repeat_interleave(self.heads // self.kv_heads, dim=1)

    def output_weight(self, layer, head):
        """[hidden, dim]"""
        weight = self.output[layer].weight
        if self.config.model_type == "gpt2":  # a Conv1D keeps [inputs, outputs]
            weight = weight.T
        return weight[:, head * self.dim:(head + 1) * self.dim]


def run(model, ids, values=None):
    """Logits [tokens, vocabulary], maps [layers][heads, tokens, tokens]; values go into the list."""
    parts, hooks = Parts(model), []
    if values is not None:
        for module in parts.value_module:
            hooks.append(module.register_forward_hook(lambda _m, _i, out: values.append(parts.values(out))))
    with torch.no_grad():
        out = model(torch.tensor([ids]), output_attentions=True, use_cache=False)
    for hook in hooks:
        hook.remove()
    return out.logits[0], [attention[0].numpy().astype(np.float64) for attention in out.attentions]


def ablated(model, ids, silenced):
    parts, held, hooks = Parts(model), {}, []

    def keep(layer):
        def hook(_module, _inputs, out):
            held[layer] = parts.values(out)
        return hook

    def change(layer, heads):
        def hook(_module, inputs):
            outputs = inputs[0].clone()
            tokens = outputs.shape[1]
            counts = torch.arange(1, tokens + 1).unsqueeze(1)
            for head, how in heads:
                part = slice(head * parts.dim, (head + 1) * parts.dim)
                if how == "zero":
                    outputs[0, :, part] = 0.0
                elif how == "mean":
                    outputs[0, :, part] = outputs[0, :, part].double().cumsum(0).div(counts).float()
                else:
                    for query in range(tokens):
                        first = 0 if parts.window is None else max(0, query + 1 - parts.window)
                        outputs[0, query, part] = held[layer][first:query + 1, head].mean(0)
            return (outputs,)
        return hook

    by_layer = {}
    for item in silenced.split():
        place, how = item.split("=")
        layer, head = map(int, place.split("."))
        by_layer.setdefault(layer, []).append((head, how))
    for layer, heads in by_layer.items():
        hooks.append(parts.value_module[layer].register_forward_hook(keep(layer)))
        hooks.append(parts.output[layer].register_forward_pre_hook(change(layer, heads)))
    with torch.no_grad():
        logits = model(torch.tensor([ids]), use_cache=False).logits[0]
    for hook in hooks:
        hook.remove()
    return logits


def scores(maps, ids, window):
    n = len(ids)
    half = n // 2
    twice = n % 2 == 0 and ids[:half] == ids[half:]
    rows = []
    for layer in maps:
        for weights in layer:
            seen = [range(0 if window is None else max(0, i + 1 - window), i + 1) for i in range(n)]
            received = []
            for j in range(n):
                queries = [i for i in range(n) if j in seen[i]]
                received.append((np.mean(weights[queries, j]), len(queries)))
            most = max(count for _, count in received)
            entropies = []
            for i in range(1, n):
                p = weights[i, seen[i].start:i + 1]
                p = p[p > 0]
                if len(seen[i]) > 1:
                    entropies.append(-(p * np.log(p)).sum() / np.log(len(seen[i])))
            far = [i for i in range(n) if len(seen[i]) > NEAR]
            second = range(half, n)
            rows.append([
                np.mean([weights[i, i - 1] for i in range(1, n)]),
                np.mean([weights[i, i - half] for i in second]) if twice else np.nan,
                np.mean([weights[i, i - half + 1] for i in second]) if twice else np.nan,
                received[0][0],
                np.mean(np.diagonal(weights)),
                np.mean([weights[i, max(0, i + 1 - NEAR):i + 1].sum() for i in far]) if far else np.nan,
                np.mean(entropies),
                np.mean([sum(weights[i, j] * (i - j) for j in range(i + 1)) for i in range(n)]),
                max(mean for mean, count in received if 2 * count >= most),
            ])
    return np.array(rows)


def rollout(maps):
    rolled = np.eye(maps[0].shape[1])
    for layer in maps:
        rolled = (0.5 * layer.mean(0) + 0.5 * np.eye(len(rolled))) @ rolled
    return rolled


def jensen_shannon(p, q):
    """Of rows, in bits."""
    p, q = p / p.sum(-1, keepdims=True), q / q.sum(-1, keepdims=True)
    m = 0.5 * (p + q)
    def divergence(a):
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(a > 0, a * np.log2(a / m), 0.0).sum(-1)
    return 0.5 * divergence(p) + 0.5 * divergence(q)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--ids", required=True)
    parser.add_argument("--vocabulary-step", type=int, default=1)
    parser.add_argument("--value-layers", default="")
    parser.add_argument("--other", type=pathlib.Path)
    parser.add_argument("--ablate", nargs="*", default=[])
    args = parser.parse_args()
    ids = [int(token) for token in args.ids.split(",")]
    model = load(args.checkpoint)
    parts, values = Parts(model), []
    _, maps = run(model, ids, values)
    tensors = {
        "input_ids": torch.tensor(ids),
        "scores": torch.from_numpy(scores(maps, ids, parts.window)),
        "rollout": torch.from_numpy(rollout(maps)).float(),
    }
    for layer in (int(layer) for layer in args.value_layers.split(",") if layer):
        weighted = np.zeros_like(maps[layer])
        for head in range(parts.heads):
            added = values[layer][:, head].numpy() @ parts.output_weight(layer, head).detach().numpy().T
            for i in range(len(ids)):
                weighted[head, i] = np.linalg.norm(maps[layer][head, i, :, None] * added, axis=1)
        tensors[f"value_weighted.{layer}"] = torch.from_numpy(weighted).float()
    if args.other:
        _, others = run(load(args.other), ids)
        found = [jensen_shannon(a, b).mean(-1) for a, b in zip(maps, others, strict=True)]
        tensors["divergence"] = torch.from_numpy(np.concatenate(found))
    for number, silenced in enumerate(args.ablate):
        logits = ablated(model, ids, silenced)[:, ::args.vocabulary_step]
        tensors[f"ablate.{number}"] = torch.tensor(list(silenced.encode()), dtype=torch.uint8)
        tensors[f"ablate.{number}.logits"] = logits.contiguous()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, args.out)


if __name__ == "__main__":
    main()
