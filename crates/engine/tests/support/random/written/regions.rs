//! Traces, edits, sweeps, loops and branches of a random program that is written as people write them.

use serde_json::{Value as Json, json};

use super::{ALWAYS, Invoke, Kind, Known, Place, Times, Writer, later};

/// What is restored after a region.
pub(super) struct Scope {
    known: usize,
    invokes: Vec<Invoke>,
    layers: usize,
    positions: usize,
    prompts: usize,
}

impl Writer {
    pub(super) fn tokens(&mut self, length: usize) -> Vec<u32> {
        (0..length).map(|_| self.dice.below(self.vocabulary) as u32).collect()
    }

    /// Invokes of a trace, or one of a cell.
    pub(super) fn new_invokes(&mut self, several: bool) -> Json {
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

    pub(super) fn declare(&mut self, prompts: usize, length: usize) -> Invoke {
        let (name, order) = (format!("i{}", self.name()), self.orders);
        self.orders += 1;
        let invoke = Invoke { name, order, prompts, length, may_be_set: true };
        self.invokes.push(invoke.clone());
        invoke
    }

    /// A trace. What it computed is known after it.
    pub(super) fn trace(&mut self, out: &mut Vec<Json>, edits: &[String], elsewhere: bool) {
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

    pub(super) fn steps(&mut self, out: &mut Vec<Json>) {
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
    pub(super) fn edits(&mut self, out: &mut Vec<Json>) -> Vec<String> {
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
    pub(super) fn enter(
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

    pub(super) fn leave(&mut self, scope: Scope) {
        self.depth -= 1;
        self.known.truncate(scope.known);
        self.invokes = scope.invokes;
        self.layer_names.truncate(scope.layers);
        self.positions.truncate(scope.positions);
        self.prompts.truncate(scope.prompts);
    }

    /// The body of a cell, and a number that depends on it.
    pub(super) fn cell(&mut self, place: Place, body: &mut Vec<Json>, own: bool) -> Known {
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

    pub(super) fn sweep(&mut self, place: Place, out: &mut Vec<Json>) {
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

    pub(super) fn repeat(&mut self, place: Place, out: &mut Vec<Json>) {
        if self.depth >= 2 {
            return;
        }
        let nested = self.depth > 0;
        let wanted = |known: &Known| match known.kind {
            Kind::Stream(_, length) => match place {
                Place::Session => false,
                Place::Trace => length > 0,
                Place::Steps => length == 0,
            },
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
        self.count(match place {
            Place::Session => "loops of traces",
            Place::Trace => "loops in traces",
            Place::Steps => "loops in steps",
        });
        if start.kind != Kind::Number {
            self.count("carried tensors");
        }
        if nested {
            self.count("loops inside another region");
        }
    }

    pub(super) fn cond(&mut self, place: Place, out: &mut Vec<Json>) {
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
