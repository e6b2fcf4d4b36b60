//! Which weights these are: a digest of the files' bytes, that tells a model from another with the
//! same config.

use std::sync::OnceLock;

use sha2::{Digest, Sha256};

use super::weights::Weights;
use crate::kernels::Pool;

/// Bytes that one thread hashes at a time.
const PIECE: usize = 1 << 20;
/// Pieces that are hashed before the pages read so far are given back.
const PIECES: usize = 16;

/// SHA-256 over the SHA-256 of each 1 MiB of the weights files, in hexadecimal.
pub(super) fn digest(weights: &Weights, pool: &Pool) -> String {
    let mut whole = Sha256::new();
    for file in weights.bytes() {
        whole.update((file.len() as u64).to_le_bytes());
        for pieces in file.chunks(PIECE * PIECES) {
            let pieces: Vec<&[u8]> = pieces.chunks(PIECE).collect();
            let digests = vec![OnceLock::new(); pieces.len()];
            pool.for_each(pieces.len(), 1, |number| {
                digests[number].get_or_init(|| Sha256::digest(pieces[number]));
            });
            digests.iter().filter_map(OnceLock::get).for_each(|digest| whole.update(digest));
            weights.release();
        }
    }
    hexadecimal(&whole.finalize())
}

pub(super) fn hexadecimal(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
