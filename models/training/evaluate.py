"""Last step: the figures of the model card, from a finished folder and the data of `prepare.py`.

    python evaluate.py MODEL_DIR DATA [--samples 20] [--no-ngram]

Loads the folder with Transformers in f32; prints the loss on the held-out sampled stories in bits a byte, that of
5-gram models of the same training text, the score of every head, and samples at the settings of the folder.
"""
import argparse
import json
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
from tokenizers import Tokenizer

from ngram import KneserNey
from scores import head_scores, story_loss

PROMPTS = ["Once upon a time"] * 10 + [
    "Once upon a time, there was a little girl named Lily", "Once upon a time, in the forest, there lived",
    "One sunny morning", "There once was a tiny mouse", "Long ago, by the sea,", "Tom was a kind little boy",
    "There was once a clever fox", "Once upon a time, a young dragon named Ember", "Many years ago, a small owl",
    "Max was a little dog who lived on a farm."]


def documents(path):
    f = np.load(path)
    ids, starts = f["ids"], f["starts"]
    return [ids[a:b - 1] for a, b in zip(starts, starts[1:])]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("model", type=Path)
    p.add_argument("data", type=Path)
    p.add_argument("--samples", type=int, default=20)
    p.add_argument("--no-ngram", action="store_true")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--threads", type=int, default=2)
    a = p.parse_args()
    torch.set_num_threads(a.threads)
    tok = Tokenizer.from_file(str(a.model / "tokenizer.json"))
    model = AutoModelForCausalLM.from_pretrained(a.model, dtype=torch.float32, attn_implementation="eager").eval()
    print(f"{sum(q.numel() for q in model.parameters())} parameters, "
          f"{sum(f.stat().st_size for f in a.model.iterdir())} bytes")
    held = [json.loads(line) for line in open(a.data / "heldout.jsonl")]
    sets = {"all held-out stories": [r["text"] for r in held],
            "held-out stories that pass the filter": [r["text"] for r in held if r["fit"]]}
    for name, texts in sets.items():
        print(f"model, {name} ({len(texts)}): {story_loss(model, tok, texts):.4f} bits a byte", flush=True)
    if not a.no_ngram:
        parts = {k: documents(a.data / f"{k}.npz") for k in ("grammar", "stories", "shakespeare", "renamed")}
        text = lambda docs: [list(tok.decode(d.tolist()).encode()) for d in docs]
        mixes = {"5-gram, all training text": ("grammar", "stories", "shakespeare"),
                 "5-gram, all training text with the renamed copies": tuple(parts), "5-gram, sampled stories only": ("stories",)}
        for label, names in mixes.items():
            lm = KneserNey([d for n in names for d in parts[n]], 4096)
            for name, texts in sets.items():
                bits = lm.bits([tok.encode(t).ids for t in texts]) / sum(len(t.encode()) for t in texts)
                print(f"{label}, {name}: {bits:.4f} bits a byte", flush=True)
        lm = KneserNey(text([d for n in ("grammar", "stories", "shakespeare") for d in parts[n]]), 256)
        for name, texts in sets.items():
            print(f"byte 5-gram, {name}: {lm.bits([list(t.encode()) for t in texts]) / sum(len(t.encode()) for t in texts):.4f}")
    for name, table in zip(("previous token", "induction"), head_scores(model)):
        print(f"{name} scores, a layer a line")
        for row in table:
            print("  " + " ".join(f"{x:.2f}" for x in row))
        best = sorted(((x.item(), f"{i}.{j}") for i, row in enumerate(table) for j, x in enumerate(row)), reverse=True)[:4]
        print("  best: " + ", ".join(f"{n} {x:.3f}" for x, n in best), flush=True)
    fast = PreTrainedTokenizerFast(tokenizer_file=str(a.model / "tokenizer.json"))
    for i, prompt in enumerate(PROMPTS[:a.samples]):
        torch.manual_seed(a.seed * 1000 + i)
        ids = torch.tensor([tok.encode(prompt).ids])
        out = model.generate(ids, attention_mask=torch.ones_like(ids))[0].tolist()
        ended = out[-1] == 0
        print(f"\n--- sample {i + 1} (seed {a.seed * 1000 + i}), {len(out)} tokens{'' if ended else ', not ended'}\n"
              + fast.decode([t for t in out if t]), flush=True)


if __name__ == "__main__":
    main()
