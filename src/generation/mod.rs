//! From text to text: [`prompt`] begins, [`session`] runs the steps, [`sampler`] chooses tokens, [`decode_stream`]
//! turns them into characters, [`stop`] ends them at a text. [`speculation`] guesses tokens, so that one pass
//! (`draft_pass`) gives several; [`prompt_cache`] keeps a prompt for the next run.

pub mod decode_stream;
mod draft_pass;
pub mod prompt;
pub mod prompt_cache;
pub mod sampler;
pub mod session;
pub mod speculation;
pub mod stop;

pub use prompt::Prompt;
pub use prompt_cache::PromptCache;
pub use sampler::{Sampler, Sampling};
pub use session::{Finish, GenerationOptions, Session, Token};
pub use speculation::Acceptance;
