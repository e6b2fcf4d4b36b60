"""The yardstick: an interpolated modified Kneser-Ney n-gram model over integers, with numpy.

`evaluate.py` trains it on the text the embedded model was trained on and compares the bits a byte.
"""
import math

import numpy as np


class KneserNey:
    def __init__(self, documents, vocab, order=5):
        self.vocab, self.order = vocab, order
        history, last = self.windows(documents)
        keys, counts = np.unique(history[order] * np.uint64(vocab) + last, return_counts=True)
        self.levels = [self.level(keys, counts)]
        for k in range(order - 1, 0, -1):  # lower orders count the distinct symbols to the left
            keys, counts = np.unique(keys % np.uint64(vocab ** k), return_counts=True)
            self.levels.append(self.level(keys, counts))
        self.levels.reverse()

    def windows(self, documents):
        """For each symbol its last k - 1 predecessors as one number (zeros before a document), and itself."""
        pad = np.zeros(self.order - 1, np.uint64)
        ids = np.concatenate([np.concatenate([pad, np.asarray(d, np.uint64)]) for d in documents])
        real = np.concatenate([np.arange(self.order - 1 + len(d)) >= self.order - 1 for d in documents])
        at = np.flatnonzero(real)
        history, total = {1: np.zeros(len(at), np.uint64)}, np.zeros(len(at), np.uint64)
        for k in range(1, self.order):
            total = total + ids[at - k] * np.uint64(self.vocab ** (k - 1))
            history[k + 1] = total
        return history, ids[at]

    def level(self, keys, counts):
        n = [max((counts == i).sum(), 1) for i in range(1, 5)]
        y = n[0] / (n[0] + 2 * n[1])
        cut = np.array([0] + [min(max(i - (i + 1) * y * n[i] / n[i - 1], 0.05), i) for i in range(1, 4)])
        discount = cut[np.minimum(counts, 3)]
        contexts, first = np.unique(keys // np.uint64(self.vocab), return_index=True)
        total = np.add.reduceat(counts, first).astype(float)
        rest = np.add.reduceat(discount, first) / total
        return keys, counts - discount, contexts, total, rest

    def bits(self, documents):
        """The total number of bits the documents cost."""
        history, last = self.windows(documents)
        p = np.full(len(last), 1 / self.vocab)
        for k, (keys, mass, contexts, total, rest) in enumerate(self.levels, 1):
            c = np.minimum(np.searchsorted(contexts, history[k]), len(contexts) - 1)
            known = contexts[c] == history[k]
            wanted = history[k] * np.uint64(self.vocab) + last
            g = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
            here = np.where(keys[g] == wanted, mass[g], 0.0)
            p = np.where(known, here / total[c] + rest[c] * p, p)
        return -np.log2(p).sum()
