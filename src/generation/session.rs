//! One generation: the prompt pass, then a step a token, until something ends it. A step is a forward
//! pass, or with [speculation](super::speculation) sometimes the next row of the last one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::decode_stream::DecodeStream;
use super::draft_pass::DraftPass;
use super::prompt_cache::PromptCache;
use super::sampler::{Sampler, Sampling, log_probability};
use super::speculation::{Acceptance, Drafter};
use super::stop::StopFilter;
use crate::checkpoint::Tokenizer;
use crate::error::{Error, Result};
use crate::model::{AttentionObserver, Decoder, Forward, HeadIntervention, KvCache};

/// What a generation is to do.
#[derive(Clone, Debug)]
pub struct GenerationOptions {
    pub max_new_tokens: usize,
    /// Positions of prompt and new tokens together; `None`: what is needed, up to the model's own.
    pub context: Option<usize>,
    pub sampling: Sampling,
    /// Tokens that speculation guesses before each pass, at most; 0: it is off. With the kernels the
    /// text, its probabilities and its maps are those without it, bit for bit; other arithmetic
    /// rounds a little differently when it computes several tokens together. Nothing is guessed
    /// where [positions depend on the text's length](crate::model::ModelConfig::positions_depend_on_length).
    pub speculate: usize,
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
///     speculate: 0,
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
    drafter: Option<Drafter>,
    /// A pass over a draft, some of whose rows may still count.
    draft_pass: Option<DraftPass>,
    acceptance: Acceptance,
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
            drafter: (options.speculate > 0 && !decoder.config().positions_depend_on_length())
                .then(|| Drafter::new(options.speculate)),
            draft_pass: None,
            acceptance: Acceptance::default(),
            stream: DecodeStream::behind(tokenizer, prompt),
            stop: StopFilter::new(&options.stop),
            options,
            tokens: prompt.to_vec(),
            prompt_len: prompt.len(),
            finish: None,
        })
    }

    /// Silences heads in the whole generation, before the first step.
    ///
    /// # Errors
    /// If the session has begun.
    pub fn silence(&mut self, intervention: HeadIntervention) -> Result<()> {
        self.cache.silence(intervention)
    }

    /// Takes as much of the prompt as a file holds of it, before the first step, which then reads the
    /// rest; answers the number of tokens.
    ///
    /// # Errors
    /// If the file is damaged or cannot be read; or the session has begun.
    pub fn restore(&mut self, file: &PromptCache) -> Result<usize> {
        if !self.cache.is_empty() {
            return Err(Error::Usage("a prompt is restored before the first step".into()));
        }
        self.check_unsilenced()?;
        file.restore(self.decoder, &mut self.cache, &self.tokens)
    }

    /// Saves the prompt, once the first step has read it, where the file holds less; answers the
    /// file's size if so.
    ///
    /// # Errors
    /// If the file cannot be written: the old one then stays. Or if the prompt has not been read.
    pub fn save(&self, file: PromptCache) -> Result<Option<u64>> {
        if self.cache.len() < self.prompt_len {
            return Err(Error::Usage("a prompt is saved after the first step".into()));
        }
        self.check_unsilenced()?;
        file.save(self.decoder, &self.cache, &self.tokens[..self.prompt_len])
    }

    /// A prompt cache is the whole model's; without some heads keys and values are others.
    fn check_unsilenced(&self) -> Result<()> {
        if !self.cache.is_silenced() {
            return Ok(());
        }
        Err(Error::Usage(
            "a prompt cache holds what the whole model made of a prompt, not without some heads".into(),
        ))
    }

    /// Runs one step and answers its token; `None` once the text has ended.
    ///
    /// The observer sees the queries behind which this token was chosen: the prompt's, then one a
    /// step. While speculation guesses, the maps of the pass at hand are held until they are shown,
    /// 4 · (guessed tokens + 1) · keys bytes for each head of each layer that is wanted.
    ///
    /// # Errors
    /// The decoder's, or the observer's.
    pub fn step(&mut self, observer: Option<&mut dyn AttentionObserver>) -> Result<Option<Token>> {
        if self.finish.is_some() {
            return Ok(None);
        }
        let logits = match self.logits(observer) {
            Err(Error::Interrupted) => {
                self.finish = Some(Finish::Interrupted);
                return Ok(None);
            }
            logits => logits?,
        };
        let id = self.sampler.sample(&logits, &self.tokens);
        self.acceptance.tokens += usize::from(!self.generated().is_empty());
        self.tokens.push(id);
        self.compare_with_draft(id);

        let (mut text, stopped) = self.stop.push(&self.stream.push(id));
        self.finish = self.finish_after(id, stopped);
        if self.finish.is_some() && !stopped {
            // The end: what waited for the rest of a character or of a stop text is shown.
            text.push_str(&self.unfinished_text());
        }
        let log_probability = log_probability(&logits, id);
        Ok(Some(Token { id, text, log_probability, finish: self.finish }))
    }

    /// The logits behind the last token: the next row of the pass at hand, or a new pass.
    fn logits(&mut self, observer: Option<&mut dyn AttentionObserver>) -> Result<Vec<f32>> {
        if let (Some(pass), Some(observer)) = (&self.draft_pass, &observer)
            && !pass.serves(&**observer)
        {
            // It wants maps that nobody wanted when the pass ran: the last token is fed again.
            self.end_draft_pass();
        }
        if self.draft_pass.is_none() {
            self.draft_pass = self.feed_draft(observer.as_deref())?;
        }
        if let Some(pass) = &self.draft_pass {
            return Ok(pass.row(observer)?.to_vec());
        }
        let fed = &self.tokens[self.cache.len()..];
        // A prompt pass can be long; a later step is short, and its token better whole.
        let is_prompt = self.generated().is_empty();
        let interrupt = is_prompt.then(|| self.options.interrupt.clone());
        let request = Forward { observer, interrupt, ..Forward::default() };
        let logits = self.decoder.forward(fed, &mut self.cache, request)?;
        self.acceptance.passes += usize::from(!is_prompt);
        Ok(logits.flatten_all()?.to_vec1()?)
    }

    /// Feeds the last token with a draft behind it, if there is one.
    fn feed_draft(&mut self, observer: Option<&dyn AttentionObserver>) -> Result<Option<DraftPass>> {
        // The norms of values are not kept for later.
        let layers = 0..self.decoder.config().layers;
        if observer.is_some_and(|observer| layers.clone().any(|layer| observer.wants_value_norms(layer))) {
            return Ok(None);
        }
        let draft = self.draft();
        let (count, last) = (draft.len(), self.tokens[self.tokens.len() - 1]);
        if count == 0 {
            return Ok(None);
        }
        match DraftPass::run(self.decoder, &mut self.cache, last, draft, observer) {
            // Perhaps at a drafted token only, and the text may never get there.
            Err(Error::NotFinite { .. }) => Ok(None),
            pass => {
                let pass = pass?;
                self.acceptance.passes += 1;
                self.acceptance.drafted += count;
                Ok(Some(pass))
            }
        }
    }

    /// A draft as long as it can count.
    fn draft(&mut self) -> Vec<u32> {
        let generated = self.tokens.len() - self.prompt_len;
        let Some(drafter) = self.drafter.as_mut().filter(|_| generated > 0) else { return vec![] };
        let wanted = self.options.max_new_tokens - generated;
        let room = wanted.min(self.cache.capacity() - self.tokens.len());
        // The pass gives one token more than were drafted.
        let mut draft = drafter.draft(&self.tokens, room - 1);
        let ends = |id: &u32| self.options.end_tokens.contains(id);
        draft.truncate(draft.iter().position(ends).unwrap_or(draft.len()));
        draft
    }

    /// Goes on with the pass over a draft if it was fed the token that was chosen now.
    fn compare_with_draft(&mut self, id: u32) {
        let Some(pass) = &mut self.draft_pass else { return };
        if pass.accept(id) {
            self.acceptance.accepted += 1;
        } else {
            self.end_draft_pass();
        }
    }

    /// Forgets what was fed behind the tokens that count.
    fn end_draft_pass(&mut self) {
        if let Some(pass) = self.draft_pass.take() {
            self.cache.truncate(self.tokens.len() - 1);
            self.drafter.iter_mut().for_each(|drafter| drafter.learn(pass.drafted(), pass.accepted()));
        }
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

    /// How speculation has gone so far, where there is any.
    pub fn acceptance(&self) -> Option<Acceptance> {
        self.drafter.as_ref().map(|_| self.acceptance)
    }

    /// Positions that fit.
    pub fn context(&self) -> usize {
        self.cache.capacity()
    }
}
