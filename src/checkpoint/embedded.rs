//! The default model, inside the binary: `models/README.md` is its card.

/// What to call it.
pub(super) const NAME: &str = "attend-stories-4M";

/// Its files, as they stand in `models/embedded`.
pub(super) fn file(name: &str) -> Option<&'static [u8]> {
    Some(match name {
        "config.json" => include_bytes!("../../models/embedded/config.json"),
        "generation_config.json" => include_bytes!("../../models/embedded/generation_config.json"),
        "tokenizer.json" => include_bytes!("../../models/embedded/tokenizer.json"),
        "model.safetensors" => include_bytes!("../../models/embedded/model.safetensors"),
        _ => return None,
    })
}
