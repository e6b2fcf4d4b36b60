#!/usr/bin/env python3
"""Reference answers from Hugging Face Transformers (eager attention, float32, CPU).

    scripts/hf_reference.py tiny NAME OUT_DIR [--seed N]       a small random checkpoint of a family or variant
    scripts/hf_reference.py answers CHECKPOINT OUT_FILE [--tokens 1,2,3 | --text TEXT] [--new 16]
    scripts/hf_reference.py batch OUT_DIR NAME[:SEED] ...      both, in OUT_DIR/NAME[-SEED], all in one process
    scripts/hf_reference.py list                               the families, a line each: FAMILIES and ENCODERS
    scripts/hf_reference.py variants                           the variants, a line each: VARIANTS

It needs the Python packages torch, transformers, safetensors and numpy (scripts/make-fixtures and
scripts/check-families install them).

`tiny` writes config.json + model.safetensors (a few hundred KB). `answers` writes one safetensors file:
  input_ids         i64 [tokens]                      the prompt
  logits            f32 [tokens, vocab]               of the prompt, one full pass
  attention.LAYER   f32 [heads, tokens, tokens]       softmax weights, row = query, column = key
  greedy_ids        i64 [new]                         greedy continuation with the key/value cache
  step_attention.STEP.LAYER f32 [heads, keys]         the row that each generated step attended with
For an encoder, instead of logits and steps:
  hidden            f32 [tokens, hidden]              of the last layer
and with --text:
  text              u8 [bytes]                        what input_ids are of

The continuation is `generate`'s, so that models which rearrange their cache while they generate do so: where Phi-3
with longrope first reads a text longer than original_max_position_embeddings, Transformers drops the cache and reads
the whole text again with the long factors; that step's row is the last of the new maps. Dynamic rope keeps its cache:
each step past max_position_embeddings turns its own query and key by the frequencies of the length so far, and older
keys keep the turn that they had. Falcon's ALiBi, which its eager path counts twice, is counted once, as in its sdpa
path.
"""
import argparse
import itertools
import json
import pathlib
import shutil
from collections.abc import Callable
from typing import NamedTuple

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

SMALL = dict(vocab_size=256, hidden_size=64, intermediate_size=96, num_hidden_layers=3,
             num_attention_heads=4, max_position_embeddings=128)
GQA = dict(num_key_value_heads=2)
NO_SPECIAL = dict(bos_token_id=None, eos_token_id=None, pad_token_id=None)

FAMILIES = {
    "llama": ("LlamaConfig", SMALL | GQA),
    "llama3_scaled": ("LlamaConfig", SMALL | GQA | dict(rope_theta=10000.0, rope_scaling=dict(
        rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
        original_max_position_embeddings=32), tie_word_embeddings=True)),
    "gpt2": ("GPT2Config", dict(vocab_size=256, n_embd=64, n_layer=3, n_head=4, n_positions=128)),
    "gpt_neox": ("GPTNeoXConfig", SMALL | dict(rotary_pct=0.25)),
    "mistral": ("MistralConfig", SMALL | GQA | dict(sliding_window=8)),
    "qwen2": ("Qwen2Config", SMALL | GQA),
    "qwen3": ("Qwen3Config", SMALL | GQA | dict(head_dim=32)),
    "gemma": ("GemmaConfig", SMALL | dict(num_key_value_heads=1, head_dim=32)),
    "gemma2": ("Gemma2Config", SMALL | GQA | dict(head_dim=32, sliding_window=8)),
    "gemma3_text": ("Gemma3TextConfig", SMALL | GQA | dict(head_dim=32, sliding_window=8, num_hidden_layers=7)),
    "phi": ("PhiConfig", SMALL | dict(partial_rotary_factor=0.5)),
    "phi3": ("Phi3Config", SMALL | GQA),
    "olmo2": ("Olmo2Config", SMALL | GQA),
    "smollm3": ("SmolLM3Config", SMALL | GQA | dict(num_hidden_layers=5)),
    "granite": ("GraniteConfig", SMALL | GQA | dict(
        embedding_multiplier=12.0, attention_multiplier=0.1, residual_multiplier=0.22, logits_scaling=8.0)),
    "stablelm": ("StableLmConfig", SMALL | GQA | dict(partial_rotary_factor=0.25)),
    "starcoder2": ("Starcoder2Config", SMALL | GQA | dict(sliding_window=8)),
    "qwen3_moe": ("Qwen3MoeConfig", SMALL | GQA | dict(
        head_dim=32, num_experts=8, num_experts_per_tok=2, moe_intermediate_size=48)),
    "mixtral": ("MixtralConfig", SMALL | GQA | dict(num_local_experts=4, num_experts_per_tok=2)),
    "llama_linear": ("LlamaConfig", SMALL | GQA | dict(rope_scaling=dict(rope_type="linear", factor=4.0))),
    # the prompt alone is longer than 16
    "llama_dynamic": ("LlamaConfig", SMALL | GQA | dict(max_position_embeddings=16, rope_scaling=dict(
        rope_type="dynamic", factor=4.0))),
    "llama_yarn": ("LlamaConfig", SMALL | GQA | dict(rope_scaling=dict(
        rope_type="yarn", factor=4.0, original_max_position_embeddings=32))),
    "llama_biased": ("LlamaConfig", SMALL | GQA | dict(attention_bias=True, mlp_bias=True, head_dim=24)),
    "phi3_longrope": ("Phi3Config", SMALL | GQA | dict(original_max_position_embeddings=16, rope_scaling=dict(
        rope_type="longrope", short_factor=[1.0 + 0.1 * i for i in range(8)],
        long_factor=[1.0 + 0.5 * i for i in range(8)]))),
    "olmo": ("OlmoConfig", SMALL | GQA | dict(clip_qkv=2.0)),
    "gptj": ("GPTJConfig", dict(vocab_size=256, n_embd=64, n_layer=3, n_head=4, n_positions=128, rotary_dim=8)),
    "opt": ("OPTConfig", dict(vocab_size=256, hidden_size=64, ffn_dim=96, num_hidden_layers=3, num_attention_heads=4,
                              max_position_embeddings=128, word_embed_proj_dim=64)),
    "falcon": ("FalconConfig", dict(vocab_size=256, hidden_size=64, num_hidden_layers=3, num_attention_heads=4,
                                    multi_query=True, parallel_attn=True, alibi=False, bias=False)),
    "falcon_new": ("FalconConfig", dict(vocab_size=256, hidden_size=64, num_hidden_layers=3, num_attention_heads=4,
                                        num_kv_heads=2, new_decoder_architecture=True, alibi=False)),
    "bloom": ("BloomConfig", dict(vocab_size=256, hidden_size=64, n_layer=3, n_head=4)),
    "gpt_neo": ("GPTNeoConfig", dict(vocab_size=256, hidden_size=64, num_layers=4, num_heads=4, window_size=8,
                                     attention_types=[[["global", "local"], 2]], max_position_embeddings=128)),
    "qwen2_moe": ("Qwen2MoeConfig", SMALL | GQA | dict(
        num_experts=6, num_experts_per_tok=2, moe_intermediate_size=48, shared_expert_intermediate_size=64)),
}
# encoders: every token sees every token; `answers` has their maps and last hidden states, no logits or steps
ENCODERS = {
    "bert": ("BertConfig", SMALL),
    "roberta": ("RobertaConfig", SMALL | dict(pad_token_id=1)),
    "xlm_roberta": ("XLMRobertaConfig", SMALL | dict(pad_token_id=1, type_vocab_size=1)),
    "distilbert": ("DistilBertConfig", dict(vocab_size=256, dim=64, hidden_dim=96, n_layers=3, n_heads=4,
                                            max_position_embeddings=128)),
}


class Variant(NamedTuple):
    """A family with options turned, or its files written as older checkpoints have them."""
    family: str
    # over those of the family
    options: dict = {}
    # written over config.json afterwards, before the answers are made; None takes a field out
    config: dict = {}
    # tensors as the file has them -> tensors as it shall have them
    tensors: Callable[[dict], dict] | None = None
    tokens: list[int] | None = None


def without(prefix):
    """Saved without the head: the base model's own names."""
    return lambda tensors: {name.removeprefix(prefix): tensor for name, tensor in tensors.items()
                            if not name.startswith("lm_head.")}


def with_head(embedding):
    """The head saved too, though it is the embedding."""
    return lambda tensors: tensors | {"lm_head.weight": tensors[embedding].clone()}


def with_another_head(embedding):
    """A head saved that is not the embedding, against what the config says: Transformers believes the file."""
    return lambda tensors: tensors | {"lm_head.weight": tensors[embedding].flip(0).contiguous()}


def buffers(module, *names):
    """Buffers saved beside the weights, as early Transformers did, in every layer's module."""
    values = {"bias": torch.ones(128, 128, dtype=torch.uint8).tril()[None, None], "masked_bias": torch.tensor(-1e9),
              "rotary_emb.inv_freq": torch.ones(8)}
    return lambda tensors: tensors | {
        f"{module % layer}.{name}": values[name].clone() for layer in range(3) for name in names}


def named_as_tensorflow(prefix):
    """The head's model with a norm's weight and bias named as the first BERT's."""
    rename = lambda name: prefix + name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
        "LayerNorm.bias", "LayerNorm.beta")
    return lambda tensors: {rename(name): tensor for name, tensor in tensors.items()} | {
        "cls.predictions.bias": torch.zeros(256), prefix + "embeddings.position_ids": torch.arange(128).view(1, -1)}


def under(prefix):
    """Saved with some head: the base model's names behind its prefix."""
    return lambda tensors: {prefix + name: tensor for name, tensor in tensors.items()}


def rope(**scaling):
    return dict(rope_scaling=scaling)


LONGROPE = dict(rope_type="longrope", short_factor=[1.0 + 0.1 * i for i in range(8)],
                long_factor=[1.0 + 0.5 * i for i in range(8)])
WINDOW = dict(use_sliding_window=True, sliding_window=8)
TIED = dict(tie_word_embeddings=True)
UNTIED = dict(tie_word_embeddings=False)
ODD = dict(vocab_size=131, hidden_size=60, intermediate_size=75, num_attention_heads=3, max_position_embeddings=41)
# longer than the kernels' blocks of queries and keys
LONG = [(11 * i * i + 5 * i + 2) % 253 + 2 for i in range(100)]

VARIANTS = {
    "llama_tied": Variant("llama", TIED),
    "llama_head_dim": Variant("llama", dict(head_dim=24)),
    "llama_all_heads": Variant("llama", dict(num_key_value_heads=4)),
    "llama_one_key_head": Variant("llama", dict(num_key_value_heads=1)),
    "llama_odd_sizes": Variant("llama", ODD | dict(num_key_value_heads=1)),
    "llama_attention_bias": Variant("llama", dict(attention_bias=True)),
    "llama_mlp_bias": Variant("llama", dict(mlp_bias=True)),
    "llama_dynamic_crossing": Variant("llama_dynamic", dict(max_position_embeddings=32)),
    "llama_dynamic_short": Variant("llama_dynamic", dict(max_position_embeddings=128)),
    "llama_linear_old_config": Variant("llama_linear", {}, dict(
        rope_parameters=None, rope_theta=10000.0, rope_scaling=dict(type="linear", factor=4.0))),
    "llama_dynamic_old_config": Variant("llama_dynamic", {}, dict(
        rope_parameters=None, rope_theta=10000.0, rope_scaling=dict(type="dynamic", factor=4.0))),
    "llama_yarn_old_config": Variant("llama_yarn", {}, dict(
        rope_parameters=None, rope_theta=10000.0,
        rope_scaling=dict(type="yarn", factor=4.0, original_max_position_embeddings=32))),
    "llama_yarn_no_original": Variant("llama_yarn", rope(rope_type="yarn", factor=4.0)),
    "llama_yarn_attention_factor": Variant("llama_yarn", rope(
        rope_type="yarn", factor=4.0, original_max_position_embeddings=32, attention_factor=1.3)),
    "llama_yarn_mscale": Variant("llama_yarn", rope(
        rope_type="yarn", factor=4.0, original_max_position_embeddings=32, mscale=0.7, mscale_all_dim=1.2)),
    "llama_yarn_beta": Variant("llama_yarn", rope(
        rope_type="yarn", factor=4.0, original_max_position_embeddings=32, beta_fast=4.0, beta_slow=0.5)),
    "llama_yarn_not_truncated": Variant("llama_yarn", rope(
        rope_type="yarn", factor=4.0, original_max_position_embeddings=32, beta_fast=4.0, truncate=False)),
    "llama_yarn_null_truncate": Variant("llama_yarn", {}, dict(rope_parameters=dict(
        rope_type="yarn", rope_theta=10000.0, factor=4.0, original_max_position_embeddings=32, beta_fast=4.0,
        truncate=None))),
    "llama_inv_freq": Variant("llama", tensors=buffers("model.layers.%d.self_attn", "rotary_emb.inv_freq")),
    "mistral_no_window": Variant("mistral", dict(sliding_window=None)),
    # 1 would not do: Transformers' cache then keeps every key
    "mistral_window_of_two": Variant("mistral", dict(sliding_window=2)),
    "mistral_wide_window": Variant("mistral", dict(sliding_window=33, head_dim=24)),
    "mistral_long_text": Variant("mistral", dict(sliding_window=37), tokens=LONG),
    "mistral_tied": Variant("mistral", TIED),
    "mixtral_window": Variant("mixtral", dict(sliding_window=8)),
    "mixtral_one_expert": Variant("mixtral", dict(num_experts_per_tok=1)),
    "mixtral_all_experts": Variant("mixtral", dict(num_experts_per_tok=4, head_dim=24)),
    "mixtral_long_text": Variant("mixtral", dict(sliding_window=37), tokens=LONG),
    "mixtral_tied": Variant("mixtral", TIED),
    "qwen2_tied": Variant("qwen2", TIED),
    "qwen2_window": Variant("qwen2", WINDOW | dict(max_window_layers=1)),
    "qwen2_yarn": Variant("qwen2", rope(rope_type="yarn", factor=4.0, original_max_position_embeddings=32)),
    "qwen2_old_config": Variant("qwen2", {}, dict(rope_parameters=None, rope_theta=1e6, layer_types=None)),
    "qwen3_tied": Variant("qwen3", TIED),
    "qwen3_bias": Variant("qwen3", dict(attention_bias=True)),
    "qwen3_window": Variant("qwen3", WINDOW | dict(max_window_layers=2)),
    "qwen2_moe_dense_layers": Variant("qwen2_moe", dict(mlp_only_layers=[1])),
    "qwen2_moe_sparse_step": Variant("qwen2_moe", dict(decoder_sparse_step=2)),
    "qwen2_moe_long_text": Variant("qwen2_moe", tokens=LONG),
    "qwen2_moe_norm": Variant("qwen2_moe", dict(norm_topk_prob=True, num_experts_per_tok=3)),
    "qwen2_moe_no_bias": Variant("qwen2_moe", TIED | dict(qkv_bias=False)),
    "qwen2_moe_window": Variant("qwen2_moe", WINDOW | dict(max_window_layers=2)),
    "qwen2_moe_shared_expert": Variant("qwen2_moe", dict(shared_expert_intermediate_size=40, num_experts_per_tok=1)),
    "qwen3_moe_dense_layers": Variant("qwen3_moe", dict(mlp_only_layers=[0, 2])),
    "qwen3_moe_sparse_step": Variant("qwen3_moe", dict(decoder_sparse_step=3)),
    "qwen3_moe_norm": Variant("qwen3_moe", dict(norm_topk_prob=True, num_experts_per_tok=3)),
    "qwen3_moe_bias": Variant("qwen3_moe", TIED | dict(attention_bias=True, num_experts_per_tok=1)),
    "qwen3_moe_yarn": Variant("qwen3_moe", rope(rope_type="yarn", factor=4.0, original_max_position_embeddings=32)),
    "qwen3_moe_old_config": Variant("qwen3_moe", {}, dict(
        rope_parameters=None, rope_theta=1e6, num_local_experts=None, num_experts=8)),
    "qwen3_moe_window": Variant("qwen3_moe", WINDOW),
    "gemma_untied": Variant("gemma", UNTIED | dict(attention_bias=True)),
    "gemma2_bias": Variant("gemma2", dict(attention_bias=True)),
    "gemma3_text_bias": Variant("gemma3_text", dict(attention_bias=True)),
    "gemma_gelu": Variant("gemma", dict(hidden_act="gelu")),
    "gemma2_gelu": Variant("gemma2", dict(hidden_activation="gelu")),
    "gemma3_text_gelu": Variant("gemma3_text", dict(hidden_activation="gelu")),
    "gemma2_no_capping": Variant("gemma2", dict(attn_logit_softcapping=None, final_logit_softcapping=None,
                                                query_pre_attn_scalar=32)),
    "gemma2_long_text": Variant("gemma2", tokens=LONG),
    "gemma2_low_capping": Variant("gemma2", dict(attn_logit_softcapping=2.0, final_logit_softcapping=3.0)),
    # no attn_logit_softcapping, which Transformers reads and does not use here
    "gemma3_text_capping": Variant("gemma3_text", dict(final_logit_softcapping=3.0)),
    "gemma3_text_old_config": Variant("gemma3_text", {}, dict(
        rope_parameters=None, layer_types=None, rope_theta=1e6, rope_local_base_freq=10000.0,
        sliding_window_pattern=6, rope_scaling=dict(rope_type="linear", factor=8.0))),
    "phi_norm": Variant("phi", dict(qk_layernorm=True)),
    "phi_grouped": Variant("phi", GQA),
    "phi_quarter": Variant("phi", dict(partial_rotary_factor=0.25, hidden_act="relu")),
    "phi_whole": Variant("phi", TIED | dict(partial_rotary_factor=1.0)),
    "phi_yarn": Variant("phi", rope(
        rope_type="yarn", factor=4.0, original_max_position_embeddings=32, partial_rotary_factor=0.5)),
    "phi_old_config": Variant("phi", {}, dict(rope_parameters=None, rope_theta=10000.0, partial_rotary_factor=0.4)),
    "phi3_window": Variant("phi3", dict(sliding_window=8)),
    "phi3_partial": Variant("phi3", TIED | dict(partial_rotary_factor=0.5)),
    "phi3_all_heads": Variant("phi3", dict(num_key_value_heads=4)),
    "phi3_longrope_crossing": Variant("phi3_longrope", dict(
        original_max_position_embeddings=32, rope_scaling=LONGROPE)),
    "phi3_longrope_from_the_first_step": Variant("phi3_longrope", dict(
        original_max_position_embeddings=24, rope_scaling=LONGROPE)),
    "phi3_longrope_short": Variant("phi3_longrope", dict(
        original_max_position_embeddings=64, rope_scaling=LONGROPE)),
    "phi3_longrope_attention_factor": Variant("phi3_longrope", dict(
        rope_scaling=LONGROPE | dict(attention_factor=1.25))),
    # as Phi-3's first configs said it
    "phi3_longrope_yarn": Variant("phi3_longrope", {}, dict(
        rope_parameters=None, rope_theta=10000.0, rope_scaling=dict(
            type="yarn", short_factor=LONGROPE["short_factor"], long_factor=LONGROPE["long_factor"]))),
    "phi3_longrope_partial": Variant("phi3_longrope", dict(
        partial_rotary_factor=0.5, rope_scaling=LONGROPE | dict(
            short_factor=LONGROPE["short_factor"][:4], long_factor=LONGROPE["long_factor"][:4]))),
    "phi3_longrope_old_config": Variant("phi3_longrope", {}, dict(
        rope_parameters=None, rope_theta=10000.0, rope_scaling=dict(
            type="longrope", short_factor=LONGROPE["short_factor"], long_factor=LONGROPE["long_factor"]))),
    "gpt2_inverse_layer": Variant("gpt2", dict(scale_attn_by_inverse_layer_idx=True)),
    "gpt2_unscaled": Variant("gpt2", dict(scale_attn_weights=False)),
    "gpt2_upcast": Variant("gpt2", dict(reorder_and_upcast_attn=True, scale_attn_by_inverse_layer_idx=True)),
    "gpt2_inner": Variant("gpt2", dict(n_inner=100, activation_function="relu")),
    "gpt2_gelu": Variant("gpt2", UNTIED | dict(activation_function="gelu")),
    "gpt2_stored_head": Variant("gpt2", tensors=with_head("transformer.wte.weight")),
    "gpt2_another_head": Variant("gpt2", tensors=with_another_head("transformer.wte.weight")),
    "gpt2_odd_sizes": Variant("gpt2", dict(vocab_size=131, n_embd=60, n_head=3, n_positions=41)),
    "gpt2_base": Variant("gpt2", tensors=lambda tensors: without("transformer.")(
        buffers("transformer.h.%d.attn", "bias")(tensors))),
    "gpt_neox_sequential": Variant("gpt_neox", dict(use_parallel_residual=False)),
    "gpt_neox_no_bias": Variant("gpt_neox", dict(attention_bias=False)),
    "gpt_neox_whole": Variant("gpt_neox", TIED | dict(rotary_pct=1.0)),
    "gpt_neox_gelu_new": Variant("gpt_neox", dict(hidden_act="gelu_new")),
    "gpt_neox_relu": Variant("gpt_neox", dict(hidden_act="relu")),
    "gpt_neox_linear": Variant("gpt_neox", rope(rope_type="linear", factor=4.0)),
    "gpt_neox_dynamic": Variant("gpt_neox", dict(rotary_pct=0.5, max_position_embeddings=16) | rope(
        rope_type="dynamic", factor=4.0)),
    "gpt_neox_old_config": Variant("gpt_neox", {}, dict(rope_parameters=None, rotary_pct=0.5, rotary_emb_base=5000)),
    "gpt_neox_buffers": Variant("gpt_neox", tensors=buffers(
        "gpt_neox.layers.%d.attention", "bias", "masked_bias", "rotary_emb.inv_freq")),
    "olmo_no_clip": Variant("olmo", dict(clip_qkv=None)),
    "olmo_tight_clip": Variant("olmo", TIED | dict(clip_qkv=0.5)),
    "olmo_bias": Variant("olmo", dict(attention_bias=True)),
    "olmo2_bias": Variant("olmo2", dict(attention_bias=True)),
    "olmo2_tied": Variant("olmo2", TIED | dict(num_key_value_heads=4)),
    "gptj_whole": Variant("gptj", dict(rotary_dim=16)),
    "gptj_inner": Variant("gptj", TIED | dict(n_inner=100, activation_function="relu")),
    "gptj_buffers": Variant("gptj", tensors=buffers("transformer.h.%d.attn", "bias", "masked_bias")),
    "stablelm_bias": Variant("stablelm", dict(use_qkv_bias=True)),
    "stablelm_norm": Variant("stablelm", dict(qk_layernorm=True)),
    "stablelm_parallel": Variant("stablelm", dict(use_parallel_residual=True)),
    "stablelm_everything": Variant("stablelm", TIED | dict(
        use_qkv_bias=True, qk_layernorm=True, use_parallel_residual=True, partial_rotary_factor=1.0)),
    "stablelm_long_text": Variant("stablelm", dict(qk_layernorm=True), tokens=LONG),
    "stablelm_linear": Variant("stablelm", rope(rope_type="linear", factor=4.0)),
    "stablelm_old_config": Variant("stablelm", {}, dict(
        rope_parameters=None, rope_theta=5000, partial_rotary_factor=0.5)),
    "starcoder2_no_window": Variant("starcoder2", dict(sliding_window=None)),
    "starcoder2_no_bias": Variant("starcoder2", dict(use_bias=False)),
    "starcoder2_gelu": Variant("starcoder2", dict(hidden_act="gelu")),
    "starcoder2_gelu_new": Variant("starcoder2", dict(hidden_act="gelu_new")),
    "starcoder2_relu": Variant("starcoder2", UNTIED | dict(hidden_act="relu")),
    "opt_350m": Variant("opt", dict(word_embed_proj_dim=32, do_layer_norm_before=False)),
    "opt_projected": Variant("opt", dict(word_embed_proj_dim=32)),
    "opt_norm_after": Variant("opt", dict(do_layer_norm_before=False)),
    "opt_no_bias": Variant("opt", dict(enable_bias=False)),
    "opt_plain_norm": Variant("opt", dict(layer_norm_elementwise_affine=False)),
    "opt_no_final_norm": Variant("opt", dict(_remove_final_layer_norm=True)),
    "opt_base": Variant("opt", tensors=without("model.")),
    "opt_gelu": Variant("opt", UNTIED | dict(activation_function="gelu")),
    "falcon_bias": Variant("falcon", dict(bias=True)),
    "falcon_all_heads": Variant("falcon", dict(multi_query=False)),
    "falcon_sequential": Variant("falcon", dict(parallel_attn=False)),
    "falcon_alibi": Variant("falcon", dict(alibi=True)),
    # slopes that bf16 rounds
    "falcon_alibi_sixteen_heads": Variant("falcon", dict(alibi=True, num_attention_heads=16)),
    "falcon_alibi_six_heads": Variant("falcon", dict(alibi=True, hidden_size=96, num_attention_heads=6)),
    "falcon_rw": Variant("falcon", dict(alibi=True, bias=True, multi_query=False, parallel_attn=False)),
    "falcon_alibi_long_text": Variant("falcon", dict(alibi=True, num_attention_heads=16), tokens=LONG),
    "falcon_inner": Variant("falcon", UNTIED | dict(ffn_hidden_size=100, activation="relu")),
    "falcon_new_one_norm": Variant("falcon_new", dict(num_ln_in_parallel_attn=1)),
    "falcon_new_bias": Variant("falcon_new", dict(bias=True, num_kv_heads=4)),
    "falcon_new_alibi": Variant("falcon_new", dict(alibi=True)),
    "falcon_null_flags": Variant("falcon", dict(multi_query=None, parallel_attn=None, bias=None)),
    "falcon_old_config": Variant("falcon", {}, dict(rope_parameters=None, rope_theta=5000.0)),
    "falcon_linear": Variant("falcon", rope(rope_type="linear", factor=4.0)),
    "falcon_stored_head": Variant("falcon", tensors=with_head("transformer.word_embeddings.weight")),
    "bloom_six_heads": Variant("bloom", dict(hidden_size=96, n_head=6)),
    "bloom_sixteen_heads": Variant("bloom", dict(n_head=16)),
    "bloom_long_text": Variant("bloom", dict(n_head=16), tokens=LONG),
    "bloom_untied": Variant("bloom", UNTIED),
    "bloom_base": Variant("bloom", {}, dict(
        hidden_size=None, n_embed=64, n_head=None, num_attention_heads=4), without("transformer.")),
    "gpt_neo_global": Variant("gpt_neo", dict(attention_types=[[["global"], 4]])),
    "gpt_neo_uneven": Variant("gpt_neo", dict(attention_types=[[["global"], 1], [["local"], 3]], window_size=1)),
    "gpt_neo_long_text": Variant("gpt_neo", tokens=LONG),
    "gpt_neo_inner": Variant("gpt_neo", UNTIED | dict(intermediate_size=100, activation_function="gelu")),
    "gpt_neo_buffers": Variant("gpt_neo", tensors=buffers("transformer.h.%d.attn.attention", "bias", "masked_bias")),
    "smollm3_biases": Variant("smollm3", UNTIED | dict(attention_bias=True, mlp_bias=True)),
    "smollm3_chosen_layers": Variant("smollm3", dict(no_rope_layers=[0, 1, 1, 0, 1])),
    "granite_biases": Variant("granite", TIED | dict(attention_bias=True, mlp_bias=True)),
    "bert_relu": Variant("bert", dict(hidden_act="relu", type_vocab_size=1)),
    "bert_long_text": Variant("bert", tokens=LONG),
    "bert_gelu_new": Variant("bert", dict(hidden_act="gelu_new", layer_norm_eps=1e-5)),
    "bert_odd_sizes": Variant("bert", ODD),
    "bert_masked_language": Variant("bert", tensors=named_as_tensorflow("bert.")),
    "bert_old_config": Variant("bert", {}, dict(position_embedding_type="absolute")),
    "roberta_padded": Variant("roberta", tokens=[0, 7, 9, 1, 20, 33, 1, 1, 8, 2]),
    "roberta_long_text": Variant("roberta", tokens=LONG),
    "roberta_another_pad": Variant("roberta", dict(pad_token_id=5, type_vocab_size=1, hidden_act="gelu_new")),
    "roberta_masked_language": Variant("roberta", tensors=under("roberta.")),
    "xlm_roberta_padded": Variant("xlm_roberta", tokens=[0, 7, 9, 1, 20, 33, 1, 1, 8, 2]),
    "xlm_roberta_masked_language": Variant("xlm_roberta", tensors=under("roberta.")),
    "distilbert_relu": Variant("distilbert", dict(activation="relu")),
    "distilbert_sinusoidal": Variant("distilbert", dict(sinusoidal_pos_embds=True)),
    "distilbert_masked_language": Variant("distilbert", tensors=under("distilbert.")),
}


def tiny(name, out, seed):
    variant = VARIANTS.get(name) or Variant(name)
    class_name, options = (FAMILIES | ENCODERS)[variant.family]
    torch.manual_seed(seed)
    config = getattr(transformers, class_name)(**(NO_SPECIAL | options | variant.options))
    kind = AutoModel if variant.family in ENCODERS else AutoModelForCausalLM
    model = kind.from_config(config)
    for name, parameter in model.named_parameters():
        # random norms and biases too: left at one and zero they would hide a swapped or missing one
        with torch.no_grad():
            if parameter.dim() == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
            else:
                parameter.mul_(3.0)
    model.save_pretrained(out)
    if variant.config:
        file = out / "config.json"
        kept = {key: value for key, value in json.loads(file.read_text()).items() if key not in variant.config}
        written = {key: value for key, value in variant.config.items() if value is not None}
        file.write_text(json.dumps(kept | written, indent=2))
    if variant.tensors:
        file = out / "model.safetensors"
        save_file(variant.tensors(load_file(file)), file, {"format": "pt"})
    return variant.tokens


def prompt(tokens, config):
    # no padding, to which RoBERTa gives no position
    ids = ((7 * i * i + 3 * i + 1) % config.vocab_size for i in itertools.count())
    return torch.tensor([tokens or list(itertools.islice((id for id in ids if id != config.pad_token_id), 24))])


def load(kind, checkpoint):
    model, report = kind.from_pretrained(
        checkpoint, dtype=torch.float32, attn_implementation="eager", output_loading_info=True)
    # what a checkpoint lacks would be random
    if report["missing_keys"]:
        raise SystemExit(f"{checkpoint}: no tensors for {sorted(report['missing_keys'])}")
    if model.config.model_type == "falcon" and model.config.alibi:
        count_alibi_once(model)
    return model.eval()


def count_alibi_once(model):
    """Falcon's mask holds the biases, for the sdpa path; the eager path, the one with maps, adds them again."""
    def without_alibi(module, positional, named):
        return positional, named | {"alibi": torch.zeros_like(named["alibi"])}

    for layer in model.transformer.h:
        layer.self_attention.register_forward_pre_hook(without_alibi, with_kwargs=True)
    sdpa = type(model).from_pretrained(model.name_or_path, dtype=torch.float32, attn_implementation="sdpa").eval()
    ids = prompt(None, model.config)
    with torch.inference_mode():
        torch.testing.assert_close(model.eval()(ids).logits, sdpa(ids).logits, rtol=0.0, atol=1e-5)


def encoder_answers(checkpoint, tokens):
    model = load(AutoModel, checkpoint)
    ids = prompt(tokens, model.config)
    with torch.inference_mode():
        full = model(ids, output_attentions=True)
    out = {"input_ids": ids[0], "hidden": full.last_hidden_state[0]}
    return out | {f"attention.{layer}": weights[0] for layer, weights in enumerate(full.attentions)}


def decoder_answers(checkpoint, tokens, new):
    model = load(AutoModelForCausalLM, checkpoint)
    ids = prompt(tokens, model.config.get_text_config())
    # the likeliest token each time, and no end: nothing of the checkpoint's own generation_config.json
    model.generation_config = GenerationConfig()
    with torch.inference_mode():
        full = model(ids, output_attentions=True, use_cache=False)
        # the last token is fed too, for its rows
        continued = model.generate(ids, do_sample=False, max_new_tokens=new + 1, output_attentions=True,
                                   return_dict_in_generate=True)
    out = {"input_ids": ids[0], "logits": full.logits[0].float()}
    out["greedy_ids"] = continued.sequences[0, ids.shape[1]:-1]
    for layer, weights in enumerate(full.attentions):
        out[f"attention.{layer}"] = weights[0].float()
    for number, step in enumerate(continued.attentions[1:]):
        for layer, weights in enumerate(step):
            out[f"step_attention.{number}.{layer}"] = weights[0, :, -1].float()
    return out


def answers(checkpoint, out, tokens=None, text=None, new=16):
    if text:
        tokens = AutoTokenizer.from_pretrained(checkpoint)(text).input_ids
    if AutoConfig.from_pretrained(checkpoint).model_type.replace("-", "_") in ENCODERS:
        found = encoder_answers(checkpoint, tokens)
    else:
        found = decoder_answers(checkpoint, tokens, new)
    if text:
        found["text"] = torch.tensor(list(text.encode()), dtype=torch.uint8)
    save_file({name: tensor.clone().contiguous() for name, tensor in found.items()}, out)


def batch(out, cases):
    for case in cases:
        name, _, seed = case.partition(":")
        folder = out / case.replace(":", "-")
        part = folder.with_name(folder.name + ".part")
        shutil.rmtree(part, ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)
        tokens = tiny(name, part, int(seed or 0))
        answers(part, part / "answers.safetensors", tokens)
        part.rename(folder)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("tiny")
    command.add_argument("name", choices=sorted(FAMILIES | ENCODERS | VARIANTS), metavar="NAME")
    command.add_argument("out", type=pathlib.Path)
    command.add_argument("--seed", type=int, default=0)
    command.set_defaults(run=lambda args: tiny(args.name, args.out, args.seed))
    command = commands.add_parser("answers")
    command.add_argument("checkpoint", type=pathlib.Path)
    command.add_argument("out", type=pathlib.Path)
    given = command.add_mutually_exclusive_group()
    given.add_argument("--tokens", type=lambda text: [int(id) for id in text.split(",")])
    given.add_argument("--text")
    command.add_argument("--new", type=int, default=16)
    command.set_defaults(run=lambda args: answers(args.checkpoint, args.out, args.tokens, args.text, args.new))
    command = commands.add_parser("batch")
    command.add_argument("out", type=pathlib.Path)
    command.add_argument("cases", nargs="+", metavar="NAME[:SEED]")
    command.set_defaults(run=lambda args: batch(args.out, args.cases))
    command = commands.add_parser("list")
    command.set_defaults(run=lambda args: print(*(FAMILIES | ENCODERS), sep="\n"))
    command = commands.add_parser("variants")
    command.set_defaults(run=lambda args: print(*VARIANTS, sep="\n"))
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
