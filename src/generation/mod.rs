//! From text to text: [`prompt`] begins, [`session`] runs the steps, [`sampler`] chooses tokens, [`decode_stream`]
//! turns them into characters, [`stop`] ends them at a text.

pub mod decode_stream;
pub mod prompt;
pub mod sampler;
pub mod session;
pub mod stop;

pub use prompt::Prompt;
pub use sampler::{Sampler, Sampling};
pub use session::{Finish, GenerationOptions, Session, Token};
