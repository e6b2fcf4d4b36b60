//! The forward pass that checks a draft: it feeds the text's last token and the drafted ones, and
//! keeps what it computed until the session knows, token by token, how much of it counts.

use crate::error::Result;
use crate::model::{AttentionObserver, AttentionRows, Decoder, Forward, KvCache, LogitRows, StepShape};

/// What one pass computed for the last token of a text and the tokens drafted behind it.
pub(super) struct DraftPass {
    draft: Vec<u32>,
    /// `[draft + 1][vocabulary]`
    logits: Vec<f32>,
    maps: Option<QueryMaps>,
    /// Drafted tokens that were kept so far: the row that counts next.
    accepted: usize,
}

impl DraftPass {
    /// Feeds `last` and `draft` behind what the cache holds. Of each layer that `observer` wants,
    /// the maps are kept, 4 · (draft + 1) · heads · keys bytes.
    ///
    /// # Errors
    /// The decoder's; the cache is then as it was.
    pub(super) fn run(
        decoder: &Decoder,
        cache: &mut KvCache,
        last: u32,
        draft: Vec<u32>,
        observer: Option<&dyn AttentionObserver>,
    ) -> Result<DraftPass> {
        let layers = decoder.config().layers;
        let mut maps = observer.map(|observer| QueryMaps::wanted_by(observer, layers, cache.len()));
        let fed = [&[last], draft.as_slice()].concat();
        let observer = maps.as_mut().map(|maps| maps as &mut dyn AttentionObserver);
        let request = Forward { logits: LogitRows::All, observer, ..Forward::default() };
        let logits = decoder.forward(&fed, cache, request)?.flatten_all()?.to_vec1()?;
        Ok(DraftPass { draft, logits, maps, accepted: 0 })
    }

    /// Whether the maps that `observer` wants were kept.
    pub(super) fn serves(&self, observer: &dyn AttentionObserver) -> bool {
        self.maps.as_ref().is_some_and(|maps| maps.serve(observer))
    }

    /// The logits of the row that counts next; `observer` sees its maps, as a step of its own.
    ///
    /// # Errors
    /// The observer's.
    pub(super) fn row(&self, observer: Option<&mut dyn AttentionObserver>) -> Result<&[f32]> {
        if let (Some(maps), Some(observer)) = (&self.maps, observer) {
            maps.show(self.accepted, observer)?;
        }
        let vocabulary = self.logits.len() / (self.draft.len() + 1);
        Ok(&self.logits[self.accepted * vocabulary..][..vocabulary])
    }

    /// Compares the token that was chosen behind this row with the drafted one. If they agree the
    /// next row counts; if not, or there is none, the pass is at its end.
    pub(super) fn accept(&mut self, id: u32) -> bool {
        let agrees = self.draft.get(self.accepted) == Some(&id);
        self.accepted += usize::from(agrees);
        agrees
    }

    pub(super) fn drafted(&self) -> usize {
        self.draft.len()
    }

    pub(super) fn accepted(&self) -> usize {
        self.accepted
    }
}

/// Keeps the maps of a pass by query, each as wide as if its query had been fed alone.
struct QueryMaps {
    wanted: Vec<bool>,
    first_query: usize,
    layers: Vec<LayerMaps>,
}

/// The maps of one layer.
struct LayerMaps {
    layer: usize,
    heads: usize,
    /// Of each query `[heads][keys]`: those up to its own position.
    queries: Vec<Vec<f32>>,
}

impl QueryMaps {
    fn wanted_by(observer: &dyn AttentionObserver, layers: usize, first_query: usize) -> QueryMaps {
        let wanted = (0..layers).map(|layer| observer.wants(layer)).collect();
        QueryMaps { wanted, first_query, layers: vec![] }
    }

    fn serve(&self, observer: &dyn AttentionObserver) -> bool {
        self.wanted.iter().enumerate().all(|(layer, kept)| *kept || !observer.wants(layer))
    }

    fn show(&self, query: usize, observer: &mut dyn AttentionObserver) -> Result<()> {
        let first_query = self.first_query + query;
        let (queries, keys) = (1, first_query + 1);
        observer.begin_step(StepShape { first_query, queries, keys })?;
        for maps in &self.layers {
            if observer.wants(maps.layer) {
                let LayerMaps { layer, heads, .. } = *maps;
                let weights = &maps.queries[query];
                observer.observe(AttentionRows { layer, first_query, heads, queries, keys, weights })?;
            }
        }
        observer.end_step()
    }
}

impl AttentionObserver for QueryMaps {
    fn wants(&self, layer: usize) -> bool {
        self.wanted[layer]
    }

    fn observe(&mut self, rows: AttentionRows<'_>) -> Result<()> {
        let AttentionRows { layer, heads, .. } = rows;
        let at = self.layers.iter().position(|maps| maps.layer == layer).unwrap_or(self.layers.len());
        if at == self.layers.len() {
            self.layers.push(LayerMaps { layer, heads, queries: vec![] });
        }
        for query in 0..rows.queries {
            let seen = rows.first_query + query + 1;
            let mut map = Vec::with_capacity(heads * seen);
            for head in 0..heads {
                map.extend_from_slice(&rows.head(head)[query * rows.keys..][..seen]);
            }
            self.layers[at].queries.push(map);
        }
        Ok(())
    }
}
