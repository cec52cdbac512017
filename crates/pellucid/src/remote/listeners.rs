//! Listeners of a run elsewhere, told of what happens as they would be told here.

use std::collections::BTreeSet;

use pellucid_client::api::{Event, Number};
use pellucid_engine::{GeneratedToken, LogEntry, Progress, RunOptions, SavedValue, Tensor};
use pellucid_graph::{DType, NodeKind, Program, Scalar};

use crate::results::Results;

/// The listeners of a run, told of what happens there as they would be told here: of everything once, whatever is begun again.
pub(super) struct Listeners<'a> {
    options: &'a RunOptions,
    /// Of each logged value of this attempt: whether it was told.
    told: Vec<bool>,
    /// Logged values and tokens of this attempt that have come.
    logs: usize,
    tokens: usize,
    tokens_told: usize,
    /// Saved values that were told.
    saved: BTreeSet<String>,
    /// Whether events were left out, so that logged values can no longer be counted.
    gap: bool,
}

impl<'a> Listeners<'a> {
    pub fn new(options: &'a RunOptions) -> Listeners<'a> {
        let (told, saved) = (Vec::new(), BTreeSet::new());
        Listeners { options, told, logs: 0, tokens: 0, tokens_told: 0, saved, gap: false }
    }

    /// Whether there is anything to tell of a run of this program before its result is there.
    pub fn would_hear(&self, program: &Program) -> bool {
        let RunOptions { on_log, on_token, on_progress, on_saved, .. } = self.options;
        let has = |what: fn(&NodeKind) -> bool| program.nodes.iter().any(|node| what(&node.kind));
        on_progress.is_some()
            || on_saved.is_some()
            || on_log.is_some() && has(|kind| matches!(kind, NodeKind::Log(_)))
            || on_token.is_some()
    }

    pub fn hear(&mut self, event: &Event) {
        match event {
            // The same program gives the same again: what was told of it stays told.
            Event::Running(_) => (self.logs, self.tokens, self.gap) = (0, 0, false),
            Event::Gap(_) => self.gap = true,
            Event::Progress(progress) => {
                if let Some(on_progress) = &self.options.on_progress {
                    // How far a generation and a session are, it does not say.
                    on_progress(&Progress {
                        passes: progress.passes as usize,
                        part: progress.part,
                        layer: progress.layer.unwrap_or(0),
                        layers: progress.layers.unwrap_or(0),
                        step: 0,
                        trace: 0,
                        traces: 1,
                    });
                }
            }
            Event::Token(token) => {
                self.tokens += 1;
                if let Some(on_token) = &self.options.on_token
                    && self.tokens > self.tokens_told
                {
                    self.tokens_told = self.tokens;
                    on_token(&GeneratedToken {
                        invoke: token.invoke as usize,
                        prompt: token.prompt as usize,
                        step: token.step,
                        token: token.token,
                    });
                }
            }
            Event::Value(saved) => {
                let Some(on_saved) = &self.options.on_saved else { return };
                // A large one comes with the result.
                let Some(values) = &saved.values else { return };
                let Some(value) = tensor(&saved.dtype, &saved.shape, values) else { return };
                if self.saved.insert(saved.name.clone()) {
                    on_saved(&SavedValue { name: &saved.name, value: &value });
                }
            }
            Event::Log(log) if !self.gap => {
                let number = self.logs;
                self.logs += 1;
                self.told.resize(self.told.len().max(self.logs), false);
                let Some(on_log) = &self.options.on_log else { return };
                // A long one comes with the result, whole.
                if self.told[number] || log.truncated {
                    return;
                }
                let Some(value) = tensor(&log.dtype, &log.shape, &log.values) else { return };
                self.told[number] = true;
                let (name, coordinates) = (log.name.clone(), log.coordinates.clone());
                on_log(&LogEntry { name, coordinates, step: log.step, value });
            }
            _ => {}
        }
    }

    /// Tells what has not been told yet of what came back.
    pub fn hear_the_rest(&self, results: &Results) {
        if let Some(on_log) = &self.options.on_log {
            let untold = |number: usize| !self.told.get(number).copied().unwrap_or(false);
            results
                .logs()
                .iter()
                .enumerate()
                .filter(|(number, _)| untold(*number))
                .for_each(|(_, entry)| on_log(entry));
        }
        if let Some(on_saved) = &self.options.on_saved {
            for (name, value) in results.iter().filter(|(name, _)| !self.saved.contains(*name)) {
                on_saved(&SavedValue { name, value });
            }
        }
    }
}

/// A tensor of elements as they stand in JSON.
fn tensor(dtype: &str, shape: &[u64], elements: &[Number]) -> Option<Tensor> {
    let scalars = elements.iter().map(|number| match number {
        Number::Bool(value) => Some(Scalar::Bool(*value)),
        Number::Integer(value) => Some(Scalar::Int(*value)),
        other => other.as_f64().map(Scalar::Float),
    });
    let scalars: Option<Vec<Scalar>> = scalars.collect();
    let shape: Option<Vec<usize>> = shape.iter().map(|&size| usize::try_from(size).ok()).collect();
    Tensor::from_scalars(&scalars?, &shape?, DType::from_name(dtype)?).ok()
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use pellucid_client::api::{Gap, Log, Started, Token};

    use super::*;

    fn log(number: i64, truncated: bool) -> Event {
        let (values, shape) = (vec![Number::Integer(number)], vec![if truncated { 2 } else { 1 }]);
        let (name, coordinates, dtype) = ("n".to_owned(), Vec::new(), "i64".to_owned());
        Event::Log(Log { name, coordinates, step: None, dtype, shape, values, truncated })
    }

    fn entry(number: i64) -> LogEntry {
        let value = Tensor::from_i64(vec![number], &[1]).unwrap();
        LogEntry { name: "n".into(), coordinates: Vec::new(), step: None, value }
    }

    /// What a listener for logs is told.
    fn told(events: &[Event], logs: i64) -> Vec<i64> {
        let heard: Arc<Mutex<Vec<i64>>> = Arc::default();
        let hears = heard.clone();
        let on_log = move |entry: &LogEntry| hears.lock().unwrap().extend(entry.value.to_vec_i64().unwrap());
        let options = RunOptions { on_log: Some(Arc::new(on_log)), ..RunOptions::default() };
        let mut listeners = Listeners::new(&options);
        events.iter().for_each(|event| listeners.hear(event));
        let logs = (0..logs).map(entry).collect();
        listeners.hear_the_rest(&Results::new(pellucid_engine::Results { logs, ..Default::default() }));
        heard.lock().unwrap().clone()
    }

    #[test]
    fn every_log_is_told_once_whatever_happens_on_the_way() {
        let begin = |attempt| Event::Running(Started { attempt });
        assert_eq!(told(&[begin(1), log(0, false), log(1, false)], 2), [0, 1]);
        // Long ones are told when they are there whole.
        assert_eq!(told(&[begin(1), log(0, true), log(1, false)], 2), [1, 0]);
        // What is run again is not told again.
        assert_eq!(told(&[begin(1), log(0, false), begin(2), log(0, false), log(1, false)], 2), [0, 1]);
        // What was left out is told in the end.
        assert_eq!(
            told(&[begin(1), log(0, false), Event::Gap(Gap { missed: 1 }), log(2, false)], 3),
            [0, 1, 2]
        );
        assert_eq!(told(&[], 2), [0, 1]);
    }

    #[test]
    fn every_token_is_told_once() {
        let heard: Arc<Mutex<Vec<u32>>> = Arc::default();
        let hears = heard.clone();
        let on_token = move |token: &GeneratedToken| hears.lock().unwrap().push(token.token);
        let options = RunOptions { on_token: Some(Arc::new(on_token)), ..RunOptions::default() };
        let mut listeners = Listeners::new(&options);
        let token = |token| Event::Token(Token { invoke: 0, prompt: 0, step: 0, token, text: String::new() });
        for event in
            [token(5), token(6), Event::Running(Started { attempt: 2 }), token(5), token(6), token(7)]
        {
            listeners.hear(&event);
        }
        assert_eq!(*heard.lock().unwrap(), [5, 6, 7]);
    }

    #[test]
    fn elements_are_what_they_were() {
        let numbers = [Number::Float(1.5), Number::from_f64(f64::NAN), Number::from_f64(f64::NEG_INFINITY)];
        let tensor = tensor("f32", &[3], &numbers).unwrap().to_vec_f32().unwrap();
        assert!(tensor[0] == 1.5 && tensor[1].is_nan() && tensor[2] == f32::NEG_INFINITY);
        let numbers = [Number::Bool(true), Number::Bool(false)];
        assert_eq!(super::tensor("bool", &[2], &numbers).unwrap().dtype(), DType::Bool);
        assert!(super::tensor("f32", &[3], &numbers).is_none(), "two elements do not fill three");
        assert!(super::tensor("f33", &[2], &numbers).is_none());
        assert!(super::tensor("f32", &[u64::MAX, u64::MAX], &numbers).is_none());
    }
}
