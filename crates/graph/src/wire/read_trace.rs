//! Reads a trace: its invokes and how it generates.

use std::borrow::Cow;
use std::collections::HashMap;

use super::json::{Item, Items};
use super::read_argument::is_object_with;
use super::reader::{Fields, Invokes, Reader, Segment};
use crate::fault::quote;
use crate::limits;
use crate::program::{Generation, Invoke, NodeId, Prompts, Sampling, Trace};

/// The fields of an invoke.
pub(super) const INVOKE_FIELDS: [&str; 6] =
    ["name", "prompt", "prompts", "tokens", "special_tokens", "edits"];
/// The fields of the prompts of a parameter.
pub(super) const AXIS_FIELDS: [&str; 1] = ["axis"];
/// The fields of a generation.
pub(super) const GENERATION_FIELDS: [&str; 7] =
    ["max_new_tokens", "temperature", "top_k", "top_p", "repetition_penalty", "stop_tokens", "stop_texts"];

impl<'t> Reader<'t> {
    pub(super) fn trace(&mut self, fields: Fields<'t>, body: Vec<NodeId>) -> Option<Trace> {
        let model = self.optional(fields, "model", |reader, item| {
            reader.text(item, "a model's name", limits::TEXT_BYTES).map(str::to_owned)
        });
        let edits = self.optional(fields, "edits", Reader::edits);
        let invokes = self.required(fields, "invokes", Reader::read_invokes);
        self.see_invokes(invokes.as_deref());
        let generation = self.optional(fields, "generate", Reader::generation);
        self.body_of(fields)?;
        Some(Trace {
            model: model?,
            edits: edits?.unwrap_or_default(),
            invokes: invokes?,
            generation: generation?,
            body,
        })
    }

    /// Makes invokes known to the nodes of the body of the node that is being read.
    pub(super) fn see_invokes(&mut self, invokes: Option<&[Invoke]>) {
        let end =
            self.node.and_then(|node| self.outline.entries.get(node.index())).map_or(0, |entry| entry.end);
        let seen: usize =
            self.invokes.iter().filter_map(|level| level.places.as_ref()).map(HashMap::len).sum();
        let places = invokes.map(|invokes| {
            let named = invokes.iter().enumerate();
            named.map(|(place, invoke)| (Cow::Owned(invoke.name.clone()), seen + place)).collect()
        });
        self.invokes.push(Invokes { end, places });
    }

    pub(super) fn read_invokes(&mut self, item: Item<'t>) -> Option<Vec<Invoke>> {
        let items = self.items(item, "a list of invokes", limits::INVOKES)?;
        let names = self.invoke_names(items);
        let invokes = self.list(item, "a list of invokes", limits::INVOKES, Reader::invoke)?;
        let names = names?;
        let invokes = invokes.into_iter().zip(&names);
        let invoke = |((prompts, edits), name): ((Prompts, Vec<NodeId>), &Cow<'t, str>)| Invoke {
            edits,
            ..Invoke::new(name.as_ref(), prompts)
        };
        Some(invokes.map(invoke).collect())
    }

    /// Each invoke's name: its own, or `i0`, `i1`, … passing over names that others have.
    fn invoke_names(&mut self, items: Items<'t>) -> Option<Vec<Cow<'t, str>>> {
        let mut places: HashMap<&str, usize> = HashMap::new();
        let mut names: Vec<Option<&str>> = Vec::with_capacity(items.len());
        let mut complete = true;
        for (place, item) in items.iter().enumerate() {
            let entries = item.entries().unwrap_or_default();
            let name = entries.iter().find(|(key, _)| key == "name").map(|(_, json)| Item::from(json));
            let Some(name) = name else {
                names.push(None);
                continue;
            };
            let name = self.at(Segment::Place(place), |reader| {
                reader.at(Segment::Key("name"), |reader| {
                    let name = reader.name(name)?;
                    let around = reader.invokes.iter().filter_map(|level| level.places.as_ref());
                    let taken = around.into_iter().any(|places| places.contains_key(name));
                    match places.insert(name, place) {
                        None if !taken => Some(name),
                        _ => reader.fault(format!("{} is the name of two invokes", quote(name))),
                    }
                })
            });
            complete &= name.is_some();
            names.push(name);
        }
        let around: std::collections::HashSet<String> = self
            .invokes
            .iter()
            .filter_map(|level| level.places.as_ref())
            .flat_map(|places| places.keys().map(ToString::to_string))
            .collect();
        let mut next = 0_usize;
        let names = names.into_iter().map(|name| match name {
            Some(name) => Cow::Borrowed(name),
            None => loop {
                let name = format!("i{next}");
                next += 1;
                if !places.contains_key(name.as_str()) && !around.contains(name.as_str()) {
                    break Cow::Owned(name);
                }
            },
        });
        complete.then(|| names.collect())
    }

    fn invoke(&mut self, item: Item<'t>) -> Option<(Prompts, Vec<NodeId>)> {
        let fields = self.fields(item, "an invoke", &INVOKE_FIELDS)?;
        let edits = self.optional(fields, "edits", Reader::edits);
        let prompts = self.invoke_prompts(fields);
        Some((prompts?, edits?.unwrap_or_default()))
    }

    fn invoke_prompts(&mut self, fields: Fields<'t>) -> Option<Prompts> {
        let special_tokens = self.optional(fields, "special_tokens", Reader::boolean);
        let given: Vec<&'static str> = ["prompt", "prompts", "tokens"]
            .into_iter()
            .filter(|name| fields.optional(name).is_some())
            .collect();
        let [form] = given.as_slice() else {
            return self.fault_with_hint(
                format!(
                    "an invoke has one of `prompt`, `prompts` and `tokens`; this one has {}",
                    given.len()
                ),
                r#"write "prompt": "…", "prompts": ["…", "…"] or "tokens": [[1, 2, 3]]"#,
            );
        };
        let prompts = self.required(fields, form, |reader, item| match *form {
            "prompt" if is_object_with(item, "axis") => {
                let fields = reader.fields(item, "the prompts of a parameter", &AXIS_FIELDS)?;
                reader.required(fields, "axis", Reader::prompt_parameter).map(Prompts::Axis)
            }
            "prompt" => Some(Prompts::Text { texts: vec![reader.prompt(item)?], special_tokens: true }),
            "prompts" => {
                let texts = reader.list(item, "a list of prompts", limits::PROMPTS, Reader::prompt)?;
                Some(Prompts::Text { texts, special_tokens: true })
            }
            _ => {
                let prompts = reader.list(
                    item,
                    "a list of token ids for each prompt",
                    limits::PROMPTS,
                    |reader, item| reader.token_ids(item, limits::PROMPT_TOKENS),
                );
                prompts.map(Prompts::Tokens)
            }
        });
        match (prompts?, special_tokens?) {
            (Prompts::Text { texts, .. }, given) => {
                Some(Prompts::Text { texts, special_tokens: given.unwrap_or(true) })
            }
            (Prompts::Tokens(_), Some(_)) => {
                self.fault("`special_tokens` says how a text is tokenised; token ids are taken as they are")
            }
            (Prompts::Axis(_), Some(_)) => {
                self.fault("`special_tokens` is said where the parameter is given")
            }
            (prompts, None) => Some(prompts),
        }
    }

    pub(super) fn prompt(&mut self, item: Item<'t>) -> Option<String> {
        let text = self.text(item, "a prompt", 4 * limits::PROMPT_CHARACTERS)?;
        if text.len() > limits::PROMPT_CHARACTERS && text.chars().count() > limits::PROMPT_CHARACTERS {
            return self.fault(format!("a prompt of more than {} characters", limits::PROMPT_CHARACTERS));
        }
        Some(text.to_owned())
    }

    pub(super) fn token_ids(&mut self, item: Item<'t>, most: usize) -> Option<Vec<u32>> {
        self.list(item, "a list of token ids", most, |reader, item| {
            let token = reader.natural(item)?;
            u32::try_from(token).ok().or_else(|| reader.fault(format!("{token} is not a token id")))
        })
    }

    fn generation(&mut self, item: Item<'t>) -> Option<Generation> {
        let fields = self.fields(item, "a generation", &GENERATION_FIELDS)?;
        let max_new_tokens =
            self.required(fields, "max_new_tokens", |reader, item| match reader.natural(item)? {
                count if count > limits::STEPS => {
                    reader.fault(format!("{count} new tokens where at most {} may be made", limits::STEPS))
                }
                count => Some(count),
            });
        let default = Sampling::default();
        let temperature = self.optional(fields, "temperature", Reader::float);
        let top_k = self.optional(fields, "top_k", Reader::natural);
        let top_p = self.optional(fields, "top_p", Reader::float);
        let repetition_penalty = self.optional(fields, "repetition_penalty", Reader::float);
        let stop_tokens = self
            .optional(fields, "stop_tokens", |reader, item| reader.token_ids(item, limits::LIST_ARGUMENTS));
        let stop_texts = self.optional(fields, "stop_texts", |reader, item| {
            reader.list(item, "a list of texts", limits::LIST_ARGUMENTS, |reader, item| {
                reader.text(item, "a text", limits::TEXT_BYTES).map(str::to_owned)
            })
        });
        Some(Generation {
            max_new_tokens: max_new_tokens?,
            sampling: Sampling {
                temperature: temperature?.unwrap_or(default.temperature),
                top_k: top_k?,
                top_p: top_p?,
                repetition_penalty: repetition_penalty?.unwrap_or(default.repetition_penalty),
            },
            stop_tokens: stop_tokens?,
            stop_texts: stop_texts?.unwrap_or_default(),
        })
    }

    /// A number that is finite, as `f64`.
    fn float(&mut self, item: Item<'t>) -> Option<f64> {
        let number = self.number(item)?.as_f64();
        if !number.is_finite() {
            return self.fault(format!("expected a finite number, found {number}"));
        }
        Some(number)
    }
}
