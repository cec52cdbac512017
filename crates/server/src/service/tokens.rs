//! Texts as token ids, and back.

use bytes::Bytes;
use pellucid_client::api::{
    DecodeRequest, DecodeResponse, EncodeRequest, EncodeResponse, MAXIMUM_TEXT_SIZE, MAXIMUM_TEXTS, Problem,
    ProblemKind,
};
use pellucid_models::chat_template::Message;
use serde::de::DeserializeOwned;
use tracing::info_span;

use super::compute::{Step, Work};
use super::{Caller, Result, Service};
use crate::account::exceeded;

/// Requests of one account that wait for their turn or have it. A pool of threads that tokenises a data set has so many.
const AT_ONCE: usize = 16;

fn work() -> Work {
    Work { most: AT_ONCE, span: || info_span!("tokenise") }
}

impl Service {
    /// Texts as token ids: the body is an [`EncodeRequest`].
    pub async fn encode(&self, caller: &Caller, body: Bytes) -> Result<EncodeResponse> {
        let encode = move |service: &Service, caller: &Caller| {
            let request: EncodeRequest = read(&body)?;
            bounded(request.texts.len(), request.texts.iter().map(String::len).sum())?;
            let entry = service.entry(caller, request.model.as_deref())?.clone();
            let Some(outline) = entry.opened() else { return Ok(Step::Opens(entry)) };
            let model = outline.model();
            let tokenizer = model.tokenizer().ok_or_else(|| no_tokenizer(&model.spec().name))?;
            let encode = |text: &String| {
                if !request.chat {
                    return tokenizer.encode(text, request.special_tokens);
                }
                let template = model.chat_template();
                let turn =
                    template.map(|template| template.apply(&[Message::user(text)], true)).transpose()?;
                tokenizer.encode(turn.as_deref().unwrap_or(text), false)
            };
            if request.chat && model.chat_template().is_none() {
                let message = format!("The model `{}` came without a chat template.", model.spec().name);
                return Err(wrong(message));
            }
            let tokens = request.texts.iter().map(encode).collect::<std::result::Result<_, _>>();
            let tokens = tokens.map_err(|error| wrong(error.to_string()))?;
            Ok(Step::Done(EncodeResponse { model: entry.id().to_owned(), tokens }))
        };
        self.compute(caller, work(), encode).await
    }

    /// The texts of token ids: the body is a [`DecodeRequest`].
    pub async fn decode(&self, caller: &Caller, body: Bytes) -> Result<DecodeResponse> {
        let decode = move |service: &Service, caller: &Caller| {
            let request: DecodeRequest = read(&body)?;
            bounded(request.tokens.len(), request.tokens.iter().map(Vec::len).sum())?;
            let entry = service.entry(caller, request.model.as_deref())?.clone();
            let Some(outline) = entry.opened() else { return Ok(Step::Opens(entry)) };
            let model = outline.model();
            let tokenizer = model.tokenizer().ok_or_else(|| no_tokenizer(&model.spec().name))?;
            let texts = request.tokens.iter().map(|tokens| tokenizer.decode(tokens, false));
            let texts = texts.collect::<std::result::Result<_, _>>();
            let texts = texts.map_err(|error| wrong(error.to_string()))?;
            Ok(Step::Done(DecodeResponse { model: entry.id().to_owned(), texts }))
        };
        self.compute(caller, work(), decode).await
    }
}

fn wrong(message: String) -> Box<Problem> {
    Box::new(Problem::new(ProblemKind::BadRequest, message))
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T> {
    serde_json::from_slice(body).map_err(|error| wrong(format!("The body: {error}")))
}

fn bounded(count: usize, size: usize) -> Result<()> {
    let bounds = [
        ("texts", MAXIMUM_TEXTS, count, "texts"),
        ("text_size", MAXIMUM_TEXT_SIZE, size, "bytes of text, or tokens"),
    ];
    for (name, most, used, unit) in bounds {
        if used > most {
            let mut problem = exceeded(ProblemKind::TooLarge, name, most as f64, used as f64, unit);
            problem.detail = Some(format!(
                "At most {MAXIMUM_TEXTS} texts of together {MAXIMUM_TEXT_SIZE} bytes or tokens are taken at once."
            ));
            return Err(Box::new(problem));
        }
    }
    Ok(())
}

fn no_tokenizer(name: &str) -> Box<Problem> {
    wrong(format!("The model `{name}` came without a tokenizer."))
}
