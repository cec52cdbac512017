//! What it brings that programs share passes: users who each run the same request, again and again, on a model of GPT-2
//! small's shape with random weights; together, and one at a time. Requests are `patching`, activation patching as in the
//! paper, or `generation`, of 16 tokens after the prompt. A line of JSON for each number of users.
//!
//! ```sh
//! cargo run --release -p pellucid-engine --example joined -- [patching|generation [USERS,USERS,… [SECONDS [TOKENS [PASS_MS]]]]]
//! ```

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a benchmark stops where something is wrong"
)]

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pellucid_engine::{
    Admission, Admitted, Engine, Failure, Host, Load, PassReport, Results, RunOptions, ServeOptions, Tensor,
    Ticket, Usage,
};
use pellucid_graph::Program;
use pellucid_graph::check::CheckedProgram;
use pellucid_models::{Model, ModelOptions};

fn main() {
    pellucid_kernels::keep_freed_memory();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let argument =
        |at: usize, otherwise: &str| arguments.get(at).map_or(otherwise, String::as_str).to_owned();
    let kind = argument(0, "patching");
    let users: Vec<usize> =
        argument(1, "1,2,4,8,16,32,64,100").split(',').map(|text| text.parse().unwrap()).collect();
    let seconds = Duration::from_secs_f64(argument(2, "5").parse().unwrap());
    let tokens: usize = argument(3, "15").parse().unwrap();
    let pass_ms: f64 = argument(4, "200").parse().unwrap();
    let config = serde_json::json!({
        "model_type": "gpt2", "n_layer": 12, "n_head": 12, "n_embd": 768, "vocab_size": 50257,
        "n_positions": 1024, "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5,
    });
    let model = Model::random(config, 7, &ModelOptions::default()).unwrap_or_else(|error| panic!("{error}"));
    let engine = Engine::new(Arc::new(model));
    let program = Arc::new(match kind.as_str() {
        "patching" => patching(&engine, tokens),
        "generation" => generation(&engine, tokens),
        other => panic!("requests are patching or generation, not {other}"),
    });
    let expected = engine.run(&program, &RunOptions::default()).unwrap().tensors["saved"].clone();
    for users in users {
        // Both within seconds of one another: a machine is not always as fast.
        let alone = one_at_a_time(&engine, &program, seconds / 2);
        let mut crowd = Crowd::new(users, seconds, &program, &expected);
        engine.serve(&mut crowd, &ServeOptions { pass_ms, ..ServeOptions::default() });
        let mut told = crowd.told(users, alone);
        told["request"] = kind.clone().into();
        told["tokens_per_prompt"] = tokens.into();
        println!("{told}");
    }
}

fn prompt(tokens: usize, seed: usize) -> Vec<usize> {
    (0..tokens).map(|place| (seed * 7919 + place * 104_729 + 13) % 50257).collect()
}

fn checked(engine: &Engine, text: &str) -> CheckedProgram {
    let program = Program::from_bytes(text.as_bytes()).unwrap_or_else(|faults| panic!("{faults}"));
    engine.check(program).unwrap_or_else(|faults| panic!("{faults}"))
}

fn generation(engine: &Engine, tokens: usize) -> CheckedProgram {
    let text = format!(
        r#"{{"pellucid":1,"body":[{{"op":"trace","invokes":[{{"name":"p","tokens":[{:?}]}}],"generate":{{"max_new_tokens":16,"stop_tokens":[]}},
        "body":[{{"op":"generated","name":"g"}},{{"op":"save","name":"saved","value":"g"}}]}}]}}"#,
        prompt(tokens, 1)
    );
    checked(engine, &text)
}

/// Two prompts; at one layer and position the corrupted run is given the clean run's state; the difference of two logits
/// comes back.
fn patching(engine: &Engine, tokens: usize) -> CheckedProgram {
    let text = format!(
        r#"{{"pellucid":1,"body":[{{"op":"trace","invokes":[{{"name":"clean","tokens":[{:?}]}},{{"name":"corrupted","tokens":[{:?}]}}],"body":[
        {{"op":"get","name":"state","invoke":"clean","hook":"layers.6.output"}},{{"op":"getitem","name":"clean_state","input":"state","index":[":",4]}},
        {{"op":"get","name":"own","invoke":"corrupted","hook":"layers.6.output"}},
        {{"op":"index_put","name":"patched","input":"own","index":[":",4],"values":"clean_state"}},
        {{"op":"set","invoke":"corrupted","hook":"layers.6.output","value":"patched"}},
        {{"op":"get","name":"logits","invoke":"corrupted","hook":"logits"}},
        {{"op":"getitem","name":"one","input":"logits","index":[":",-1,11]}},{{"op":"getitem","name":"other","input":"logits","index":[":",-1,42]}},
        {{"op":"sub","name":"d","input":"one","other":"other"}},{{"op":"save","name":"saved","value":"d"}}]}}]}}"#,
        prompt(tokens, 1),
        prompt(tokens, 2)
    );
    checked(engine, &text)
}

/// Requests in a second, one after another.
fn one_at_a_time(engine: &Engine, program: &CheckedProgram, seconds: Duration) -> f64 {
    let (started, mut done) = (Instant::now(), 0);
    while started.elapsed() < seconds {
        engine.run(program, &RunOptions::default()).unwrap();
        done += 1;
    }
    f64::from(done) / started.elapsed().as_secs_f64()
}

/// So many users, each of whom sends a request when the last has been answered.
struct Crowd<'a> {
    program: &'a Arc<CheckedProgram>,
    expected: &'a Tensor,
    /// Users who are about to send.
    idle: usize,
    next: u64,
    sent: HashMap<Ticket, Instant>,
    started: Instant,
    until: Instant,
    latencies: Vec<f64>,
    passes: Vec<PassReport>,
}

impl<'a> Crowd<'a> {
    fn new(
        users: usize,
        seconds: Duration,
        program: &'a Arc<CheckedProgram>,
        expected: &'a Tensor,
    ) -> Crowd<'a> {
        let started = Instant::now();
        Crowd {
            program,
            expected,
            idle: users,
            next: 0,
            sent: HashMap::new(),
            started,
            until: started + seconds,
            latencies: Vec::new(),
            passes: Vec::new(),
        }
    }

    fn told(&mut self, users: usize, alone: f64) -> serde_json::Value {
        let seconds = self.started.elapsed().as_secs_f64();
        self.latencies.sort_by(f64::total_cmp);
        let at = |part: f64| self.latencies[((self.latencies.len() - 1) as f64 * part) as usize];
        let together = self.latencies.len() as f64 / seconds;
        let passes = self.passes.len() as f64;
        let programs: usize = self.passes.iter().map(|pass| pass.programs).sum();
        let measured: f64 = self.passes.iter().map(|pass| pass.measured_ms).sum();
        // How far estimates are off, in the middle: after the first passes, from which the engine learns.
        let mut off: Vec<f64> = self
            .passes
            .iter()
            .skip(3)
            .map(|pass| (pass.estimated_ms / pass.measured_ms).ln().abs())
            .collect();
        off.sort_by(f64::total_cmp);
        let off = off.get(off.len() / 2).map_or(f64::NAN, |off| off.exp() - 1.0);
        let longest = self.passes.iter().map(|pass| pass.measured_ms).fold(0.0, f64::max);
        serde_json::json!({
            "users": users, "requests": self.latencies.len(),
            "per_second_together": together, "per_second_one_at_a_time": alone, "times": together / alone,
            "median_ms": at(0.5), "p95_ms": at(0.95), "p99_ms": at(0.99),
            "passes": passes, "programs_per_pass": programs as f64 / passes,
            "pass_ms": measured / passes, "longest_pass_ms": longest,
            "outside_passes_ms": (seconds * 1000.0 - measured) / passes, "estimates_off_by": off,
        })
    }
}

impl Host for Crowd<'_> {
    fn admit(&mut self, _load: &Load) -> Admission {
        if Instant::now() >= self.until {
            return Admission::Close;
        }
        let joining = std::mem::take(&mut self.idle);
        let programs = (0..joining).map(|_| {
            self.next += 1;
            let ticket = Ticket(self.next);
            self.sent.insert(ticket, Instant::now());
            Admitted::new(ticket, self.program.clone(), RunOptions::default())
        });
        Admission::Programs(programs.collect())
    }

    fn finished(&mut self, ticket: Ticket, outcome: Result<Results, Box<Failure>>, _usage: Usage) {
        let results = outcome.unwrap_or_else(|failure| panic!("{failure}"));
        assert!(results.tensors["saved"].is_same_bits(self.expected), "not what it is alone");
        let sent = self.sent.remove(&ticket).unwrap();
        self.latencies.push(sent.elapsed().as_secs_f64() * 1000.0);
        self.idle += 1;
    }

    fn passed(&mut self, report: &PassReport) {
        self.passes.push(report.clone());
    }
}
