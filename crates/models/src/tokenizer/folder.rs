//! The tokenizer of a Hugging Face folder.

use std::path::Path;

use serde_json::Value;
use tokenizers::Tokenizer as Inner;
use tokenizers::models::bpe::BPE;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;

use super::{SpecialTokens, Tokenizer, add_special_token, guarded, set_added_tokens};
use crate::{Error, Result};

/// The longest file that is read here, in bytes. The largest vocabularies take about 35 MB.
const MAXIMUM_FILE_BYTES: u64 = 256 << 20;

pub(super) fn open(folder: &Path) -> Result<Option<Tokenizer>> {
    let origin = folder.display().to_string();
    let config = read_json(&folder.join("tokenizer_config.json"))?.unwrap_or(Value::Null);
    let map = read_json(&folder.join("special_tokens_map.json"))?.unwrap_or(Value::Null);
    let special = special_tokens(&config, &map);
    let mut inner = if let Some(json) = read_if_there(&folder.join("tokenizer.json"))? {
        guarded(&origin, || Inner::from_bytes(json))?
    } else if folder.join("vocab.json").is_file() && folder.join("merges.txt").is_file() {
        guarded(&origin, || {
            let mut inner = byte_level_bpe(folder)?;
            for (_, token) in special.named() {
                add_special_token(&mut inner, token)?;
            }
            Ok(inner)
        })?
    } else {
        return Ok(None);
    };

    // As transformers does it: what the configuration says explicitly outweighs the tokenizer's own default.
    let flag = |name: &str| config.get(name).and_then(Value::as_bool);
    if flag("add_bos_token").or(flag("add_eos_token")).is_some() || inner.get_post_processor().is_none() {
        let before = special.bos.as_deref().filter(|_| flag("add_bos_token") == Some(true));
        let after = special.eos.as_deref().filter(|_| flag("add_eos_token") == Some(true));
        set_added_tokens(&mut inner, &origin, before, after)?;
    }
    Ok(Some(Tokenizer::from_parts(inner, origin, special)))
}

/// GPT-2's kind of tokenizer, which older folders hold as `vocab.json` and `merges.txt`.
fn byte_level_bpe(folder: &Path) -> tokenizers::Result<Inner> {
    let path = |name: &str| folder.join(name).to_string_lossy().into_owned();
    let model = BPE::from_file(&path("vocab.json"), &path("merges.txt")).build()?;
    let mut inner = Inner::new(model);
    inner.with_pre_tokenizer(Some(ByteLevel::default().add_prefix_space(false)));
    inner.with_decoder(Some(ByteLevel::default()));
    Ok(inner)
}

/// Special tokens are written as text or as an object with `content`.
fn special_tokens(config: &Value, map: &Value) -> SpecialTokens {
    let token = |name: &str| {
        [config, map].into_iter().find_map(|file| {
            let token = file.get(name)?;
            Some(token.as_str().or_else(|| token.get("content")?.as_str())?.to_owned())
        })
    };
    SpecialTokens {
        bos: token("bos_token"),
        eos: token("eos_token"),
        unk: token("unk_token"),
        pad: token("pad_token"),
    }
}

/// A file's JSON; `None` where there is no such file.
pub(crate) fn read_json(path: &Path) -> Result<Option<Value>> {
    let Some(text) = read_if_there(path)? else { return Ok(None) };
    let value = serde_json::from_slice(&text).map_err(|error| Error::malformed(path, "JSON", error))?;
    Ok(Some(value))
}

/// A file's bytes; `None` where there is no such file.
pub(crate) fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>> {
    if !path.exists() {
        return Ok(None);
    }
    let length = std::fs::metadata(path).map_err(Error::io("read", path))?.len();
    if length > MAXIMUM_FILE_BYTES {
        let reason = format!("it is longer than {MAXIMUM_FILE_BYTES} bytes");
        return Err(Error::malformed(path, "JSON", reason));
    }
    std::fs::read(path).map(Some).map_err(Error::io("read", path))
}
