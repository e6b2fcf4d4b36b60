"""What is measured about a model: bits a byte on stories, and how far each head is a previous-token or induction head.

`train.py` watches these while it trains; `evaluate.py` gives the final figures.
"""
import math

import torch


@torch.no_grad()
def story_loss(model, tokenizer, texts, limit=1024):
    """Bits a byte over texts, each read alone after one end token. `model` maps ids [1, n] to logits."""
    nats = size = 0
    for text in texts:
        ids = torch.tensor([[0] + tokenizer.encode(text).ids])[:, :limit]
        logits = model(ids)
        logits = getattr(logits, "logits", logits)[0, :-1].float()
        nats += torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum").item()
        size += len(text.encode())
    return nats / math.log(2) / size


@torch.no_grad()
def head_scores(model, seeds=20, n=40, vocab=4096):
    """Two tables [layer, head]: mean weight on the previous token, and on the token after the earlier copy.

    `n` random ordinary tokens, twice, nothing before them; averaged over the seeds. `model(ids, weights=[])` fills the
    list with one [1, heads, queries, keys] matrix a layer, or it is a Transformers model with eager attention.
    """
    previous, induction = 0, 0
    for seed in range(seeds):
        g = torch.Generator().manual_seed(seed)
        half = torch.randint(1, vocab, (n,), generator=g)
        ids = torch.cat([half, half])[None]
        if hasattr(model, "generate"):
            layers = model(ids, output_attentions=True).attentions
        else:
            layers = []
            model(ids, weights=layers)
        a = torch.stack([x[0] for x in layers])
        i = torch.arange(1, 2 * n)
        previous = previous + a[:, :, i, i - 1].mean(-1) / seeds
        i = torch.arange(n, 2 * n)
        induction = induction + a[:, :, i, i - n + 1].mean(-1) / seeds
    return previous, induction
