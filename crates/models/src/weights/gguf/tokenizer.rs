//! The tokenizer that a GGUF file's metadata describes.

use std::collections::{HashMap, HashSet};

use tokenizers::decoders::byte_fallback::ByteFallback;
use tokenizers::decoders::fuse::Fuse;
use tokenizers::decoders::sequence::Sequence as DecoderSequence;
use tokenizers::decoders::strip::Strip;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::normalizers::prepend::Prepend;
use tokenizers::normalizers::replace::Replace;
use tokenizers::normalizers::unicode::NFC;
use tokenizers::normalizers::utils::Sequence as NormalizerSequence;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{
    AddedToken, DecoderWrapper, PreTokenizerWrapper, SplitDelimiterBehavior, Tokenizer as Inner,
};

use super::reader::GgufFile;
use crate::tokenizer::{SpecialTokens, Tokenizer, set_added_tokens};
use crate::{Error, Result};

/// The format's numbers for kinds of tokens.
const UNKNOWN: f32 = 2.0;
const CONTROL: f32 = 3.0;
const USER_DEFINED: f32 = 4.0;

/// The character that stands for a space in SentencePiece's vocabularies.
const SPACE: &str = "▁";

/// How a text is cut into pieces before pairs are merged, as `tokenizer.ggml.pre` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PreTokenizer {
    /// GPT-2's expression.
    Gpt2,
    /// The same, of a tokenizer that normalises to NFC first.
    Gpt2Nfc,
    /// Each digit alone, then GPT-2's.
    Digits,
    /// Llama 3's expression; pieces that are tokens are not merged, and texts begin with a token unless the file says
    /// otherwise.
    Llama3,
    /// Qwen 2's expression, after NFC.
    Qwen2,
}

const LLAMA3_EXPRESSION: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2_EXPRESSION: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

const PRE_TOKENIZERS: &[(&str, PreTokenizer)] = &[
    ("default", PreTokenizer::Gpt2),
    ("gpt-2", PreTokenizer::Gpt2),
    ("phi-2", PreTokenizer::Gpt2),
    ("roberta-bpe", PreTokenizer::Gpt2),
    ("gpt-neox", PreTokenizer::Gpt2Nfc),
    ("olmo", PreTokenizer::Gpt2Nfc),
    ("mpt", PreTokenizer::Gpt2Nfc),
    ("smollm", PreTokenizer::Digits),
    ("starcoder", PreTokenizer::Digits),
    ("refact", PreTokenizer::Digits),
    ("codeshell", PreTokenizer::Digits),
    ("llama-bpe", PreTokenizer::Llama3),
    ("llama3", PreTokenizer::Llama3),
    ("llama-v3", PreTokenizer::Llama3),
    ("qwen2", PreTokenizer::Qwen2),
    ("deepseek-r1-qwen", PreTokenizer::Qwen2),
];

/// The tokenizer; `None` where the file has none.
pub(super) fn tokenizer(file: &GgufFile) -> Result<Option<Tokenizer>> {
    let origin = file.file.path.display().to_string();
    let Some(model) = file.text("tokenizer.ggml.model") else { return Ok(None) };
    let tokens = file.texts("tokenizer.ggml.tokens")?.ok_or_else(|| Error::Tokenizer {
        origin: origin.clone(),
        reason: "the metadata has no `tokenizer.ggml.tokens`".to_owned(),
    })?;
    let kinds = file.numbers("tokenizer.ggml.token_type")?.unwrap_or_default();
    let vocabulary = Vocabulary { file, origin, tokens, kinds };
    let (mut inner, adds_bos) = match model {
        "gpt2" => vocabulary.byte_level()?,
        "llama" => (vocabulary.sentence_piece()?, true),
        other => {
            return Err(Error::Unsupported {
                origin: vocabulary.origin,
                what: format!("tokenizer model `{other}`"),
                hint: "`gpt2` (byte-level pairs) and `llama` (SentencePiece) are".to_owned(),
            });
        }
    };
    vocabulary.add_marked_tokens(&mut inner)?;
    let special = vocabulary.special_tokens();
    let flag =
        |name: &str, default: bool| file.flag(&format!("tokenizer.ggml.add_{name}_token")).unwrap_or(default);
    let before = special.bos.as_deref().filter(|_| flag("bos", adds_bos));
    let after = special.eos.as_deref().filter(|_| flag("eos", false));
    set_added_tokens(&mut inner, &vocabulary.origin, before, after)?;
    Ok(Some(Tokenizer::from_parts(inner, vocabulary.origin, special)))
}

struct Vocabulary<'f> {
    file: &'f GgufFile,
    origin: String,
    /// By id.
    tokens: Vec<&'f str>,
    /// By id; empty where the file does not say.
    kinds: Vec<f32>,
}

impl Vocabulary<'_> {
    fn error(&self, reason: impl std::fmt::Display) -> Error {
        Error::Tokenizer { origin: self.origin.clone(), reason: reason.to_string() }
    }

    fn kind(&self, id: usize) -> f32 {
        self.kinds.get(id).copied().unwrap_or_default()
    }

    /// Token by id; where two ids share a text the first has it, as in the reference implementation.
    fn ids<'t>(&self, tokens: impl Iterator<Item = &'t str>) -> HashMap<&'t str, u32> {
        let mut ids = HashMap::new();
        for (id, token) in (0u32..).zip(tokens) {
            ids.entry(token).or_insert(id);
        }
        ids
    }

    fn special_tokens(&self) -> SpecialTokens {
        let token = |name: &str| {
            let id = self.file.count(&format!("tokenizer.ggml.{name}_token_id"))?;
            self.tokens.get(id).map(|token| (*token).to_owned())
        };
        SpecialTokens { bos: token("bos"), eos: token("eos"), unk: token("unknown"), pad: token("padding") }
    }

    /// Tokens that are marked as control or as the user's own are never cut into pieces; the first are special.
    fn add_marked_tokens(&self, inner: &mut Inner) -> Result<()> {
        let marked = |kind: f32| {
            let ids = (0..self.tokens.len()).filter(move |id| self.kind(*id) == kind);
            ids.map(move |id| AddedToken::from(self.tokens[id], kind == CONTROL).normalized(false))
        };
        inner.add_special_tokens(marked(CONTROL)).map_err(|error| self.error(error))?;
        inner.add_tokens(marked(USER_DEFINED)).map_err(|error| self.error(error))?;
        Ok(())
    }

    /// GPT-2's kind: pairs of bytes, each byte written as a visible character. Also whether texts begin with a token
    /// where the file does not say.
    fn byte_level(&self) -> Result<(Inner, bool)> {
        let kind = self.file.text("tokenizer.ggml.pre").unwrap_or("default");
        let Some((_, pre_tokenizer)) = PRE_TOKENIZERS.iter().find(|(name, _)| *name == kind) else {
            let known: Vec<&str> = PRE_TOKENIZERS.iter().map(|(name, _)| *name).collect();
            return Err(Error::Unsupported {
                origin: self.origin.clone(),
                what: format!("pre-tokenizer `{kind}`"),
                hint: format!("known are {}", known.join(", ")),
            });
        };
        let ids = self.ids(self.tokens.iter().copied());
        let merges = self.file.texts("tokenizer.ggml.merges")?.unwrap_or_default();
        let merges = merges.iter().map(|merge| {
            let pair = merge.split_once(' ').filter(|(left, right)| {
                let joined = [*left, *right].concat();
                [*left, *right, &joined].iter().all(|token| ids.contains_key(token))
            });
            let (left, right) =
                pair.ok_or_else(|| self.error(format!("`{merge}` is not a merge of two tokens")))?;
            Ok((left.to_owned(), right.to_owned()))
        });
        let merges = merges.collect::<Result<Vec<_>>>()?;
        let llama3 = *pre_tokenizer == PreTokenizer::Llama3;
        let model = BPE::builder()
            .vocab_and_merges(owned(&ids), merges)
            .ignore_merges(llama3)
            .build()
            .map_err(|error| self.error(error))?;
        let mut inner = Inner::new(model);
        let expression = |expression: &str| -> Result<Vec<PreTokenizerWrapper>> {
            let pattern = SplitPattern::Regex(expression.to_owned());
            let split = Split::new(pattern, SplitDelimiterBehavior::Isolated, false);
            let split = split.map_err(|error| self.error(error))?;
            Ok(vec![split.into(), ByteLevel::new(false, true, false).into()])
        };
        let whole = ByteLevel::new(false, true, true);
        let steps = match pre_tokenizer {
            PreTokenizer::Gpt2 | PreTokenizer::Gpt2Nfc => vec![whole.into()],
            PreTokenizer::Digits => vec![Digits::new(true).into(), whole.into()],
            PreTokenizer::Llama3 => expression(LLAMA3_EXPRESSION)?,
            PreTokenizer::Qwen2 => expression(QWEN2_EXPRESSION)?,
        };
        inner.with_pre_tokenizer(Some(Sequence::new(steps)));
        if matches!(pre_tokenizer, PreTokenizer::Gpt2Nfc | PreTokenizer::Qwen2) {
            inner.with_normalizer(Some(NFC)).map_err(|error| self.error(error))?;
        }
        inner.with_decoder(Some(ByteLevel::default()));
        Ok((inner, llama3))
    }

    /// SentencePiece's kind: a scored vocabulary, from which the merges are made again, and tokens for single bytes.
    fn sentence_piece(&self) -> Result<Inner> {
        let gemma = self.file.text("general.architecture").is_some_and(|name| name.starts_with("gemma"));
        let prefix = self.file.flag("tokenizer.ggml.add_space_prefix").unwrap_or(true);
        // Gemma's file has tokens of several spaces as spaces, where the vocabulary has them marked.
        let tokens: Vec<String> = self
            .tokens
            .iter()
            .map(|token| match token.bytes().all(|byte| byte == b' ') {
                true => token.replace(' ', SPACE),
                false => (*token).to_owned(),
            })
            .collect();
        let ids = self.ids(tokens.iter().map(String::as_str));
        let scores = if gemma {
            // Its scores are not in the order of its merges; its ids are.
            (0..tokens.len()).map(|id| -(id as f32)).collect()
        } else {
            self.file.numbers("tokenizer.ggml.scores")?.unwrap_or_default()
        };
        if scores.len() != tokens.len() {
            return Err(self.error(format!("{} scores for {} tokens", scores.len(), tokens.len())));
        }
        let merges = merges_of(&tokens, &ids, &scores);
        let unknown = (0..tokens.len()).find(|id| self.kind(*id) == UNKNOWN);
        let mut builder =
            BPE::builder().vocab_and_merges(owned(&ids), merges).fuse_unk(true).byte_fallback(true);
        if let Some(id) = unknown {
            builder = builder.unk_token(tokens[id].clone());
        }
        let mut inner = Inner::new(builder.build().map_err(|error| self.error(error))?);
        let replace = |from: &str, to: &str| Replace::new(from, to).map_err(|error| self.error(error));
        // A text begins with a space, whether it has one already or not, as does one after a special token.
        let mut normalizers = vec![replace(" ", SPACE)?.into()];
        if prefix {
            normalizers.insert(0, Prepend::new(SPACE.to_owned()).into());
        }
        let normalizers = NormalizerSequence::new(normalizers);
        inner.with_normalizer(Some(normalizers)).map_err(|error| self.error(error))?;
        let mut decoders: Vec<DecoderWrapper> =
            vec![replace(SPACE, " ")?.into(), ByteFallback::new().into(), Fuse::new().into()];
        if prefix {
            decoders.push(Strip::new(' ', 1, 0).into());
        }
        inner.with_decoder(Some(DecoderSequence::new(decoders)));
        Ok(inner)
    }
}

/// The merges that a scored vocabulary implies: each way to cut a token into two tokens, best tokens first; among the
/// ways to cut one, the longest first piece first.
fn merges_of(tokens: &[String], ids: &HashMap<&str, u32>, scores: &[f32]) -> Vec<(String, String)> {
    let mut merges = Vec::new();
    let mut seen = HashSet::new();
    for (token, score) in tokens.iter().zip(scores) {
        if !seen.insert(token) {
            continue;
        }
        for (at, _) in token.char_indices().skip(1) {
            let (left, right) = token.split_at(at);
            if ids.contains_key(left) && ids.contains_key(right) {
                let lengths = (left.chars().count(), right.chars().count());
                merges.push((*score, lengths, (left, right)));
            }
        }
    }
    merges.sort_by(|a, b| b.0.total_cmp(&a.0).then(b.1.cmp(&a.1)));
    merges.into_iter().map(|(.., (left, right))| (left.to_owned(), right.to_owned())).collect()
}

fn owned(ids: &HashMap<&str, u32>) -> Vocab {
    ids.iter().map(|(token, id)| ((*token).to_owned(), *id)).collect()
}
