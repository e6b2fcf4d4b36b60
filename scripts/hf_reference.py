#!/usr/bin/env python3
"""Reference answers from Hugging Face Transformers (eager attention, float32, CPU).

    scripts/hf_reference.py tiny FAMILY OUT_DIR [--seed N]     a small random checkpoint of that family
    scripts/hf_reference.py answers CHECKPOINT OUT_FILE [--tokens 1,2,3] [--new 16]

It needs the Python packages torch, transformers, safetensors and numpy (scripts/make-fixtures installs them).

`tiny` writes config.json + model.safetensors (a few hundred KB). `answers` writes one safetensors file:
  input_ids         i64 [tokens]                      the prompt
  logits            f32 [tokens, vocab]               of the prompt, one full pass
  attention.LAYER   f32 [heads, tokens, tokens]       softmax weights, row = query, column = key
  greedy_ids        i64 [new]                         greedy continuation with the key/value cache
  step_attention.STEP.LAYER f32 [heads, keys]         the row that each generated step attended with
"""
import argparse
import pathlib

import torch
import transformers
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

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
    "distilbert": ("DistilBertConfig", dict(vocab_size=256, dim=64, hidden_dim=96, n_layers=3, n_heads=4,
                                            max_position_embeddings=128)),
}


def tiny(args):
    class_name, options = (FAMILIES | ENCODERS)[args.family]
    torch.manual_seed(args.seed)
    config = getattr(transformers, class_name)(**(NO_SPECIAL | options))
    kind = AutoModel if args.family in ENCODERS else AutoModelForCausalLM
    model = kind.from_config(config)
    for name, parameter in model.named_parameters():
        # random norms and biases too: left at one and zero they would hide a swapped or missing one
        with torch.no_grad():
            if parameter.dim() == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
            else:
                parameter.mul_(3.0)
    model.save_pretrained(args.out)


def prompt(args, vocab):
    ids = [int(t) for t in args.tokens.split(",")] if args.tokens else [(7 * i * i + 3 * i + 1) % vocab for i in range(24)]
    return torch.tensor([ids])


def encoder_answers(args):
    model = AutoModel.from_pretrained(args.checkpoint, dtype=torch.float32, attn_implementation="eager").eval()
    ids = prompt(args, model.config.vocab_size)
    with torch.inference_mode():
        full = model(ids, output_attentions=True)
    out = {"input_ids": ids[0].clone(), "hidden": full.last_hidden_state[0].clone()}
    out |= {f"attention.{layer}": weights[0].clone() for layer, weights in enumerate(full.attentions)}
    save_file({k: v.contiguous() for k, v in out.items()}, args.out)


def answers(args):
    config = AutoConfig.from_pretrained(args.checkpoint)
    if config.model_type in ENCODERS:
        return encoder_answers(args)
    model = AutoModelForCausalLM.from_pretrained(args.checkpoint, dtype=torch.float32, attn_implementation="eager")
    model.eval()
    ids = prompt(args, model.config.get_text_config().vocab_size)
    out = {"input_ids": ids[0].clone()}
    with torch.inference_mode():
        full = model(ids, output_attentions=True, use_cache=False)
        out["logits"] = full.logits[0].float().clone()
        for layer, weights in enumerate(full.attentions):
            out[f"attention.{layer}"] = weights[0].float().clone()
        step = model(ids, use_cache=True, output_attentions=True)
        greedy = []
        for number in range(args.new):
            token = step.logits[:, -1].argmax(-1, keepdim=True)
            greedy.append(int(token))
            step = model(token, past_key_values=step.past_key_values, use_cache=True, output_attentions=True)
            for layer, weights in enumerate(step.attentions):
                out[f"step_attention.{number}.{layer}"] = weights[0, :, -1].float().clone()
    out["greedy_ids"] = torch.tensor(greedy)
    save_file({k: v.contiguous() for k, v in out.items()}, args.out)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("tiny")
    command.add_argument("family", choices=sorted(FAMILIES | ENCODERS))
    command.add_argument("out", type=pathlib.Path)
    command.add_argument("--seed", type=int, default=0)
    command.set_defaults(run=tiny)
    command = commands.add_parser("answers")
    command.add_argument("checkpoint", type=pathlib.Path)
    command.add_argument("out", type=pathlib.Path)
    command.add_argument("--tokens")
    command.add_argument("--new", type=int, default=16)
    command.set_defaults(run=answers)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
