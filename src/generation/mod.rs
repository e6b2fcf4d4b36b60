//! From logits to text: [`session`] runs the steps, [`sampler`] chooses tokens, [`decode_stream`]
//! turns them into characters, [`stop`] ends them at a text.

pub mod decode_stream;
pub mod sampler;
pub mod session;
pub mod stop;

pub use sampler::{Sampler, Sampling};
pub use session::{Finish, GenerationOptions, Session, Token};
