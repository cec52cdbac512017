//! Texts of programs, tokenised by the service where lengths are asked for before a program is submitted.

use std::collections::BTreeMap;
use std::sync::Mutex;

use pellucid_client::api::{EncodeRequest, MAXIMUM_TEXT_SIZE, MAXIMUM_TEXTS};
use pellucid_graph::check::{self, SpecIndex};
use pellucid_graph::{Invoke, NodeKind, Program, Prompts, TensorType, expand};

use super::Remote;
use crate::error::Result;

/// Texts whose tokens are known, at most: a program asks again and again while it is written.
const KNOWN: usize = 4096;

/// A text, and whether special tokens are added.
type Text = (String, bool);

/// Texts that were tokenised. A process that was forked off while it was looked into does without.
#[derive(Default)]
pub(super) struct Tokens(Mutex<BTreeMap<Text, Vec<u32>>>);

impl Remote {
    /// The types of a node's values: texts are tokenised there, once.
    pub fn types_of(&self, program: Program, node: &str) -> Result<Vec<TensorType>> {
        let index = SpecIndex::new(&self.spec);
        let program = self.tokenised(expand::expand(program, &index)?)?;
        Ok(check::types_of(&program, &[("", &index)], node)?)
    }

    fn tokenised(&self, mut program: Program) -> Result<Program> {
        let wanted: Vec<Text> = invokes(&mut program).flat_map(|invoke| texts(&invoke.prompts)).collect();
        let tokens = self.tokens_of(&wanted)?;
        for invoke in invokes(&mut program) {
            let own = texts(&invoke.prompts);
            let known: Option<Vec<Vec<u32>>> = own.iter().map(|text| tokens.get(text).cloned()).collect();
            if let (Prompts::Text { .. }, Some(known)) = (&invoke.prompts, known) {
                invoke.prompts = Prompts::Tokens(known);
            }
        }
        Ok(program)
    }

    fn tokens_of(&self, wanted: &[Text]) -> Result<BTreeMap<Text, Vec<u32>>> {
        let mut tokens = BTreeMap::new();
        if let Ok(known) = self.tokens.0.try_lock() {
            let found = wanted.iter().filter_map(|text| Some((text.clone(), known.get(text)?.clone())));
            tokens.extend(found);
        }
        for special_tokens in [true, false] {
            let missing =
                wanted.iter().filter(|text| text.1 == special_tokens && !tokens.contains_key(*text));
            let missing: Vec<String> = missing.map(|(text, _)| text.clone()).collect();
            for texts in at_once(missing) {
                let model = Some(self.id.clone());
                let request = EncodeRequest { model, texts, special_tokens, chat: false };
                let answer = self.service.client.encode(&request)?;
                let texts = request.texts.into_iter().map(|text| (text, special_tokens));
                tokens.extend(texts.zip(answer.tokens));
            }
        }
        if let Ok(mut known) = self.tokens.0.try_lock() {
            if known.len() + tokens.len() > KNOWN {
                known.clear();
            }
            known.extend(tokens.iter().take(KNOWN).map(|(text, ids)| (text.clone(), ids.clone())));
        }
        Ok(tokens)
    }
}

/// Texts in portions as a service takes them. One that is too long by itself is a portion: the service says so.
fn at_once(texts: Vec<String>) -> Vec<Vec<String>> {
    let (mut portions, mut size) = (Vec::<Vec<String>>::new(), 0);
    for text in texts {
        size += text.len();
        match portions.last_mut() {
            Some(portion) if portion.len() < MAXIMUM_TEXTS && size <= MAXIMUM_TEXT_SIZE => portion.push(text),
            _ => {
                size = text.len();
                portions.push(vec![text]);
            }
        }
    }
    portions
}

fn invokes(program: &mut Program) -> impl Iterator<Item = &mut Invoke> {
    program.nodes.iter_mut().flat_map(|node| match &mut node.kind {
        NodeKind::Trace(trace) => trace.invokes.as_mut_slice(),
        _ => &mut [],
    })
}

fn texts(prompts: &Prompts) -> Vec<Text> {
    match prompts {
        Prompts::Text { texts, special_tokens } => {
            texts.iter().map(|text| (text.clone(), *special_tokens)).collect()
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_come_in_portions_as_a_service_takes_them() {
        let sizes = |texts: Vec<String>| -> Vec<usize> { at_once(texts).iter().map(Vec::len).collect() };
        assert!(sizes(Vec::new()).is_empty());
        assert_eq!(sizes(vec!["a".into(); 2 * MAXIMUM_TEXTS + 1]), [MAXIMUM_TEXTS, MAXIMUM_TEXTS, 1]);
        let half = "a".repeat(MAXIMUM_TEXT_SIZE / 2);
        assert_eq!(sizes(vec![half.clone(), half.clone(), half]), [2, 1]);
        let long = "a".repeat(MAXIMUM_TEXT_SIZE + 1);
        assert_eq!(sizes(vec!["a".into(), long, "a".into()]), [1, 1, 1]);
    }
}
