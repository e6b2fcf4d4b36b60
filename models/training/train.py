"""Third step: train the embedded model on the token files of `prepare.py`.

    python train.py DATA CHECKPOINTS --tokenizer TOKENIZER_DIR --export EXPORT_DIR --minutes 90

Rows of 512 (later also 1024) tokens hold whole documents of several sources, and some rows hold random tokens that
come again, on which the model can only do well with a previous-token head and an induction head. On a few short rows
a step, two heads are also told where to look (`guided`), with a weight that falls to zero towards the end. The matrices
are trained with Muon, the embedding and the norms with AdamW; the learning rate falls to zero over the working time
(pauses do not count). It writes a checkpoint and an exported folder every few minutes and goes on from the last one.
"""
import argparse
import json
import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch.nn import functional as F

from llama import Llama, Shape, export
from scores import head_scores, story_loss

# share of the tokens in the rows that hold text
SOURCES = {"grammar": 0.66, "stories": 0.13, "renamed": 0.19, "shakespeare": 0.02}


class Source:
    """Documents of one file, each once in random order before any comes again."""

    def __init__(self, path, rng):
        f = np.load(path)
        self.ids, self.starts, self.rng = f["ids"], f["starts"], rng
        self.count = len(self.starts) - 1
        self.mean = len(self.ids) / self.count
        self.order = []

    def next(self):
        if not len(self.order):
            self.order = list(self.rng.permutation(self.count))
        i = self.order.pop()
        return self.ids[self.starts[i]:self.starts[i + 1]]  # ends with the end token


class Rows:
    def __init__(self, folder, vocab, seed):
        self.rng = np.random.default_rng(seed)
        self.vocab = vocab
        self.sources = {k: Source(Path(folder) / f"{k}.npz", self.rng) for k in SOURCES}
        weight = np.array([SOURCES[k] / self.sources[k].mean for k in SOURCES])
        self.weight = weight / weight.sum()

    def document(self):
        return self.sources[list(SOURCES)[self.rng.choice(len(SOURCES), p=self.weight)]].next()

    def text(self, n):
        """A row that starts with a document, sometimes after an end token; every token counts."""
        out = [np.zeros(1, np.uint16)] if self.rng.random() < 0.25 else []
        while sum(map(len, out)) < n + 1:
            out.append(self.document())
        ids = np.concatenate(out)[:n + 1].astype(np.int64)
        return ids[:-1], ids[1:]

    def spans(self, n):
        """A row of random spans that come again, now and then after some text; only repeated tokens count."""
        rng, ids, counts = self.rng, [], []
        if rng.random() < 0.35:
            d = self.document()
            d = d[:rng.integers(4, len(d) + 1)]
            ids.append(d)
            counts.append(np.ones(len(d), bool))
        while sum(map(len, ids)) < n + 1:
            length = int(rng.integers(8, 201) if rng.random() < 0.5 else rng.integers(8, 64))
            span = rng.integers(1, self.vocab, length)
            for i in range(2 + int(rng.random() < 0.25)):
                ids.append(span)
                counts.append(np.full(length, i > 0))
                if i:
                    counts[-1][0] = False  # nothing tells that the span begins again
                if rng.random() < 0.2:  # something in between
                    gap = rng.integers(1, self.vocab, int(rng.integers(1, 20)))
                    ids.append(gap)
                    counts.append(np.zeros(len(gap), bool))
        ids = np.concatenate(ids)[:n + 1].astype(np.int64)
        labels = np.where(np.concatenate(counts)[:n + 1], ids, -100)
        return ids[:-1], labels[1:]

    def batch(self, rows, n, share):
        pairs = [self.spans(n) if self.rng.random() < share else self.text(n) for _ in range(rows)]
        return tuple(torch.from_numpy(np.stack(x)) for x in zip(*pairs))


def guided(model, rows, weight):
    """The loss on `length` random tokens and their repetition, plus `weight` times that of two heads' attention.

    Head 0 of layer 0 should look at the previous token, head 0 of layer 2 at the token after the earlier copy.
    """
    length = int(rows.rng.integers(16, 97))
    half = torch.from_numpy(rows.rng.integers(1, rows.vocab, (4, length)))
    ids, attention = torch.cat([half, half], 1), []
    logits = model(ids, attention if weight else None)
    i = torch.arange(length, 2 * length - 1)
    loss = 0.3 * F.cross_entropy(logits[:, i].float().flatten(0, 1), ids[:, i + 1].flatten())
    if weight:
        j = torch.arange(1, 2 * length)
        for a in (attention[0][:, 0, j, j - 1], attention[2][:, 0, i, i - length + 1]):
            loss = loss - weight * (a.float() + 1e-4).log().mean()
    return loss


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("data", type=Path)
    p.add_argument("checkpoints", type=Path)
    p.add_argument("--tokenizer", type=Path, required=True)
    p.add_argument("--export", type=Path, required=True)
    p.add_argument("--minutes", type=float, default=90, help="working time; pauses do not count")
    p.add_argument("--until", type=float, help="wall-clock end (seconds since 1970): the schedule shrinks to fit")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--rate", type=float, default=5e-3)
    p.add_argument("--dropout", type=float, default=0.1)
    p.add_argument("--start", type=Path, help="begin with the weights of this exported folder (see average.py)")
    p.add_argument("--done", type=float, default=0.0, help="and this far into the schedule")
    p.add_argument("--every", type=float, default=4, help="minutes between checkpoints")
    a = p.parse_args()
    torch.set_num_threads(a.threads)
    torch.manual_seed(a.seed)
    a.checkpoints.mkdir(parents=True, exist_ok=True)

    shape = Shape(hidden=256, inner=512, layers=5, heads=8, kv_heads=4, head_dim=32,
                  dropout=a.dropout)
    model = Llama(shape)
    matrices = [q for k, q in model.named_parameters() if q.dim() == 2 and "embed" not in k]
    others = [q for k, q in model.named_parameters() if q.dim() == 1]
    optimizers = [
        torch.optim.Muon(matrices, lr=a.rate, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW([{"params": [model.model.embed_tokens.weight], "weight_decay": 0.02},
                           {"params": others, "weight_decay": 0.0}], lr=0.6 * a.rate, betas=(0.9, 0.95)),
    ]
    base = [[g["lr"] for g in o.param_groups] for o in optimizers]
    step, done, worked = 0, a.done, 0.0
    if a.start:
        model.load_state_dict({k: w.float() for k, w in load_file(a.start / "model.safetensors").items()})
    last = a.checkpoints / "last.pt"
    if last.exists():
        saved = torch.load(last, weights_only=False)
        model.load_state_dict(saved["model"])
        for o, s in zip(optimizers, saved["optimizers"]):
            o.load_state_dict(s)
        step, done, worked = saved["step"], saved["done"], saved["worked"]
    rows = Rows(a.data, shape.vocab, a.seed * 1000 + step)
    tok = Tokenizer.from_file(str(a.tokenizer / "tokenizer.json"))
    val = [json.loads(line)["text"] for line in open(a.data / "val.jsonl")]
    print(f"{sum(q.numel() for q in model.parameters())} parameters, from step {step}", flush=True)

    def save():
        torch.save({"model": model.state_dict(), "optimizers": [o.state_dict() for o in optimizers],
                    "step": step, "done": done, "worked": worked}, last.with_suffix(".new"))
        os.replace(last.with_suffix(".new"), last)
        export(model, a.export)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(a.tokenizer / name, a.export)
        model.eval()
        bits = story_loss(model, tok, val)
        previous, induction = head_scores(model, seeds=4)
        model.train()
        print(f"step {step} done {done:.3f} minutes {worked / 60:.1f} val {bits:.4f} bits a byte; "
              f"previous {previous.max():.3f} induction {induction.max():.3f}", flush=True)

    stop = []
    signal.signal(signal.SIGTERM, lambda *_: stop.append(True))
    saved_at, recent, total = time.time(), [], {"text": 0.0, "extra": 0.0, "n": 0}
    model.train()
    while done < 1:
        start = time.time()
        rate = min(1, step / 150) * min(1, (1 - done) / 0.8)  # warm up, hold for a fifth, then fall to zero
        for o, lrs in zip(optimizers, base):
            for g, lr in zip(o.param_groups, lrs):
                g["lr"] = lr * rate
        long = done > 0.3 and step % 8 == 0
        ids, labels = rows.batch(4 if long else 8, 1024 if long else 512, 0.1 if done < 0.4 else 0.04)
        with torch.autocast("cpu", torch.bfloat16):
            loss = model.loss(ids, labels)
            often = done < 0.4 or step % 4 == 0  # once the heads are there, now and then is enough
            weight = 0.5 * min(1.0, max(0.0, (0.8 - done) / 0.3))
            extra = guided(model, rows, weight) if often else torch.zeros(())
        (loss + extra).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for o in optimizers:
            o.step()
            o.zero_grad(set_to_none=True)
        total["text"] += loss.item()
        total["extra"] += extra.item()
        total["n"] += 1
        step += 1
        took = time.time() - start
        recent = (recent + [took])[-50:]
        took = min(took, 4 * float(np.median(recent)))  # a stopped process did not work
        left = max(a.minutes * 60 - worked, 1e-3)
        if a.until:
            left = max(min(left, a.until - start), 1e-3)
        done = min(1.0, done + (1 - done) * took / max(left, took))
        worked += took
        if step % 50 == 0:
            print(f"step {step} done {done:.3f} loss {total['text'] / total['n']:.3f} "
                  f"guided {total['extra'] / total['n']:.3f} {4096 / np.median(recent):.0f} tokens/s",
                  flush=True)
            total = {"text": 0.0, "extra": 0.0, "n": 0}
        if stop or time.time() - saved_at > 60 * a.every:
            save()
            saved_at = time.time()
        if stop:
            return
    save()
    print("finished", flush=True)


if __name__ == "__main__":
    main()
