//! Attention against its definition in f64, and its promises bit for bit.

use super::*;
use crate::kernels::blocks::dequantize;
use crate::kernels::cache::CacheType;
use crate::kernels::quantize::quantized;

const HELD: [CacheType; 3] = [CacheType::F32, CacheType::F16, CacheType::Q8_0];

fn values(len: usize, seed: usize) -> Vec<f32> {
    (0..len).map(|i| (((i + seed) * 7919 % 1013) as f32 - 506.0) / 300.0).collect()
}

const LAYER: usize = 1;

struct Case {
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    depth: usize,
    tokens: usize,
    causal: bool,
    window: Option<usize>,
    cap: Option<f32>,
    biased: bool,
}

impl Case {
    fn row_len(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_dim
    }

    fn keys(&self) -> usize {
        self.depth + self.tokens
    }

    /// Rows of query, key, value for every position; only the last `tokens` rows are queries.
    fn rows(&self) -> Vec<f32> {
        values(self.keys() * self.row_len(), self.head_dim)
    }

    fn cache(&self, rows: &[f32], held: CacheType) -> Cache {
        let mut cache = Cache::new(CacheShape {
            layers: 2,
            kv_heads: self.kv_heads,
            head_dim: self.head_dim,
            capacity: self.keys() + 3,
            held,
        })
        .unwrap();
        let keys_at = self.heads * self.head_dim;
        cache.write(
            &Pool::new(2),
            LAYER,
            0,
            rows,
            self.row_len(),
            keys_at,
            keys_at + self.kv_heads * self.head_dim,
        );
        cache
    }

    /// The rows with their keys and values as the cache holds them.
    fn rounded(&self, rows: &[f32], held: CacheType) -> Vec<f32> {
        let mut rows = rows.to_vec();
        let element = held.element();
        for row in rows.chunks_exact_mut(self.row_len()) {
            for head in row[self.heads * self.head_dim..].chunks_exact_mut(self.head_dim) {
                let mut padded = head.to_vec();
                padded.resize(self.head_dim.next_multiple_of(element.block_values()), 0.0);
                let blocks = quantized(element, &padded);
                dequantize(element, &blocks, &mut padded);
                head.copy_from_slice(&padded[..self.head_dim]);
            }
        }
        rows
    }

    /// What each head adds to its scores, `[heads][keys and some more]`.
    fn bias(&self) -> Option<Vec<f32>> {
        self.biased.then(|| values(self.heads * (self.keys() + 5), 3))
    }

    fn queries<'a>(
        &self,
        rows: &'a [f32],
        bias: Option<&'a [f32]>,
        first: usize,
        tokens: usize,
    ) -> Queries<'a> {
        Queries {
            rows: &rows[first * self.row_len()..(first + tokens) * self.row_len()],
            row_len: self.row_len(),
            heads: self.heads,
            first,
            keys: if self.causal { first + tokens } else { self.keys() },
            causal: self.causal,
            window: self.window,
            scale: 1.0 / (self.head_dim as f32).sqrt(),
            cap: self.cap,
            bias,
        }
    }

    /// softmax(QKᵀ/√dₖ)V in f64: weights `[heads][tokens][keys]`, out `[tokens][heads · head_dim]`.
    fn defined(&self, rows: &[f32]) -> (Vec<f64>, Vec<f64>) {
        let (d, group, len) = (self.head_dim, self.heads / self.kv_heads, self.row_len());
        let bias = self.bias();
        let mut map = vec![0f64; self.heads * self.tokens * self.keys()];
        let mut out = vec![0f64; self.tokens * self.heads * d];
        for head in 0..self.heads {
            let key_at = (self.heads + head / group) * d;
            let value_at = key_at + self.kv_heads * d;
            for token in 0..self.tokens {
                let query = &rows[(self.depth + token) * len + head * d..][..d];
                let end = if self.causal { self.depth + token + 1 } else { self.keys() };
                let start = end.saturating_sub(self.window.unwrap_or(end));
                let scores: Vec<f64> = (start..end)
                    .map(|k| {
                        let key = &rows[k * len + key_at..][..d];
                        query.iter().zip(key).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum::<f64>()
                            / (d as f64).sqrt()
                    })
                    .zip(start..)
                    .map(|(score, k)| {
                        let stride = self.keys() + 5;
                        score + bias.as_ref().map_or(0.0, |bias| f64::from(bias[head * stride + k]))
                    })
                    .map(|score| {
                        self.cap.map_or(score, |cap| f64::from(cap) * (score / f64::from(cap)).tanh())
                    })
                    .collect();
                let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let sum: f64 = scores.iter().map(|s| (s - largest).exp()).sum();
                for (k, score) in (start..).zip(&scores) {
                    let weight = (score - largest).exp() / sum;
                    map[(head * self.tokens + token) * self.keys() + k] = weight;
                    for i in 0..d {
                        out[(token * self.heads + head) * d + i] +=
                            weight * f64::from(rows[k * len + value_at + i]);
                    }
                }
            }
        }
        (map, out)
    }
}

const CASES: [Case; 16] = [
    Case {
        heads: 4,
        kv_heads: 2,
        head_dim: 16,
        depth: 3,
        tokens: 9,
        causal: true,
        window: None,
        cap: Some(2.0),
        biased: true,
    },
    Case {
        heads: 4,
        kv_heads: 2,
        head_dim: 16,
        depth: 0,
        tokens: 24,
        causal: true,
        window: Some(8),
        cap: None,
        biased: false,
    },
    Case {
        heads: 3,
        kv_heads: 1,
        head_dim: 16,
        depth: 0,
        tokens: 9,
        causal: true,
        window: Some(1),
        cap: None,
        biased: true,
    },
    Case {
        heads: 2,
        kv_heads: 2,
        head_dim: 8,
        depth: 600,
        tokens: 7,
        causal: true,
        window: Some(300),
        cap: None,
        biased: false,
    },
    Case {
        heads: 3,
        kv_heads: 1,
        head_dim: 40,
        depth: 700,
        tokens: 1,
        causal: true,
        window: Some(20),
        cap: None,
        biased: false,
    },
    Case {
        heads: 1,
        kv_heads: 1,
        head_dim: 2,
        depth: 0,
        tokens: 1,
        causal: true,
        window: None,
        cap: None,
        biased: false,
    },
    Case {
        heads: 4,
        kv_heads: 2,
        head_dim: 16,
        depth: 0,
        tokens: 24,
        causal: true,
        window: None,
        cap: None,
        biased: true,
    },
    Case {
        heads: 9,
        kv_heads: 3,
        head_dim: 64,
        depth: 30,
        tokens: 5,
        causal: true,
        window: None,
        cap: None,
        biased: false,
    },
    Case {
        heads: 3,
        kv_heads: 1,
        head_dim: 40,
        depth: 700,
        tokens: 1,
        causal: true,
        window: None,
        cap: None,
        biased: false,
    },
    Case {
        heads: 4,
        kv_heads: 4,
        head_dim: 32,
        depth: 250,
        tokens: 20,
        causal: true,
        window: None,
        cap: None,
        biased: true,
    },
    Case {
        heads: 2,
        kv_heads: 1,
        head_dim: 8,
        depth: 0,
        tokens: 300,
        causal: false,
        window: None,
        cap: None,
        biased: false,
    },
    Case {
        heads: 26,
        kv_heads: 1,
        head_dim: 4,
        depth: 3,
        tokens: 2,
        causal: true,
        window: None,
        cap: None,
        biased: false,
    },
    Case {
        heads: 9,
        kv_heads: 3,
        head_dim: 64,
        depth: 1000,
        tokens: 1,
        causal: true,
        window: None,
        cap: None,
        biased: false,
    },
    Case {
        heads: 2,
        kv_heads: 2,
        head_dim: 96,
        depth: 777,
        tokens: 4,
        causal: true,
        window: Some(500),
        cap: Some(3.0),
        biased: true,
    },
    Case {
        heads: 8,
        kv_heads: 1,
        head_dim: 64,
        depth: 513,
        tokens: 8,
        causal: true,
        window: None,
        cap: None,
        biased: true,
    },
    Case {
        heads: 6,
        kv_heads: 2,
        head_dim: 72,
        depth: 0,
        tokens: 290,
        causal: false,
        window: None,
        cap: Some(4.0),
        biased: true,
    },
];

#[test]
fn attention_agrees_with_its_definition_on_every_tier() {
    let pool = Pool::new(2);
    for (isa, held) in Isa::available().into_iter().flat_map(|isa| HELD.map(|held| (isa, held))) {
        for (number, case) in CASES.iter().enumerate() {
            let (rows, bias) = (case.rows(), case.bias());
            let cache = case.cache(&rows, held);
            let mut out = vec![f32::NAN; case.tokens * case.heads * case.head_dim];
            let mut map = vec![f32::NAN; case.heads * case.tokens * case.keys()];
            attend(
                isa,
                &pool,
                &cache,
                LAYER,
                case.queries(&rows, bias.as_deref(), case.depth, case.tokens),
                &mut out,
                Some(&mut map),
            );
            let (expected_map, expected_out) = case.defined(&case.rounded(&rows, held));
            for (ours, expected) in map.iter().zip(&expected_map) {
                assert!(
                    (f64::from(*ours) - expected).abs() < 2e-6,
                    "{isa} {held:?} case {number}: {ours} for {expected}"
                );
            }
            for (ours, expected) in out.iter().zip(&expected_out) {
                assert!(
                    (f64::from(*ours) - expected).abs() < 1e-5,
                    "{isa} {held:?} case {number}: {ours} for {expected}"
                );
            }
            for row in map.chunks_exact(case.keys()) {
                let sum: f64 = row.iter().map(|w| f64::from(*w)).sum();
                assert!((sum - 1.0).abs() < 1e-5, "{isa} {held:?} case {number}: a row sums to {sum}");
            }
        }
    }
}

#[test]
fn threads_capture_and_company_do_not_change_a_bit() {
    for (isa, held) in Isa::available().into_iter().flat_map(|isa| HELD.map(|held| (isa, held))) {
        for case in CASES.iter().filter(|case| case.causal) {
            let (rows, bias) = (case.rows(), case.bias());
            let cache = case.cache(&rows, held);
            let width = case.heads * case.head_dim;
            let mut expected = vec![0f32; case.tokens * width];
            let whole = case.queries(&rows, bias.as_deref(), case.depth, case.tokens);
            attend(isa, &Pool::new(1), &cache, LAYER, whole, &mut expected, None);
            let pool = Pool::new(3);
            let mut out = vec![0f32; expected.len()];
            let mut map = vec![0f32; case.heads * case.tokens * case.keys()];
            attend(isa, &pool, &cache, LAYER, whole, &mut out, Some(&mut map));
            assert_eq!(out, expected, "{isa}: capture or threads changed the result");
            for token in 0..case.tokens {
                let mut alone = vec![0f32; width];
                let query = case.queries(&rows, bias.as_deref(), case.depth + token, 1);
                attend(isa, &pool, &cache, LAYER, query, &mut alone, None);
                assert_eq!(alone, expected[token * width..(token + 1) * width], "{isa}: token {token} alone");
            }
        }
    }
}

/// What a narrow cache is: its values are widened exactly, wherever a kernel does it.
#[test]
fn a_narrow_cache_gives_the_bits_of_an_f32_cache_of_the_rounded_values() {
    let pool = Pool::new(2);
    for isa in Isa::available() {
        for (number, case) in CASES.iter().enumerate() {
            let (rows, bias) = (case.rows(), case.bias());
            let queries = case.queries(&rows, bias.as_deref(), case.depth, case.tokens);
            let attended = |cache: &Cache| {
                let mut out = vec![f32::NAN; case.tokens * case.heads * case.head_dim];
                attend(isa, &pool, cache, LAYER, queries, &mut out, None);
                out
            };
            for held in [CacheType::F16, CacheType::Q8_0] {
                let rounded = case.cache(&case.rounded(&rows, held), CacheType::F32);
                let narrow = attended(&case.cache(&rows, held));
                assert_eq!(narrow, attended(&rounded), "{isa} {held:?} case {number}");
            }
        }
    }
}

/// Rows of a block, of a tile, and a token alone that meet different parts of the last chunk.
#[test]
fn a_prompt_in_pieces_of_any_size_gives_the_same_bits() {
    let case = Case {
        heads: 6,
        kv_heads: 2,
        head_dim: 40,
        depth: 0,
        tokens: 530,
        causal: true,
        window: Some(270),
        cap: None,
        biased: true,
    };
    let (rows, bias) = (case.rows(), case.bias());
    for (isa, held) in Isa::available().into_iter().flat_map(|isa| HELD.map(|held| (isa, held))) {
        let cache = case.cache(&rows, held);
        let width = case.heads * case.head_dim;
        let mut whole = vec![0f32; case.tokens * width];
        let queries = case.queries(&rows, bias.as_deref(), 0, case.tokens);
        attend(isa, &Pool::new(2), &cache, LAYER, queries, &mut whole, None);
        for (threads, piece) in [(1, 100), (2, 7), (3, 64)] {
            let pool = Pool::new(threads);
            for first in (0..case.tokens).step_by(piece) {
                let tokens = piece.min(case.tokens - first);
                let mut out = vec![0f32; tokens * width];
                let queries = case.queries(&rows, bias.as_deref(), first, tokens);
                attend(isa, &pool, &cache, LAYER, queries, &mut out, None);
                assert_eq!(out, whole[first * width..][..out.len()], "{isa} {held:?} {piece} from {first}");
            }
        }
    }
}

#[test]
fn a_nan_key_is_not_made_quiet() {
    let case = &CASES[7];
    let mut rows = case.rows();
    rows[case.heads * case.head_dim] = f32::NAN;
    for (isa, held) in Isa::available().into_iter().flat_map(|isa| HELD.map(|held| (isa, held))) {
        let cache = case.cache(&rows, held);
        let mut out = vec![0f32; case.tokens * case.heads * case.head_dim];
        let queries = case.queries(&rows, None, case.depth, case.tokens);
        attend(isa, &Pool::new(1), &cache, LAYER, queries, &mut out, None);
        assert!(out.iter().any(|value| value.is_nan()), "{isa} {held:?}");
    }
}
