//! Keys and values taken out of the cache and put back bit for bit, as rows of one position each:
//! an order that does not depend on the capacity, in which they can be kept in files.

use super::{
    BLOCK, Cache, CachePart, CacheShape, CacheType, GROUP, PANEL, SCALES, put_key_block, put_lane,
    put_value_block,
};

impl Cache {
    /// Appends the rows of a layer's first `count` positions to `out`: `[kv_heads][count]` rows of
    /// [`CacheType::head_bytes`], values in order, or blocks of `q8_0` as in files.
    ///
    /// # Panics
    /// If `count` passes the capacity.
    pub fn copy_rows(&self, layer: usize, part: CachePart, count: usize, out: &mut Vec<u8>) {
        let shape = self.shape;
        assert!(count <= shape.capacity, "positions past the cache's capacity");
        let row_bytes = shape.held.head_bytes(shape.head_dim);
        let bytes = &self.data[layer * shape.layer()..(layer + 1) * shape.layer()];
        let (keys, values) = bytes.split_at(shape.keys());
        let mut at = out.len();
        out.resize(at + shape.kv_heads * count * row_bytes, 0);
        for head in 0..shape.kv_heads {
            for position in 0..count {
                let row = &mut out[at..at + row_bytes];
                at += row_bytes;
                match part {
                    CachePart::Keys => {
                        let start = shape.key_start(head, position);
                        shape.copy_key(&keys[start..start + shape.key_panel()], position % PANEL, row);
                    }
                    CachePart::Values => {
                        for (panel, row) in row.chunks_mut(shape.value_row()).enumerate() {
                            let start = shape.value_start(head, panel, position);
                            let group = &values[start..start + PANEL * shape.value_row()];
                            shape.copy_value(group, position % PANEL, row);
                        }
                    }
                }
            }
        }
    }

    /// Writes the first `count` positions of a layer from `rows`, of which there may be more:
    /// `[kv_heads][any number]` rows as [`copy_rows`](Self::copy_rows) gives them.
    ///
    /// # Panics
    /// If `count` passes the capacity or there are fewer rows.
    pub fn put_rows(&mut self, layer: usize, part: CachePart, count: usize, rows: &[u8]) {
        let shape = self.shape;
        assert!(count <= shape.capacity, "positions past the cache's capacity");
        let row_bytes = shape.held.head_bytes(shape.head_dim);
        let bytes = &mut self.data[layer * shape.layer()..(layer + 1) * shape.layer()];
        let (keys, values) = bytes.split_at_mut(shape.keys());
        for (head, rows) in rows.chunks_exact(rows.len() / shape.kv_heads).enumerate() {
            for (position, row) in rows[..count * row_bytes].chunks_exact(row_bytes).enumerate() {
                match part {
                    CachePart::Keys => {
                        let start = shape.key_start(head, position);
                        shape.put_key(row, &mut keys[start..start + shape.key_panel()], position % PANEL);
                    }
                    CachePart::Values => {
                        for (panel, row) in row.chunks(shape.value_row()).enumerate() {
                            let start = shape.value_start(head, panel, position);
                            let group = &mut values[start..start + PANEL * shape.value_row()];
                            shape.put_value(row, group, position % PANEL);
                        }
                    }
                }
            }
        }
    }
}

impl CacheShape {
    fn put_key(&self, row: &[u8], panel: &mut [u8], lane: usize) {
        match self.held {
            CacheType::F32 => put_lane(row.as_chunks::<4>().0.iter().copied(), panel, lane),
            CacheType::F16 => put_lane(row.as_chunks::<2>().0.iter().copied(), panel, lane),
            CacheType::Q8_0 => {
                for (block, group) in row.chunks_exact(BLOCK).zip(panel.chunks_exact_mut(GROUP)) {
                    put_key_block(block, group, lane);
                }
            }
        }
    }

    fn put_value(&self, row: &[u8], group: &mut [u8], position: usize) {
        match self.held {
            CacheType::F32 | CacheType::F16 => {
                group[position * self.value_row()..][..row.len()].copy_from_slice(row);
            }
            CacheType::Q8_0 => put_value_block(row, group, position),
        }
    }

    fn copy_key(&self, panel: &[u8], lane: usize, row: &mut [u8]) {
        let size = match self.held {
            CacheType::F32 => 4,
            CacheType::F16 => 2,
            CacheType::Q8_0 => {
                for (group, block) in panel.chunks_exact(GROUP).zip(row.chunks_exact_mut(BLOCK)) {
                    let (scales, rows) = group.split_at(SCALES);
                    block[..2].copy_from_slice(&scales[2 * lane..2 * lane + 2]);
                    for (row, value) in rows.chunks_exact(PANEL).zip(&mut block[2..]) {
                        *value = row[lane];
                    }
                }
                return;
            }
        };
        for (column, out) in panel.chunks_exact(PANEL * size).zip(row.chunks_exact_mut(size)) {
            out.copy_from_slice(&column[lane * size..(lane + 1) * size]);
        }
    }

    fn copy_value(&self, group: &[u8], position: usize, row: &mut [u8]) {
        match self.held {
            CacheType::F32 | CacheType::F16 => {
                row.copy_from_slice(&group[position * self.value_row()..][..row.len()]);
            }
            CacheType::Q8_0 => {
                let (scales, rows) = group.split_at(SCALES);
                row[..2].copy_from_slice(&scales[2 * position..2 * position + 2]);
                row[2..].copy_from_slice(&rows[position * PANEL..(position + 1) * PANEL]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::Pool;

    /// Numbers without a pattern, `[positions][keys ‖ values]`.
    fn rows(shape: CacheShape, positions: usize) -> Vec<f32> {
        let count = positions * 2 * shape.kv_heads * shape.head_dim;
        (0..count).map(|i| ((i * 7919) % 10_007) as f32 / 1000.0 - 5.0).collect()
    }

    #[test]
    fn rows_put_into_a_cache_of_another_capacity_are_what_was_written_there() {
        for held in [CacheType::F32, CacheType::F16, CacheType::Q8_0] {
            // Heads that do and do not fill whole panels of columns.
            for head_dim in [8, 32, 40, 64] {
                let shape = CacheShape { layers: 2, kv_heads: 3, head_dim, capacity: 100, held };
                let (width, values_at) = (2 * 3 * head_dim, 3 * head_dim);
                let written = |capacity, positions| {
                    let mut cache = Cache::new(CacheShape { capacity, ..shape }).unwrap();
                    for layer in 0..2 {
                        let rows = rows(shape, 90);
                        let rows = &rows[layer * 20 * width..][..positions * width];
                        cache.write(&Pool::new(2), layer, 0, rows, width, 0, values_at);
                    }
                    cache
                };
                let from = written(100, 70);
                let mut to = Cache::new(CacheShape { capacity: 50, ..shape }).unwrap();
                for (layer, part) in [
                    (0, CachePart::Keys),
                    (0, CachePart::Values),
                    (1, CachePart::Keys),
                    (1, CachePart::Values),
                ] {
                    let mut rows = vec![];
                    from.copy_rows(layer, part, 70, &mut rows);
                    to.put_rows(layer, part, 45, &rows);
                }
                assert_eq!(to.data[..], written(50, 45).data[..], "{held:?} {head_dim}");
            }
        }
    }
}
