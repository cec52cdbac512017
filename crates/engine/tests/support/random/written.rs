//! Random programs as people write them: the surface of the language, on the wire. Sweeps and loops in one another, around
//! traces and inside them, `cond`s, patterns, edits, several models.
//!
//! Unlike [`super::Builder`] this knows rules: what has which shape, and what is known when. So what it writes is taken whole,
//! and a program that the checker refuses is a mistake here or there.

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

    /// A number, and nothing that it was computed from.
    fn literal(&mut self, out: &mut Vec<Json>) -> Known {
        let value = self.dice.range(1, 16) as f64 / 8.0 - 1.0;
        let node = json!({"op": "literal", "dtype": "f32", "shape": [], "elements": [value]});
        self.node(node, Kind::Number, Times::new(), out)
    }

    /// One number, not large, that depends on all of a value.
    fn number_of(&mut self, known: &Known, out: &mut Vec<Json>) -> Known {
        let bent = json!({"op": "tanh", "input": known.name});
        let bent = self.node(bent, known.kind, known.times.clone(), out);
        let mean = json!({"op": "mean", "input": bent.name});
        self.node(mean, Kind::Number, known.times.clone(), out)
    }

    /// A layer's hook point: its path, when it is computed, and when it is at the earliest.
    fn hook(&mut self) -> (String, u64, u64) {
        let (part, offset) = *self.dice.of(&[("output", 1), ("output", 1), ("attention.output", 0)]);
        if !self.layer_names.is_empty() && self.dice.chance(0.6) {
            let layer = self.dice.of(&self.layer_names).clone();
            self.count("addresses with a parameter");
            return (format!("layers.{{{layer}}}.{part}"), ALWAYS, 0);
        }
        let layer = self.dice.below(self.layers);
        let time = 2 * layer + offset;
        (format!("layers.{layer}.{part}"), time, time)
    }

    fn stream(&self, invoke: &Invoke, place: Place) -> Kind {
        Kind::Stream(invoke.prompts, if place == Place::Steps { 0 } else { invoke.length })
    }

    fn get(&mut self, invoke: &Invoke, place: Place, out: &mut Vec<Json>) -> Known {
        let (hook, time, _) = self.hook();
        let node = json!({"op": "get", "invoke": invoke.name, "hook": hook});
        self.node(node, self.stream(invoke, place), Times::from([(invoke.order, time)]), out)
    }

    /// Something that may stand anywhere in a trace's body.
    fn item(&mut self, place: Place, out: &mut Vec<Json>) {
        let steps = place == Place::Steps;
        match self.dice.below(22) {
            0..4 => {
                let invoke = self.dice.of(&self.invokes).clone();
                self.get(&invoke, place, out);
            }
            4..8 => self.computed(place, out),
            8..12 => self.set(place, out),
            12 | 13 => self.save(out),
            14 => self.cond(place, out),
            15 | 16 if self.depth < 2 => self.sweep(place, out),
            17 | 18 if self.depth < 2 && !steps => self.repeat(place, out),
            19 if !steps => self.pattern(out),
            20 if !steps => self.pattern_set(out),
            21 if self.goes_back && !steps => self.gradient(place, out),
            _ => self.computed(place, out),
        }
    }

    /// An operation on what there is.
    fn computed(&mut self, place: Place, out: &mut Vec<Json>) {
        let steps = place == Place::Steps;
        let here = |known: &Known| match known.kind {
            Kind::Stream(_, length) => (length == 0) == steps && place != Place::Session,
            Kind::Other => false,
            _ => true,
        };
        let Some(one) = self.some(here) else {
            self.literal(out);
            return;
        };
        let two = self.some(|known| known.kind == one.kind || known.kind == Kind::Number);
        match (one.kind, self.dice.below(5)) {
            (Kind::Stream(..) | Kind::Vector, 0) => {
                self.number_of(&one, out);
            }
            (Kind::Stream(..), 1) => {
                let position = match self.positions.is_empty() || steps {
                    true => json!(-1),
                    false => json!({"tensor": self.dice.of(&self.positions)}),
                };
                let node = json!({"op": "getitem", "input": one.name, "index": [0, position]});
                self.node(node, Kind::Vector, one.times, out);
            }
            (_, 2) => {
                self.node(json!({"op": "tanh", "input": one.name}), one.kind, one.times, out);
            }
            (kind, _) => {
                let operation = *self.dice.of(&["add", "mul", "sub"]);
                let (other, times) = match two {
                    Some(two) => (json!(two.name), later(&one.times, &two.times)),
                    None => (json!(0.5), one.times),
                };
                self.node(json!({"op": operation, "input": one.name, "other": other}), kind, times, out);
            }
        }
    }

    /// Whether a value may be written to an invoke at a time, under the conditions around.
    fn in_time(&self, times: &Times, invoke: &Invoke, at: u64) -> bool {
        std::iter::once(times).chain(&self.guards).all(|times| {
            times.iter().all(
                |(&order, &time)| {
                    if order == invoke.order { time <= at } else { order < invoke.order }
                },
            )
        })
    }

    fn settable(&mut self) -> Option<Invoke> {
        let settable: Vec<Invoke> = self.invokes.iter().filter(|invoke| invoke.may_be_set).cloned().collect();
        if settable.is_empty() { None } else { Some(self.dice.of(&settable).clone()) }
    }

    fn set(&mut self, place: Place, out: &mut Vec<Json>) {
        let Some(invoke) = self.settable() else { return self.computed(place, out) };
        let (hook, time, earliest) = self.hook();
        if !self.in_time(&Times::new(), &invoke, earliest) {
            return;
        }
        let node = json!({"op": "get", "invoke": invoke.name, "hook": hook});
        let kind = self.stream(&invoke, place);
        let times = Times::from([(invoke.order, time)]);
        let own = self.node(node, kind, times.clone(), out);
        let candidates = self.known.clone();
        let fitting: Vec<&Known> = candidates
            .iter()
            .filter(|known| matches!(known.kind, Kind::Number | Kind::Vector) || known.kind == kind)
            .filter(|known| self.in_time(&known.times, &invoke, earliest))
            .collect();
        let other = match fitting.is_empty() {
            true => json!(0.75),
            false => json!(self.dice.of(&fitting).name),
        };
        let operation = *self.dice.of(&["add", "sub", "mul"]);
        let node = json!({"op": operation, "input": own.name, "other": other});
        let value = self.node(node, kind, Times::from([(invoke.order, ALWAYS)]), out);
        out.push(json!({"op": "set", "invoke": invoke.name, "hook": hook, "value": value.name}));
    }

    fn save(&mut self, out: &mut Vec<Json>) {
        let Some(known) = self.some(|_| true) else { return };
        let print = self.dice.chance(0.1);
        let name = self.name();
        let op = if print { "print" } else { "save" };
        out.push(json!({"op": op, "name": name, "value": known.name}));
    }

    /// A hook point of several layers, stacked.
    fn pattern(&mut self, out: &mut Vec<Json>) {
        let invoke = self.dice.of(&self.invokes).clone();
        let mut node = json!({"op": "get", "invoke": invoke.name, "hook": "layers.*.output"});
        self.except(&mut node);
        let name = self.name();
        node["name"] = name.as_str().into();
        out.push(node);
        let kind = Kind::Stream(invoke.prompts, invoke.length);
        let times = Times::from([(invoke.order, ALWAYS)]);
        self.node(json!({"op": "mean", "input": name, "dim": 0}), kind, times, out);
        self.count("getters by a pattern");
    }

    fn except(&mut self, node: &mut Json) -> u64 {
        if self.layers > 1 && self.dice.chance(0.5) {
            let layer = self.dice.below(self.layers);
            node["except"] = json!([format!("layers.{layer}.output")]);
            return self.layers - 1;
        }
        self.layers
    }

    fn pattern_set(&mut self, out: &mut Vec<Json>) {
        let Some(invoke) = self.settable() else { return };
        if !self.in_time(&Times::new(), &invoke, 0) {
            return;
        }
        let mut node = json!({"op": "set", "invoke": invoke.name, "hook": "layers.*.output"});
        let count = self.except(&mut node);
        if self.dice.chance(0.5) {
            // Row by row: what another invoke had there, or a number for each.
            let same = |other: &&Invoke| {
                other.order < invoke.order && (other.prompts, other.length) == (invoke.prompts, invoke.length)
            };
            let rows = self.name();
            match self.invokes.iter().find(same).cloned() {
                Some(other) if self.guards.is_empty() => {
                    let mut get = node.clone();
                    get["op"] = "get".into();
                    get["invoke"] = other.name.as_str().into();
                    get["name"] = rows.as_str().into();
                    out.push(get);
                }
                _ => {
                    let elements: Vec<f64> = (0..count).map(|layer| layer as f64 / 4.0 - 0.25).collect();
                    out.push(json!({"op": "literal", "name": rows, "dtype": "f32", "shape": [count], "elements": elements}));
                }
            }
            node["value"] = rows.into();
            node["each"] = true.into();
            self.count("setters of each by a pattern");
        } else {
            let number = self.literal(out);
            node["value"] = number.name.into();
            self.count("setters by a pattern");
        }
        out.push(node);
    }

    /// A way back from a number of one layer to an earlier one.
    fn gradient(&mut self, place: Place, out: &mut Vec<Json>) {
        let invoke = self.dice.of(&self.invokes).clone();
        if place == Place::Steps {
            return;
        }
        let late = self.dice.below(self.layers);
        let early = self.dice.below(late + 1);
        let node = json!({"op": "get", "invoke": invoke.name, "hook": format!("layers.{late}.output")});
        let times = Times::from([(invoke.order, 2 * late + 1)]);
        let kind = Kind::Stream(invoke.prompts, invoke.length);
        let read = self.node(node, kind, times, out);
        let loss = self.number_of(&read, out);
        let (backward, gradient, saved) = (self.name(), self.name(), self.name());
        out.push(json!({"op": "backward", "name": backward, "of": loss.name}));
        out.push(json!({"op": "grad", "name": gradient, "backward": backward, "invoke": invoke.name, "hook": format!("layers.{early}.output")}));
        out.push(json!({"op": "save", "name": saved, "value": gradient}));
        self.count("gradients");
    }

    fn tokens(&mut self, length: usize) -> Vec<u32> {
        (0..length).map(|_| self.dice.below(self.vocabulary) as u32).collect()
    }

    /// Invokes of a trace, or one of a cell.
    fn new_invokes(&mut self, several: bool) -> Json {
        let count = if several { self.dice.range(1, 3) } else { 1 };
        let length = self.dice.range(3, 6) as usize;
        let mut all = Vec::new();
        if several && !self.prompts.is_empty() {
            let (parameter, length) = self.dice.of(&self.prompts).clone();
            let invoke = self.declare(1, length);
            all.push(json!({"name": invoke.name, "prompt": {"axis": parameter}}));
        }
        for _ in 0..count {
            let prompts = *self.dice.of(&[1, 1, 2]);
            let tokens: Vec<Vec<u32>> = (0..prompts).map(|_| self.tokens(length)).collect();
            let invoke = self.declare(prompts, length);
            all.push(json!({"name": invoke.name, "tokens": tokens}));
        }
        all.into()
    }

    fn declare(&mut self, prompts: usize, length: usize) -> Invoke {
        let (name, order) = (format!("i{}", self.name()), self.orders);
        self.orders += 1;
        let invoke = Invoke { name, order, prompts, length, may_be_set: true };
        self.invokes.push(invoke.clone());
        invoke
    }

    /// A trace. What it computed is known after it.
    fn trace(&mut self, out: &mut Vec<Json>, edits: &[String], elsewhere: bool) {
        let (outer, goes_back) = (std::mem::take(&mut self.invokes), self.goes_back);
        let mut trace = json!({"op": "trace", "invokes": self.new_invokes(true)});
        if elsewhere {
            // Of the other model nothing is known but that it has a first layer and logits.
            let layers = std::mem::replace(&mut self.layers, 1);
            trace["model"] = "other".into();
            self.count("traces of another model");
            trace["invokes"] = json!([{"name": self.invokes[0].name, "tokens": [[1, 2, 3, 4]]}]);
            self.invokes.truncate(1);
            let name = self.name();
            let read = json!({"op": "get", "name": name, "hook": "layers.0.output"});
            let known = Known { name, kind: Kind::Vector, times: Times::new() };
            let mut body = vec![read];
            let first = self.known.len();
            let number = self.number_of(&known, &mut body);
            self.known.truncate(first);
            self.known.push(Known { times: Times::new(), ..number.clone() });
            let saved = self.name();
            body.push(json!({"op": "save", "name": saved, "value": number.name}));
            trace["body"] = body.into();
            self.layers = layers;
            out.push(trace);
            self.invokes = outer;
            return;
        }
        if !edits.is_empty() && self.dice.chance(0.6) {
            trace["edits"] = json!([self.dice.of(edits)]);
            self.count("edits");
        }
        let generates = self.depth == 0 && self.dice.chance(0.2);
        self.goes_back = !generates && self.guards.is_empty() && self.dice.chance(0.3);
        let first = self.known.len();
        let mut body = Vec::new();
        for _ in 0..self.dice.range(2, 7) {
            self.item(Place::Trace, &mut body);
        }
        if generates {
            trace["generate"] = json!({"max_new_tokens": 3, "stop_tokens": []});
            self.steps(&mut body);
        }
        for invoke in self.invokes.clone() {
            let (read, saved) = (self.name(), self.name());
            if generates {
                body.push(json!({"op": "generated", "name": read, "invoke": invoke.name}));
                body.push(json!({"op": "save", "name": saved, "value": read}));
                continue;
            }
            let last = self.name();
            body.push(json!({"op": "get", "name": read, "invoke": invoke.name, "hook": "logits"}));
            body.push(json!({"op": "getitem", "name": last, "input": read, "index": [":", -1]}));
            body.push(json!({"op": "save", "name": saved, "value": last}));
            if self.depth == 0 && self.dice.chance(0.15) {
                let cache = self.name();
                body.push(
                    json!({"op": "cache", "name": cache, "invoke": invoke.name, "pattern": "layers.0.**"}),
                );
                self.count("caches");
            }
        }
        trace["body"] = body.into();
        out.push(trace);
        // Numbers and vectors are of any use elsewhere; when they were known no longer matters.
        let kept: Vec<Known> = self.known.drain(first..).collect();
        let kept = kept.into_iter().filter(|known| matches!(known.kind, Kind::Number | Kind::Vector));
        self.known.extend(kept.map(|known| Known { times: Times::new(), ..known }));
        (self.invokes, self.goes_back) = (outer, goes_back);
    }

    fn steps(&mut self, out: &mut Vec<Json>) {
        let first = self.known.len();
        let hidden: Vec<Known> = self.known.clone();
        self.known
            .retain(|known| matches!(known.kind, Kind::Number | Kind::Vector) && known.times.is_empty());
        let kept = self.known.len();
        let mut body = Vec::new();
        let invoke = self.dice.of(&self.invokes).clone();
        self.get(&invoke, Place::Steps, &mut body);
        for _ in 0..self.dice.range(1, 5) {
            self.item(Place::Steps, &mut body);
        }
        self.known.truncate(kept);
        out.push(json!({"op": "steps", "body": body}));
        self.count("steps");
        self.known = hidden;
        self.known.truncate(first);
    }

    /// Named stacks of edits, the second upon the first.
    fn edits(&mut self, out: &mut Vec<Json>) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for _ in 0..self.dice.below(3) {
            let (name, read, less) = (self.name(), self.name(), self.name());
            let hook = format!("layers.{}.output", self.dice.below(self.layers));
            let mut edit = json!({"op": "edit", "name": name, "body": [
                {"op": "get", "name": read, "hook": hook},
                {"op": "mul", "name": less, "input": read, "other": 0.9},
                {"op": "set", "hook": hook, "value": less}]});
            if let Some(last) = names.last().filter(|_| self.names.is_multiple_of(2)) {
                edit["edits"] = json!([last]);
            }
            out.push(edit);
            names.push(name);
        }
        names
    }

    /// The parameters of a grid and the invokes of a cell, and what is to be restored after it.
    fn enter(
        &mut self,
        place: Place,
        repeats: bool,
        out: &mut Vec<Json>,
    ) -> (Vec<Json>, Option<Json>, Scope) {
        let scope = Scope {
            known: self.known.len(),
            invokes: self.invokes.clone(),
            layers: self.layer_names.len(),
            positions: self.positions.len(),
            prompts: self.prompts.len(),
        };
        self.depth += 1;
        if !repeats {
            self.invokes.iter_mut().for_each(|invoke| invoke.may_be_set = false);
        }
        let mut over = Vec::new();
        let mut prompts: Option<(String, usize)> = None;
        for _ in 0..*self.dice.of(&[1, 1, 2]) {
            let cells = self.dice.range(2, 4) as usize;
            let mut axis = json!({});
            for _ in 0..*self.dice.of(&[1, 1, 2]) {
                let name = format!("p{}", self.name());
                // What is stacked is known outside: no parameter of this grid.
                let mut outside = self.known[..scope.known].iter();
                let vector = outside.rfind(|known| known.kind == Kind::Vector).cloned();
                match self.dice.below(6) {
                    0 => {
                        let values: Vec<f64> = (0..cells).map(|cell| cell as f64 / 2.0 + 0.25).collect();
                        axis[&name] = json!(values);
                        self.learn(&name, Kind::Number, Times::new());
                    }
                    1 if prompts.is_none() && place != Place::Steps => {
                        let length = self.dice.range(3, 6) as usize;
                        let lists: Vec<Vec<u32>> = (0..cells).map(|_| self.tokens(length)).collect();
                        axis[&name] = json!({"token_lists": lists});
                        prompts = Some((name, length));
                        self.count("prompts along an axis");
                    }
                    2 => {
                        axis[&name] = json!({"range": [0, cells]});
                        if cells <= 3 {
                            self.positions.push(name);
                        }
                    }
                    3 => {
                        let Some(vector) = vector else { continue };
                        let rows = self.name();
                        let same = vec![vector.name.as_str(); cells];
                        out.push(json!({"op": "stack", "name": rows, "tensors": same, "dim": 0}));
                        axis[&name] = json!({"rows_of": rows});
                        self.learn(&name, Kind::Vector, vector.times);
                        self.count("rows along an axis");
                    }
                    _ => {
                        let layers: Vec<u64> = (0..cells).map(|_| self.dice.below(self.layers)).collect();
                        axis[&name] = json!(layers);
                        self.layer_names.push(name);
                    }
                }
            }
            if axis == json!({}) {
                let name = format!("p{}", self.name());
                axis[&name] = json!(vec![0.5; cells]);
            }
            over.push(axis);
        }
        if let (Place::Session, Some(prompts)) = (place, &prompts) {
            self.prompts.push(prompts.clone());
        }
        let own = match (place, prompts) {
            (Place::Trace, Some((parameter, length))) => {
                let invoke = self.declare(1, length);
                Some(json!([{"name": invoke.name, "prompt": {"axis": parameter}}]))
            }
            (Place::Trace, None) if self.dice.chance(0.6) => Some(self.new_invokes(false)),
            _ => None,
        };
        (over, own, scope)
    }

    fn leave(&mut self, scope: Scope) {
        self.depth -= 1;
        self.known.truncate(scope.known);
        self.invokes = scope.invokes;
        self.layer_names.truncate(scope.layers);
        self.positions.truncate(scope.positions);
        self.prompts.truncate(scope.prompts);
    }

    /// The body of a cell, and a number that depends on it.
    fn cell(&mut self, place: Place, body: &mut Vec<Json>, own: bool) -> Known {
        if place == Place::Session {
            let first = self.known.len();
            self.trace(body, &[], false);
            let made = self.known.get(first..).unwrap_or_default();
            let number = made.iter().rev().find(|known| known.kind == Kind::Number).cloned();
            let number = match number {
                Some(number) => number,
                None => self.literal(body),
            };
            let saved = self.name();
            body.push(json!({"op": "save", "name": saved, "value": number.name}));
            return number;
        }
        for _ in 0..self.dice.range(1, 5) {
            self.item(place, body);
        }
        let invoke = match own {
            true => self.invokes[self.invokes.len() - 1].clone(),
            false => self.dice.of(&self.invokes).clone(),
        };
        let read = match own {
            true => {
                let node = json!({"op": "get", "invoke": invoke.name, "hook": "output"});
                let times = Times::from([(invoke.order, ALWAYS)]);
                // It has another width: it is used for its number alone.
                self.node(node, Kind::Other, times, body)
            }
            false => self.get(&invoke, place, body),
        };
        self.known.retain(|known| known.name != read.name || known.kind != Kind::Other);
        let first = self.known.len();
        let number = self.number_of(&read, body);
        self.known.truncate(first);
        self.known.push(number.clone());
        let saved = self.name();
        body.push(json!({"op": "save", "name": saved, "value": number.name}));
        number
    }

    fn sweep(&mut self, place: Place, out: &mut Vec<Json>) {
        if self.depth >= 2 {
            return;
        }
        let nested = self.depth > 0;
        let (over, own, scope) = self.enter(place, false, out);
        let mut body = Vec::new();
        let number = self.cell(place, &mut body, own.is_some());
        let mut after = Vec::new();
        if self.dice.chance(0.5) {
            if place != Place::Session && self.dice.chance(0.3) {
                let invoke = self.dice.of(&self.invokes).clone();
                let read = self.get(&invoke, place, &mut body);
                let node = json!({"op": "getitem", "input": read.name, "index": [0, -1]});
                self.node(node, Kind::Vector, read.times, &mut body);
            }
            let vectors =
                self.known[scope.known..].iter().rev().find(|known| known.kind == Kind::Vector).cloned();
            let (reduced, saved) = (self.name(), self.name());
            let reduction =
                *self.dice.of(&["sum", "mean", "var", "amin", "amax", "topk", "covariance", "covariance"]);
            let mut node =
                json!({"op": "reduce", "name": reduced, "reduction": reduction, "value": number.name});
            match (reduction, vectors) {
                ("covariance", Some(vector)) => {
                    node["value"] = vector.name.as_str().into();
                    self.count("covariances");
                }
                ("covariance", None) => node["reduction"] = "mean".into(),
                ("topk", _) => node["k"] = 2.into(),
                _ => {}
            }
            self.count("reductions");
            body.push(node);
            after.push(json!({"op": "save", "name": saved, "value": reduced}));
        }
        let deps = self.invokes.iter().map(|invoke| (invoke.order, ALWAYS)).collect::<Times>();
        self.leave(scope);
        let name = self.name();
        let mut sweep = json!({"op": "sweep", "name": name, "over": over, "body": body});
        if let Some(own) = own {
            sweep["invokes"] = own;
            self.count("sweeps with invokes of their own");
        }
        if self.dice.chance(0.7) {
            sweep["yields"] = json!([number.name]);
            after.push(json!({"op": "mean", "name": format!("{name}_mean"), "input": name}));
            self.learn(&format!("{name}_mean"), Kind::Number, deps);
            self.count("yields");
        }
        out.push(sweep);
        out.append(&mut after);
        self.count(match place {
            Place::Session => "sweeps of traces",
            Place::Trace => "sweeps in traces",
            Place::Steps => "sweeps in steps",
        });
        if nested {
            self.count("sweeps inside another region");
        }
    }

    fn repeat(&mut self, place: Place, out: &mut Vec<Json>) {
        if self.depth >= 2 {
            return;
        }
        let nested = self.depth > 0;
        let wanted = |known: &Known| match known.kind {
            Kind::Stream(_, length) => length > 0 && place == Place::Trace,
            Kind::Other => false,
            _ => true,
        };
        let start = match self.some(wanted) {
            Some(start) => start,
            None => self.literal(out),
        };
        let outer = self.invokes.iter().map(|invoke| (invoke.order, ALWAYS)).collect::<Times>();
        let (over, own, scope) = self.enter(place, true, out);
        let carried = format!("c{}", self.name());
        self.learn(&carried, start.kind, outer);
        let mut body = Vec::new();
        let number = self.cell(place, &mut body, own.is_some());
        let next = json!({"op": "mul", "input": carried, "other": number.name});
        let next = self.node(next, start.kind, Times::new(), &mut body);
        let deps = self.invokes.iter().map(|invoke| (invoke.order, ALWAYS)).collect::<Times>();
        self.leave(scope);
        let name = self.name();
        let mut node = json!({"op": "loop", "name": name, "over": over, "body": body,
            "carry": {&carried: start.name}, "next": {&carried: next.name}});
        if let Some(own) = own {
            node["invokes"] = own;
            self.count("loops with invokes of their own");
        }
        out.push(node);
        self.learn(&name, start.kind, deps);
        self.count(if place == Place::Session { "loops of traces" } else { "loops in traces" });
        if start.kind != Kind::Number {
            self.count("carried tensors");
        }
        if nested {
            self.count("loops inside another region");
        }
    }

    fn cond(&mut self, place: Place, out: &mut Vec<Json>) {
        if self.depth >= 2 {
            return;
        }
        let number = match self.some(|known| known.kind == Kind::Number) {
            Some(number) => number,
            None => self.literal(out),
        };
        let condition = self.name();
        let above = self.dice.range(0, 9) as f64 / 20.0 - 0.2;
        out.push(json!({"op": "gt", "name": condition, "input": number.name, "other": above}));
        self.guards.push(number.times.clone());
        self.depth += 1;
        let mut times = number.times.clone();
        let mut branches = Vec::new();
        for _ in 0..2 {
            let first = self.known.len();
            let mut body = Vec::new();
            match place {
                Place::Session => self.trace(&mut body, &[], false),
                _ => (0..self.dice.range(0, 3)).for_each(|_| self.item(place, &mut body)),
            }
            let value = match self.known[first..].iter().rev().find(|known| known.kind == Kind::Number) {
                Some(value) => value.clone(),
                None if self.dice.chance(0.5) => number.clone(),
                None => self.literal(&mut body),
            };
            times = later(&times, &value.times);
            self.known.truncate(first);
            branches.push(json!({"body": body, "yields": [value.name]}));
        }
        self.depth -= 1;
        self.guards.pop();
        let otherwise = branches.pop();
        let node = json!({"op": "cond", "condition": condition, "then": branches.pop(), "else": otherwise});
        self.node(node, Kind::Number, times, out);
        self.count("conds");
    }
}

/// What is restored after a region.
struct Scope {
    known: usize,
    invokes: Vec<Invoke>,
    layers: usize,
    positions: usize,
    prompts: usize,
}
