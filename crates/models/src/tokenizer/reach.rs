//! How much text a token can stand for.

use tokenizers::{PreTokenizerWrapper, Tokenizer as Inner};

/// By how much more text than its longest token a token may stand for, of a tokenizer that may leave out some of the text.
const GENEROUS: usize = 64;

/// The most bytes of text that one token stands for. Of tokenizers on bytes, which leave nothing out, it is the longest token's own
/// length; of others, whose normalisers and white space may swallow text, it is taken to be many times that.
pub(super) fn bytes_of_a_token(inner: &Inner) -> usize {
    let longest = inner.get_vocab(true).keys().map(String::len).max().unwrap_or(0).max(1);
    let on_bytes = matches!(inner.get_pre_tokenizer(), Some(PreTokenizerWrapper::ByteLevel(_)));
    let strips = inner.get_added_tokens_decoder().values().any(|token| token.lstrip || token.rstrip);
    if on_bytes && inner.get_normalizer().is_none() && !strips {
        longest
    } else {
        longest.saturating_mul(GENEROUS)
    }
}
