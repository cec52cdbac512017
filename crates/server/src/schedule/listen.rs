//! What a run tells while it runs, as events.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use pellucid_client::api::{Event, Log, Number, RunProgress, Saved, Token};
use pellucid_engine::{GeneratedToken, LogEntry, PrefixCache, RunOptions, SavedValue, Tensor};
use pellucid_graph::DType;

use crate::events::Channel;
use crate::models::Outline;

/// Tokens that wait for the rest of a character, at most: no character takes more.
const PENDING: usize = 16;
/// Elements of a value that are shown.
pub const SHOWN: usize = 64;

/// How a job runs: what it may take, and who is told.
pub struct Listening {
    /// Where it is told.
    pub channel: Arc<dyn Channel>,
    /// Its model, for the texts of tokens.
    pub outline: Arc<Outline>,
    /// Set to end it.
    pub cancel: Arc<AtomicBool>,
    /// Set where it logs more than it may.
    pub overflows: Arc<AtomicBool>,
    /// Bytes that it may log.
    pub log_bytes: u64,
    /// Its account's cache of prefixes.
    pub prefixes: Option<Arc<PrefixCache>>,
}

impl Listening {
    /// The options of its run.
    pub fn options(self, memory_bytes: u64, seconds: Option<f64>) -> RunOptions {
        let Listening { channel, outline, cancel, overflows, log_bytes, prefixes } = self;
        let (logs, tokens, values, progress) = (channel.clone(), channel.clone(), channel.clone(), channel);
        let logged = AtomicU64::new(0);
        let end = cancel.clone();
        let texts: Mutex<HashMap<(usize, usize), Text>> = Mutex::default();
        RunOptions {
            memory_bytes: Some(memory_bytes),
            kept_bytes: None,
            seconds,
            cancel: Some(cancel),
            prefixes,
            on_log: Some(Arc::new(move |entry| {
                let bytes = entry.value.bytes_len() + entry.name.len() as u64 + 64;
                // What is logged stays in memory until the end.
                if logged.fetch_add(bytes, Ordering::Relaxed) + bytes > log_bytes {
                    overflows.store(true, Ordering::Relaxed);
                    end.store(true, Ordering::Relaxed);
                    return;
                }
                logs.push(&Event::Log(log(entry)));
            })),
            on_token: Some(Arc::new(move |made: &GeneratedToken| {
                let mut texts = texts.lock().unwrap_or_else(PoisonError::into_inner);
                let text = texts.entry((made.invoke, made.prompt)).or_default().add(made.token, &outline);
                tokens.push(&Event::Token(Token {
                    invoke: made.invoke as u64,
                    prompt: made.prompt as u64,
                    step: made.step,
                    token: made.token,
                    text,
                }));
            })),
            on_progress: Some(Arc::new(move |now| {
                progress.progress(RunProgress {
                    passes: now.passes as u64,
                    part: now.part,
                    layer: Some(now.layer),
                    layers: Some(now.layers),
                });
            })),
            on_saved: Some(Arc::new(move |value: &SavedValue<'_>| {
                values.push(&Event::Value(saved(value.name, value.value)))
            })),
        }
    }
}

fn log(entry: &LogEntry) -> Log {
    Log {
        name: entry.name.clone(),
        coordinates: entry.coordinates.clone(),
        step: entry.step,
        dtype: entry.value.dtype().to_string(),
        shape: entry.value.shape().iter().map(|&size| size as u64).collect(),
        values: numbers(&entry.value, SHOWN),
        truncated: entry.value.elements() > SHOWN,
    }
}

/// A saved value, in short; a small one whole.
pub fn saved(name: &str, value: &Tensor) -> Saved {
    Saved {
        name: name.to_owned(),
        dtype: value.dtype().to_string(),
        shape: value.shape().iter().map(|&size| size as u64).collect(),
        bytes: value.bytes_len(),
        values: (value.elements() <= SHOWN).then(|| numbers(value, SHOWN)),
    }
}

/// The first elements of a value, row by row.
pub fn numbers(value: &Tensor, most: usize) -> Vec<Number> {
    // The rest may be much more than there is room for: one number, expanded.
    let Ok(value) = value.first(most) else { return Vec::new() };
    let dtype = value.dtype();
    let whole = matches!(dtype, DType::I64 | DType::I32 | DType::U8 | DType::Bool);
    if whole {
        let elements = value.to_vec_i64().unwrap_or_default();
        let number = |element: i64| match dtype {
            DType::Bool => Number::Bool(element != 0),
            _ => Number::Integer(element),
        };
        return elements.into_iter().map(number).collect();
    }
    let elements = value.to_vec_f64().unwrap_or_default();
    elements.into_iter().map(Number::from_f64).collect()
}

/// The text of tokens as they come: a token's is known when its characters are complete.
#[derive(Default)]
struct Text {
    tokens: Vec<u32>,
    /// Tokens before these are needed no more.
    from: usize,
    /// The text of tokens before these is told.
    told: usize,
}

impl Text {
    fn add(&mut self, token: u32, outline: &Outline) -> String {
        let Some(tokenizer) = outline.model().tokenizer() else { return String::new() };
        self.tokens.push(token);
        let decode = |tokens: &[u32]| tokenizer.decode(tokens, false).unwrap_or_default();
        let before = decode(&self.tokens[self.from..self.told]);
        let now = decode(&self.tokens[self.from..]);
        let is_complete = now.len() > before.len() && !now.ends_with('\u{fffd}');
        // Who makes halves of characters for ever is not decoded from the first on each time.
        if !is_complete && self.tokens.len() - self.told < PENDING {
            return String::new();
        }
        self.from = self.told;
        self.told = self.tokens.len();
        now.get(before.len()..).unwrap_or_default().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_value_that_no_memory_holds_the_first_numbers_are_told() {
        // Four million million numbers, of which one is stored.
        let one = Tensor::from_f32(vec![1.5], &[1, 1]).unwrap();
        let spread = one.data().broadcast_as((1 << 21, 1 << 21)).unwrap();
        let spread = Tensor::new(spread, DType::F32).unwrap();
        assert_eq!(numbers(&spread, SHOWN), vec![Number::from_f64(1.5); SHOWN]);
        let entry = LogEntry { name: "p".into(), coordinates: Vec::new(), step: None, value: spread };
        let told = log(&entry);
        assert!(told.truncated && told.values.len() == SHOWN);
        assert_eq!(saved("s", &entry.value).values, None);
        // In the order of the rows, whatever the layout.
        let turned = Tensor::from_i64((0..6).collect(), &[2, 3]).unwrap();
        let turned = Tensor::new(turned.data().t().unwrap(), DType::I64).unwrap();
        assert_eq!(numbers(&turned, 4), [0, 3, 1, 4].map(Number::Integer));
        assert_eq!(numbers(&turned, SHOWN).len(), 6);
    }

    #[tokio::test]
    async fn halves_of_characters_are_told_before_they_are_many() {
        let config = crate::config::ModelConfig {
            id: crate::config::BUNDLED.into(),
            source: None,
            dtype: crate::config::WeightType::F32,
            revision: None,
            pinned: false,
            default: true,
            strict: false,
        };
        let outline = Arc::new(crate::models::Entry::new(config)).outline().await.unwrap();
        let tokenizer = outline.model().tokenizer().unwrap();
        let half = (0..tokenizer.id_limit() as u32)
            .find(|&token| tokenizer.decode(&[token], false).is_ok_and(|text| text == "\u{fffd}"))
            .unwrap();
        let mut text = Text::default();
        for _ in 0..20 * PENDING {
            text.add(half, &outline);
            assert!(text.tokens.len() - text.from <= 2 * PENDING);
        }
        assert!(text.told > 0);
    }
}
