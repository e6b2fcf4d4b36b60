"""Second step: hold out, filter and tokenize; trains the tokenizer on the way.

    python prepare.py GRAMMAR.txt OUT --stories stories.jsonl.gz --shakespeare shakespeare.txt.gz --tokenizer TOKENIZER_DIR

Reads the grammar's text (`grammar.py`) and the two small files beside this script, and writes OUT/*.npz (token ids and
the starts of the documents), OUT/heldout.jsonl, OUT/val.jsonl and the tokenizer. With `--sampled RAW.jsonl` it first
builds the stories file from what SmolLM2 wrote: 5 % are held out before anything is looked at, then training stories
that share a prompt or many word sequences with a held-out one are dropped, and the rest is filtered for repetition,
broken quotes and texts that are no story.
"""
import argparse
import gzip
import json
import random
import re
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

import words as W

END = "<|endoftext|>"


def grams(text, n):
    w = re.findall(r"[a-z']+", text.lower())
    return [tuple(w[i:i + n]) for i in range(len(w) - n + 1)]


def balanced(text):
    """The text without a last speech that was cut off; sampling stops at a length."""
    if text.count('"') % 2:
        text = text[:text.rindex('"')].rstrip()
        text = text[:max(text.rfind(e) for e in ".!?") + 1]
        text += '"' * (text.count('"') % 2)
    return text


def good(text):
    """Whether a sampled text is fit to train on."""
    if text.count('"') % 2:
        return False
    outside = re.sub(r'"[^"]*"', "", text)
    if len(re.findall(r"\b(?:I|my|me)\b", outside)) > 5:  # a tale in the first person, or a letter
        return False
    three = grams(text, 3)
    if len(set(three)) < 0.72 * len(three) or max(Counter(grams(text, 4)).values(), default=9) > 6:
        return False
    if re.search(r"\b(short story|lyrics|verse|chorus|website|Sure)\b", text):
        return False
    return len(zlib.compress(text.encode())) > 0.38 * len(text)


def split_stories(raw, out, seed):
    rng = random.Random(seed)
    rows = [json.loads(line) for line in open(raw)]
    rng.shuffle(rows)
    for row in rows:
        row["text"] = row["text"].strip()
    n = len(rows) // 20
    held, rest = rows[:n], rows[n:]
    prompts = {r["prompt"] for r in held}
    seen = {g for r in held for g in grams(r["text"], 8)}
    kept, dropped = [], Counter()
    texts = set()
    for r in rest:
        r["text"] = balanced(r["text"])
        eight = grams(r["text"], 8)
        if r["prompt"] in prompts or r["text"] in texts:
            dropped["same prompt or text"] += 1
        elif sum(g in seen for g in eight) > 0.05 * len(eight):
            dropped["near duplicate of a held-out story"] += 1
        elif not good(r["text"]) or len(r["text"]) < 200:
            dropped["filter"] += 1
        else:
            texts.add(r["text"])
            kept.append(r)
    for i, r in enumerate(kept):
        r["split"] = "val" if i < 80 else "train"
    for r in held:
        r["split"] = "heldout"
        r["fit"] = good(r["text"])
    with gzip.GzipFile(out, "wb", mtime=0) as f:
        f.write("".join(json.dumps(r) + "\n" for r in held + kept).encode())
    print(f"held out {n} ({sum(r['fit'] for r in held)} of them pass the filter), kept {len(kept)}, dropped {dict(dropped)}")


MORE = {"Elara": 0, "Timmy": 1, "Alex": 1, "Lena": 0, "Elena": 0, "Aria": 0, "Benny": 1, "Sammy": 1, "John": 1,
        "Lila": 0, "Agnes": 0, "Maria": 0, "Bella": 0, "Jameson": 1, "Tommy": 1, "Thomas": 1, "Liam": 1, "Tina": 0}
GENDER = {**{n: 0 for n in W.GIRLS}, **{n: 1 for n in W.BOYS}, **MORE}
NAME = re.compile(r"\b(" + "|".join(sorted(GENDER, key=len, reverse=True)) + r")\b")


def rename(text, rng):
    """The same story with other names (each name always becomes the same other one)."""
    names = sorted(set(NAME.findall(text)) - {"Will", "Grace", "Hope", "Ruby", "Pearl", "Daisy", "Rose", "Holly", "Ivy"})
    if not names:
        return None
    new = {}
    for n in names:
        new[n] = rng.choice([m for m, g in GENDER.items() if g == GENDER[n] and m not in new.values()])
    return NAME.sub(lambda m: new.get(m[0], m[0]), text)


def pack(tokenizer, texts, path):
    ids, starts = [], [0]
    for e in tokenizer.encode_batch(texts):
        ids += e.ids + [0]
        starts.append(len(ids))
    np.savez(path, ids=np.array(ids, np.uint16), starts=np.array(starts, np.int64))
    size = sum(len(t.encode()) for t in texts)
    print(f"{path}: {len(texts)} documents, {len(ids)} tokens, {size} bytes, {size / (len(ids) - len(texts)):.2f} bytes a token")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    here = Path(__file__).parent
    p.add_argument("grammar")
    p.add_argument("out", type=Path)
    p.add_argument("--stories", default=here / "stories.jsonl.gz", type=Path)
    p.add_argument("--sampled")
    p.add_argument("--shakespeare", default=here / "shakespeare.txt.gz", type=Path)
    p.add_argument("--tokenizer", required=True, type=Path)
    p.add_argument("--vocab", type=int, default=4096)
    p.add_argument("--seed", type=int, default=1)
    a = p.parse_args()
    if a.sampled:
        split_stories(a.sampled, a.stories, a.seed)
    a.out.mkdir(parents=True, exist_ok=True)
    rows = [json.loads(line) for line in gzip.open(a.stories, "rt")]
    train = [r["text"] for r in rows if r["split"] == "train"]
    grammar = open(a.grammar).read().split(f"\n{END}\n")[:-1]
    play = gzip.open(a.shakespeare, "rt").read().strip()
    speeches = play.split("\n\n")
    acts = ["\n\n".join(speeches[i:i + 8]) for i in range(0, len(speeches), 8)]

    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tok.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=a.vocab, special_tokens=[END], show_progress=False,
                                  initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
    # the grammar is large but says little that is new: a tenth of it is enough beside the stories
    tok.train_from_iterator(train + grammar[:len(grammar) // 10] + acts[:len(acts) // 2], trainer)
    assert tok.get_vocab_size() == a.vocab and tok.token_to_id(END) == 0
    a.tokenizer.mkdir(parents=True, exist_ok=True)
    tok.save(str(a.tokenizer / "tokenizer.json"))
    (a.tokenizer / "tokenizer_config.json").write_text(json.dumps({
        "add_prefix_space": False, "bos_token": END, "eos_token": END, "pad_token": END, "unk_token": END,
        "clean_up_tokenization_spaces": False, "model_max_length": 1024, "tokenizer_class": "PreTrainedTokenizerFast",
    }, indent=2) + "\n")

    rng = random.Random(a.seed)
    renamed = [t for _ in range(3) for t in (rename(t, rng) for t in train) if t]
    pack(tok, grammar, a.out / "grammar.npz")
    pack(tok, train, a.out / "stories.npz")
    pack(tok, renamed, a.out / "renamed.npz")
    pack(tok, acts, a.out / "shakespeare.npz")
    for split in ("val", "heldout"):
        with open(a.out / f"{split}.jsonl", "w") as f:
            f.writelines(json.dumps(r) + "\n" for r in rows if r["split"] == split)
    print(len(grammar), "grammar stories; the sampled val and held-out stories stay text")


if __name__ == "__main__":
    main()
