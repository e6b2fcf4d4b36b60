//! One generation: the prompt pass, then a step a token, until something ends it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::decode_stream::DecodeStream;
use super::sampler::{Sampler, Sampling, log_probability};
use super::stop::StopFilter;
use crate::checkpoint::Tokenizer;
use crate::error::{Error, Result};
use crate::model::{AttentionObserver, Decoder, Forward, KvCache};

/// What a generation is to do.
#[derive(Clone, Debug)]
pub struct GenerationOptions {
    pub max_new_tokens: usize,
    /// Positions of prompt and new tokens together; `None`: what is needed, up to the model's own.
    pub context: Option<usize>,
    pub sampling: Sampling,
    /// Tokens that end the text.
    pub end_tokens: Vec<u32>,
    /// Texts that end it; they are not shown.
    pub stop: Vec<String>,
    /// Raised from outside to end after the step at hand.
    pub interrupt: Arc<AtomicBool>,
}

/// Why a generation ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Finish {
    EndToken,
    MaxNewTokens,
    StopText,
    ContextFull,
    Interrupted,
}

/// A generated token.
#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    pub id: u32,
    /// What it adds to the text: empty for a special token, within an unfinished character, or
    /// while a stop text may be beginning; later tokens then add what waited.
    pub text: String,
    /// Natural logarithm of its probability under the model, before sampling's filters.
    pub log_probability: f64,
    /// Set on the last token.
    pub finish: Option<Finish>,
}

/// A text being generated.
///
/// ```no_run
/// use attend::generation::{GenerationOptions, Sampling, Session};
/// use attend::{Checkpoint, LoadOptions};
///
/// # fn main() -> attend::Result<()> {
/// let checkpoint = Checkpoint::open("SmolLM2-135M-Instruct".as_ref())?;
/// let decoder = checkpoint.load(&LoadOptions::default())?;
/// let tokenizer = checkpoint.tokenizer()?;
/// let options = GenerationOptions {
///     max_new_tokens: 20,
///     context: None,
///     sampling: Sampling::greedy(),
///     end_tokens: checkpoint.generation().end_tokens.clone(),
///     stop: vec![],
///     interrupt: Default::default(),
/// };
/// let prompt = tokenizer.encode("The capital of France is")?;
/// let mut session = Session::new(&decoder, Some(tokenizer), &prompt.ids, options)?;
/// while let Some(token) = session.step(None)? {
///     print!("{}", token.text);
/// }
/// # Ok(())
/// # }
/// ```
pub struct Session<'m> {
    decoder: &'m Decoder,
    cache: KvCache,
    sampler: Sampler,
    stream: DecodeStream<'m>,
    stop: StopFilter,
    options: GenerationOptions,
    /// Prompt and generated tokens.
    tokens: Vec<u32>,
    prompt_len: usize,
    finish: Option<Finish>,
}

/// The positions that a generation needs, checked against what the model has.
///
/// # Errors
/// If the prompt is empty or leaves no room for a new token, or the context asked for is beyond the model's.
pub fn context_for(
    prompt: usize,
    new_tokens: usize,
    asked: Option<usize>,
    model_context: usize,
) -> Result<usize> {
    if prompt == 0 || new_tokens == 0 {
        return Err(Error::Usage("a generation needs at least one token of prompt and one new token".into()));
    }
    if let Some(asked) = asked.filter(|asked| *asked > model_context) {
        return Err(Error::ContextFull {
            needed: asked,
            context: model_context,
            hint: "that is the model's own context; ask for no more with -c".into(),
        });
    }
    let context = asked.unwrap_or(model_context.min(prompt.saturating_add(new_tokens)));
    if prompt >= context {
        let larger = if asked.is_some() && context < model_context { ", or raise -c" } else { "" };
        return Err(Error::ContextFull {
            needed: prompt + 1,
            context,
            hint: format!("the prompt has {prompt}, and a new one needs room: shorten the prompt{larger}"),
        });
    }
    Ok(context)
}

impl<'m> Session<'m> {
    /// Prepares a generation; nothing is computed yet.
    ///
    /// # Errors
    /// If the prompt is empty or does not fit, or the model is an encoder.
    pub fn new(
        decoder: &'m Decoder,
        tokenizer: Option<&'m Tokenizer>,
        prompt: &[u32],
        options: GenerationOptions,
    ) -> Result<Session<'m>> {
        decoder.config().check_generates()?;
        let model_context = decoder.config().context;
        let context = context_for(prompt.len(), options.max_new_tokens, options.context, model_context)?;
        Ok(Session {
            decoder,
            cache: decoder.new_cache(context)?,
            sampler: Sampler::new(options.sampling.clone()),
            stream: DecodeStream::behind(tokenizer, prompt),
            stop: StopFilter::new(&options.stop),
            options,
            tokens: prompt.to_vec(),
            prompt_len: prompt.len(),
            finish: None,
        })
    }

    /// Runs one step and answers its token; `None` once the text has ended.
    ///
    /// # Errors
    /// The decoder's, or the observer's.
    pub fn step(&mut self, observer: Option<&mut dyn AttentionObserver>) -> Result<Option<Token>> {
        if self.finish.is_some() {
            return Ok(None);
        }
        let fed = &self.tokens[self.cache.len()..];
        // A prompt pass can be long; a later step is short, and its token better whole.
        let interrupt = self.generated().is_empty().then(|| self.options.interrupt.clone());
        let request = Forward { observer, interrupt, ..Forward::default() };
        let logits = match self.decoder.forward(fed, &mut self.cache, request) {
            Err(Error::Interrupted) => {
                self.finish = Some(Finish::Interrupted);
                return Ok(None);
            }
            logits => logits?,
        };
        let logits = logits.flatten_all()?.to_vec1::<f32>()?;
        let id = self.sampler.sample(&logits, &self.tokens);
        self.tokens.push(id);

        let (mut text, stopped) = self.stop.push(&self.stream.push(id));
        self.finish = self.finish_after(id, stopped);
        if self.finish.is_some() && !stopped {
            // The end: what waited for the rest of a character or of a stop text is shown.
            text.push_str(&self.unfinished_text());
        }
        let log_probability = log_probability(&logits, id);
        Ok(Some(Token { id, text, log_probability, finish: self.finish }))
    }

    fn finish_after(&self, id: u32, stopped: bool) -> Option<Finish> {
        if stopped {
            Some(Finish::StopText)
        } else if self.options.end_tokens.contains(&id) {
            Some(Finish::EndToken)
        } else if self.generated().len() >= self.options.max_new_tokens {
            Some(Finish::MaxNewTokens)
        } else if self.tokens.len() >= self.cache.capacity() {
            Some(Finish::ContextFull)
        } else if self.options.interrupt.load(Ordering::Relaxed) {
            Some(Finish::Interrupted)
        } else {
            None
        }
    }

    /// Text that waited for the rest of a character or of a stop text, when a step has failed.
    pub fn unfinished_text(&mut self) -> String {
        let (mut text, stopped) = self.stop.push(&self.stream.finish());
        if !stopped {
            text.push_str(&self.stop.finish());
        }
        text
    }

    /// Why the generation ended, once it has.
    pub fn finish(&self) -> Option<Finish> {
        self.finish
    }

    /// The tokens generated so far.
    pub fn generated(&self) -> &[u32] {
        &self.tokens[self.prompt_len..]
    }

    /// Positions that fit.
    pub fn context(&self) -> usize {
        self.cache.capacity()
    }
}
