//! Texts to token ids and back, as the model's authors published it.

mod folder;
mod guard;
mod reach;
mod streaming;

use std::fmt;
use std::path::Path;
use std::sync::OnceLock;

use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{AddedToken, Tokenizer as Inner};

pub(crate) use self::folder::{read_if_there, read_json};
pub(crate) use self::guard::guarded;
pub use self::streaming::StreamingDecoder;
use crate::{Error, Result};

/// The special tokens that have a role, as text; a model may lack any of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SpecialTokens {
    /// Begins a text.
    pub bos: Option<String>,
    /// Ends a text.
    pub eos: Option<String>,
    /// Stands for what the vocabulary lacks.
    pub unk: Option<String>,
    /// Fills up.
    pub pad: Option<String>,
}

impl SpecialTokens {
    /// Name and text of those there are, named as in `tokenizer_config.json`: `bos_token`, …
    pub fn named(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let all = [
            ("bos_token", &self.bos),
            ("eos_token", &self.eos),
            ("unk_token", &self.unk),
            ("pad_token", &self.pad),
        ];
        all.into_iter().filter_map(|(name, token)| Some((name, token.as_deref()?)))
    }
}

/// A model's tokenizer.
///
/// ```no_run
/// # fn main() -> pellucid_models::Result<()> {
/// use pellucid_models::tokenizer::Tokenizer;
///
/// let Some(tokenizer) = Tokenizer::from_folder("path/to/model")? else { return Ok(()) };
/// let ids = tokenizer.encode("The Eiffel Tower is in", true)?;
/// assert_eq!(tokenizer.decode(&ids, true)?, "The Eiffel Tower is in");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Tokenizer {
    inner: Inner,
    origin: String,
    special: SpecialTokens,
    bytes_of_a_token: OnceLock<usize>,
    /// Looked up once: a vocabulary is large.
    id_limit: OnceLock<usize>,
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Tokenizer")
            .field("origin", &self.origin)
            .field("vocab_size", &self.vocab_size())
            .field("special", &self.special)
            .finish_non_exhaustive()
    }
}

impl Tokenizer {
    /// The tokenizer of a Hugging Face folder: `tokenizer.json`, or `vocab.json` and `merges.txt`, with the special
    /// tokens of `tokenizer_config.json`. `None` where the folder has none of them.
    ///
    /// # Errors
    /// When a file is there and cannot be read.
    pub fn from_folder(folder: impl AsRef<Path>) -> Result<Option<Self>> {
        folder::open(folder.as_ref())
    }

    /// A tokenizer from the text of a `tokenizer.json`. It knows the roles of no special tokens.
    ///
    /// # Errors
    /// When the text is not that of a tokenizer.
    pub fn from_json(json: &[u8]) -> Result<Self> {
        let origin = "`tokenizer.json`".to_owned();
        let inner = guarded(&origin, || Inner::from_bytes(json))?;
        Ok(Self::from_parts(inner, origin, SpecialTokens::default()))
    }

    pub(crate) fn from_parts(mut inner: Inner, origin: String, special: SpecialTokens) -> Self {
        // How prompts of unequal length are aligned is the engine's affair, and no prompt is cut unasked.
        inner.with_padding(None);
        if inner.get_truncation().is_some() {
            // Taking truncation away cannot fail.
            let _ = inner.with_truncation(None);
        }
        Self { inner, origin, special, bytes_of_a_token: OnceLock::new(), id_limit: OnceLock::new() }
    }

    /// The token ids of a text. With `special_tokens`, those that the tokenizer adds by default are added (such as a
    /// token that begins the text); special tokens that are written out in the text are recognised in either case.
    ///
    /// # Errors
    /// When the tokenizer cannot express the text, which few can fail to.
    pub fn encode(&self, text: &str, special_tokens: bool) -> Result<Vec<u32>> {
        let encoding = guarded(&self.origin, || self.inner.encode_fast(text, special_tokens))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The text of token ids, `skip_special` leaving out special tokens. Bytes that are not UTF-8 become U+FFFD.
    ///
    /// # Errors
    /// When the tokenizer's decoder refuses, which no known one does.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        guarded(&self.origin, || self.inner.decode(ids, skip_special))
    }

    /// Decodes ids one by one as they are generated, after `context`: the ids before them, on which their text may
    /// depend (whether it starts with a space, say), and which are not repeated.
    #[must_use]
    pub fn stream(&self, context: &[u32], skip_special: bool) -> StreamingDecoder<'_> {
        StreamingDecoder::new(self, context, skip_special)
    }

    /// A token as the vocabulary writes it: `Ġstore` for " store" in GPT-2's. For a readable form decode the one id.
    #[must_use]
    pub fn token_text(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The id of a token, as the vocabulary writes it.
    #[must_use]
    pub fn id_of(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The number of tokens, added ones included. A model's vocabulary may be larger: it is often padded.
    #[must_use]
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// Whether a text of so many bytes cannot be of so few tokens, whatever it says: asked before a long text is tokenised.
    #[must_use]
    pub fn is_beyond(&self, bytes: usize, tokens: u64) -> bool {
        let each = *self.bytes_of_a_token.get_or_init(|| reach::bytes_of_a_token(&self.inner));
        bytes as u64 > tokens.saturating_mul(each as u64)
    }

    /// One more than the highest id of its tokens. Rows of a model beyond it stand for nothing.
    #[must_use]
    pub fn id_limit(&self) -> usize {
        *self.id_limit.get_or_init(|| {
            self.inner.get_vocab(true).into_values().max().map_or(0, |highest| highest as usize + 1)
        })
    }

    /// The special tokens that have a role.
    #[must_use]
    pub fn special_tokens(&self) -> &SpecialTokens {
        &self.special
    }

    /// The id of the token that begins a text.
    #[must_use]
    pub fn bos_id(&self) -> Option<u32> {
        self.id_of(self.special.bos.as_deref()?)
    }

    /// The id of the token that ends a text.
    #[must_use]
    pub fn eos_id(&self) -> Option<u32> {
        self.id_of(self.special.eos.as_deref()?)
    }

    /// The tokenizer as the text of a `tokenizer.json`, which is self-contained.
    ///
    /// # Errors
    /// When it cannot be written as JSON.
    pub fn to_json(&self) -> Result<String> {
        self.inner.to_string(false).map_err(|error| self.error(error))
    }

    fn error(&self, error: impl fmt::Display) -> Error {
        Error::Tokenizer { origin: self.origin.clone(), reason: error.to_string() }
    }
}

/// Has `inner` add just these tokens to a text, whatever it added before.
pub(crate) fn set_added_tokens(
    inner: &mut Inner,
    origin: &str,
    before: Option<&str>,
    after: Option<&str>,
) -> Result<()> {
    let error = |reason: String| Error::Tokenizer { origin: origin.to_owned(), reason };
    let mut pieces = Vec::new();
    let mut used = Vec::new();
    for (token, first) in [(before, true), (after, false)] {
        if let Some(token) = token {
            let id = inner
                .token_to_id(token)
                .ok_or_else(|| error(format!("its special token `{token}` is not in its vocabulary")))?;
            used.push((token.to_owned(), id));
            pieces.push((first, token));
        }
    }
    let mut single: Vec<String> = vec!["$A".to_owned()];
    for (first, token) in pieces {
        let at = if first { 0 } else { single.len() };
        single.insert(at, token.to_owned());
    }
    let template = TemplateProcessing::builder()
        .try_single(single)
        .map_err(|reason| error(reason.to_string()))?
        .special_tokens(used)
        .build()
        .map_err(|reason| error(reason.to_string()))?;
    inner.with_post_processor(Some(template));
    Ok(())
}

/// Makes `token` one that is never split, whether the vocabulary has it or not.
pub(crate) fn add_special_token(inner: &mut Inner, token: &str) -> tokenizers::Result<()> {
    inner.add_special_tokens([AddedToken::from(token, true)]).map(drop)
}
