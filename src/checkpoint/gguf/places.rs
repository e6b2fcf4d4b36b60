//! Where modules lie in GGUF files: llama.cpp's names, the same in every architecture but for what is
//! fused.

use crate::checkpoint::families::{Place, Rows};
use crate::model::parameter::{LayerModule, Projection};
use crate::model::{ModelConfig, Module};

/// Each module in a tensor of its own.
pub(super) fn apart(_config: &ModelConfig, module: Module) -> Place {
    use LayerModule::*;
    let Module::Layer(layer, module) = module else {
        return Place::of(match module {
            Module::Embedding => "token_embd",
            Module::Positions => "position_embd",
            Module::FinalNorm => "output_norm",
            Module::OutputHead => "output",
            other => unreachable!("no architecture here has {other:?}"),
        });
    };
    let part = match module {
        AttentionNorm => "attn_norm",
        Query => "attn_q",
        Key => "attn_k",
        Value => "attn_v",
        QueryNorm => "attn_q_norm",
        KeyNorm => "attn_k_norm",
        AttentionOutput => "attn_output",
        MlpNorm => "ffn_norm",
        Mlp(Projection::Gate) => "ffn_gate",
        Mlp(Projection::Up) => "ffn_up",
        Mlp(Projection::Down) => "ffn_down",
        other => unreachable!("no architecture here has {other:?}"),
    };
    Place::of(format!("blk.{layer}.{part}"))
}

/// Rows of queries and keys in the order of llama.cpp's rotary positions.
pub(super) fn interleaved(config: &ModelConfig, module: Module) -> Place {
    let place = apart(config, module);
    match module {
        Module::Layer(_, LayerModule::Query | LayerModule::Key) => {
            Place { rows: Rows::Interleaved { head_dim: config.head_dim }, ..place }
        }
        _ => place,
    }
}

/// One tensor for query, key and value, and one for gate and up where there is a gate.
pub(super) fn fused(config: &ModelConfig, module: Module) -> Place {
    use LayerModule::*;
    let Module::Layer(layer, part) = module else { return apart(config, module) };
    let gate_up = |index| Place::of(format!("blk.{layer}.ffn_up")).part(index, 2, config.intermediate);
    match part {
        Query | Key | Value => Place::of(format!("blk.{layer}.attn_qkv")).of_query_key_value(config, part),
        Mlp(Projection::Gate) => gate_up(0),
        Mlp(Projection::Up) if config.gated => gate_up(1),
        _ => apart(config, module),
    }
}
