//! Decoding one id at a time.

use super::Tokenizer;
use crate::Result;

/// Ids before the first that are kept as context.
const CONTEXT: usize = 8;

/// Gives the text of ids as they come, and never half a character: what several tokens spell together is given with
/// the last of them. The pieces, joined, with [`StreamingDecoder::finish`], are the text that decoding all at once
/// adds to the context's.
#[derive(Debug)]
pub struct StreamingDecoder<'t> {
    tokenizer: &'t Tokenizer,
    skip_special: bool,
    /// The ids that are still of importance: those before `given` have had their text given, and are there because
    /// the text of later ones may depend on them.
    ids: Vec<u32>,
    given: usize,
}

impl<'t> StreamingDecoder<'t> {
    pub(super) fn new(tokenizer: &'t Tokenizer, context: &[u32], skip_special: bool) -> Self {
        let ids = context[context.len().saturating_sub(CONTEXT)..].to_vec();
        Self { tokenizer, skip_special, given: ids.len(), ids }
    }

    /// The text that `id` completes; `None` while it does not complete any.
    ///
    /// # Errors
    /// As [`Tokenizer::decode`].
    pub fn push(&mut self, id: u32) -> Result<Option<String>> {
        self.ids.push(id);
        let (before, all) = self.texts()?;
        // A character that is not whole yet shows as U+FFFD at the end.
        if all.ends_with('\u{fffd}') || all.len() <= before.len() {
            return Ok(None);
        }
        self.give(&before, &all)
    }

    /// What is left at the end: characters that will never be whole, as U+FFFD.
    ///
    /// # Errors
    /// As [`Tokenizer::decode`].
    pub fn finish(&mut self) -> Result<Option<String>> {
        let (before, all) = self.texts()?;
        if all.len() <= before.len() {
            return Ok(None);
        }
        self.give(&before, &all)
    }

    /// The text of what was given, and of everything.
    fn texts(&self) -> Result<(String, String)> {
        let before = self.tokenizer.decode(&self.ids[..self.given], self.skip_special)?;
        let all = self.tokenizer.decode(&self.ids, self.skip_special)?;
        Ok((before, all))
    }

    fn give(&mut self, before: &str, all: &str) -> Result<Option<String>> {
        // The two agree in what was given before, unless the context ended within a character.
        let shared = before.bytes().zip(all.bytes()).take_while(|(a, b)| a == b).count();
        let text = if all.is_char_boundary(shared) { all[shared..].to_owned() } else { all.to_owned() };
        // What was just given is the context of what comes.
        self.ids.drain(..self.given);
        self.given = self.ids.len();
        Ok(Some(text))
    }
}
