#!/usr/bin/env python3
"""Times Hugging Face Transformers on the CPU, in the manner of llama-bench.

    transformers_peer.py -m FOLDER -p 512 -n 128 -r 5 -t 2 [--maps]

`pp512` is one forward call on 512 tokens with an empty cache, logits of the last token alone; `tg128` is 128 forward
calls on one token each. Attention is PyTorch's fused one ("sdpa"); with `--maps` it is "eager", and every call returns
all attention maps, which are dropped.
"""

import time

import torch
from timing import arguments, measure, random_tokens
from transformers import AutoModelForCausalLM, DynamicCache


def main():
    parser = arguments(__doc__.splitlines()[0], ["f32"])
    parser.add_argument("--maps", action="store_true", help="output_attentions")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = AutoModelForCausalLM.from_pretrained(
        options.model, dtype=torch.float32, attn_implementation="eager" if options.maps else "sdpa"
    ).eval()

    @torch.inference_mode()
    def forward(count, chunk):
        tokens = torch.tensor([random_tokens(count, model.config.vocab_size)])
        cache = DynamicCache(config=model.config)
        started = time.perf_counter()
        for piece in tokens.split(chunk, dim=1):
            result = model(piece, past_key_values=cache, logits_to_keep=1, output_attentions=options.maps)
        seconds = time.perf_counter() - started
        assert not options.maps or len(result.attentions) == model.config.num_hidden_layers
        return count / seconds

    measure(
        options,
        lambda count: forward(count, count),
        lambda count: forward(count, 1),
        suffix=" with maps" if options.maps else "",
    )


if __name__ == "__main__":
    main()
