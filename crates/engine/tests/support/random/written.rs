//! Random programs as people write them: the surface of the language, on the wire. Sweeps and loops in one another, around
//! traces and inside them, `cond`s, patterns, edits, several models.
//!
//! Unlike [`super::Builder`] this knows rules: what has which shape, and what is known when. So what it writes is taken whole,
//! and a program that the checker refuses is a mistake here or there.

mod nodes;
mod regions;

use std::collections::BTreeMap;

use pellucid_graph::spec::ModelSpec;
use serde_json::{Value as Json, json};

use super::dice::Dice;

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    /// `[prompts, length, hidden]`; the length is 0 where it is the step's.
    Stream(usize, usize),
    /// `[hidden]`
    Vector,
    /// Of another width, read for one number alone.
    Other,
    /// One float.
    Number,
}

/// When a value is known: of each invoke that it comes from, the latest time.
type Times = BTreeMap<usize, u64>;

/// Later than every hook point.
const ALWAYS: u64 = u64::MAX;

#[derive(Clone, Debug)]
struct Known {
    name: String,
    kind: Kind,
    times: Times,
}

#[derive(Clone, Debug)]
struct Invoke {
    name: String,
    /// Values go from an invoke to later ones alone.
    order: usize,
    prompts: usize,
    length: usize,
    may_be_set: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    Session,
    Trace,
    Steps,
}

/// A program, and how often each construct stands in it.
pub struct Written {
    pub program: Json,
    pub constructs: BTreeMap<&'static str, usize>,
}

pub struct Writer {
    dice: Dice,
    layers: u64,
    vocabulary: u64,
    names: usize,
    known: Vec<Known>,
    invokes: Vec<Invoke>,
    orders: usize,
    /// Parameters that are layers, and that are positions.
    layer_names: Vec<String>,
    positions: Vec<String>,
    /// Parameters that are prompts of that length, for traces inside.
    prompts: Vec<(String, usize)>,
    /// What the conditions around depend on.
    guards: Vec<Times>,
    /// Sweeps, loops and branches around.
    depth: usize,
    /// A trace in which is gone back.
    goes_back: bool,
    constructs: BTreeMap<&'static str, usize>,
}

fn later(one: &Times, other: &Times) -> Times {
    let mut times = one.clone();
    for (&order, &time) in other {
        let own = times.entry(order).or_default();
        *own = (*own).max(time);
    }
    times
}

impl Writer {
    fn new(spec: &ModelSpec, seed: u64) -> Writer {
        Writer {
            dice: Dice::new(seed ^ 0x5eed),
            layers: spec.sizes.layers,
            vocabulary: spec.sizes.vocabulary,
            names: 0,
            known: Vec::new(),
            invokes: Vec::new(),
            orders: 0,
            layer_names: Vec::new(),
            positions: Vec::new(),
            prompts: Vec::new(),
            guards: Vec::new(),
            depth: 0,
            goes_back: false,
            constructs: BTreeMap::new(),
        }
    }

    /// A program for a model, with another one loaded as `other` beside it.
    pub fn write(spec: &ModelSpec, seed: u64) -> Written {
        let mut writer = Writer::new(spec, seed);
        let mut body = Vec::new();
        let edits = writer.edits(&mut body);
        let traces = writer.dice.range(1, 4);
        for number in 0..traces {
            match writer.dice.below(8) {
                0 => writer.cond(Place::Session, &mut body),
                1 => writer.sweep(Place::Session, &mut body),
                2 => writer.repeat(Place::Session, &mut body),
                3 if number > 0 => writer.computed(Place::Session, &mut body),
                4 => writer.trace(&mut body, &[], true),
                _ => writer.trace(&mut body, &edits, false),
            }
        }
        if !writer.known.is_empty() {
            writer.save(&mut body);
        }
        writer.finish(seed, body)
    }

    /// The same body as a sweep and as a loop: what they save must be the same in every cell.
    pub fn sweep_and_loop(spec: &ModelSpec, seed: u64) -> (Json, Written) {
        let mut writer = Writer::new(spec, seed ^ 0x100b);
        let (mut before, mut body) = (Vec::new(), Vec::new());
        let around = writer.dice.chance(0.4);
        let mut trace = json!({"op": "trace"});
        if !around {
            trace["invokes"] = writer.new_invokes(true);
            for _ in 0..writer.dice.range(1, 4) {
                writer.item(Place::Trace, &mut before);
            }
        }
        let place = if around { Place::Session } else { Place::Trace };
        let (over, own, scope) = writer.enter(place, false, &mut before);
        writer.cell(place, &mut body, own.is_some());
        writer.leave(scope);
        let mut region = json!({"op": "sweep", "name": "around", "over": over, "body": body});
        if let Some(own) = own {
            region["invokes"] = own;
        }
        let mut after = Vec::new();
        for invoke in writer.invokes.clone() {
            let (read, saved) = (writer.name(), writer.name());
            after.push(json!({"op": "get", "name": read, "invoke": invoke.name, "hook": "output"}));
            after.push(json!({"op": "save", "name": saved, "value": read}));
        }
        let mut whole = |kind: &str| {
            region["op"] = kind.into();
            let mut nodes = before.clone();
            nodes.push(region.clone());
            nodes.extend(after.iter().cloned());
            if around {
                return json!({"pellucid": 1, "seed": seed, "body": nodes});
            }
            let mut trace = trace.clone();
            trace["body"] = nodes.into();
            json!({"pellucid": 1, "seed": seed, "body": [trace]})
        };
        let repeated = whole("loop");
        let program = whole("sweep");
        (repeated, Written { program, constructs: writer.constructs })
    }

    fn finish(self, seed: u64, body: Vec<Json>) -> Written {
        Written {
            program: json!({"pellucid": 1, "seed": seed % 1000, "body": body}),
            constructs: self.constructs,
        }
    }

    fn count(&mut self, construct: &'static str) {
        *self.constructs.entry(construct).or_default() += 1;
    }

    fn name(&mut self) -> String {
        self.names += 1;
        format!("v{}", self.names)
    }

    fn learn(&mut self, name: &str, kind: Kind, times: Times) -> Known {
        let known = Known { name: name.to_owned(), kind, times };
        self.known.push(known.clone());
        known
    }

    /// Writes a node that has a value.
    fn node(&mut self, mut node: Json, kind: Kind, times: Times, out: &mut Vec<Json>) -> Known {
        let name = self.name();
        node["name"] = name.as_str().into();
        out.push(node);
        self.learn(&name, kind, times)
    }

    fn some(&mut self, wanted: impl Fn(&Known) -> bool) -> Option<Known> {
        let fitting: Vec<Known> = self.known.iter().filter(|known| wanted(known)).cloned().collect();
        if fitting.is_empty() { None } else { Some(self.dice.of(&fitting).clone()) }
    }
}
