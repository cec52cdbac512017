//! Nodes of a random program that is written as people write them.

use serde_json::{Value as Json, json};

use super::{ALWAYS, Invoke, Kind, Known, Place, Times, Writer, later};

impl Writer {
    /// A number, and nothing that it was computed from.
    pub(super) fn literal(&mut self, out: &mut Vec<Json>) -> Known {
        let value = self.dice.range(1, 16) as f64 / 8.0 - 1.0;
        let node = json!({"op": "literal", "dtype": "f32", "shape": [], "elements": [value]});
        self.node(node, Kind::Number, Times::new(), out)
    }

    /// One number, not large, that depends on all of a value.
    pub(super) fn number_of(&mut self, known: &Known, out: &mut Vec<Json>) -> Known {
        let bent = json!({"op": "tanh", "input": known.name});
        let bent = self.node(bent, known.kind, known.times.clone(), out);
        let mean = json!({"op": "mean", "input": bent.name});
        self.node(mean, Kind::Number, known.times.clone(), out)
    }

    /// A layer's hook point: its path, when it is computed, and when it is at the earliest.
    pub(super) fn hook(&mut self) -> (String, u64, u64) {
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

    pub(super) fn stream(&self, invoke: &Invoke, place: Place) -> Kind {
        Kind::Stream(invoke.prompts, if place == Place::Steps { 0 } else { invoke.length })
    }

    pub(super) fn get(&mut self, invoke: &Invoke, place: Place, out: &mut Vec<Json>) -> Known {
        let (hook, time, _) = self.hook();
        let node = json!({"op": "get", "invoke": invoke.name, "hook": hook});
        self.node(node, self.stream(invoke, place), Times::from([(invoke.order, time)]), out)
    }

    /// Something that may stand anywhere in a trace's body.
    pub(super) fn item(&mut self, place: Place, out: &mut Vec<Json>) {
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
            17 | 18 if self.depth < 2 => self.repeat(place, out),
            19 if !steps => self.pattern(out),
            20 if !steps => self.pattern_set(out),
            21 if self.goes_back && !steps => self.gradient(place, out),
            _ => self.computed(place, out),
        }
    }

    /// An operation on what there is.
    pub(super) fn computed(&mut self, place: Place, out: &mut Vec<Json>) {
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
    pub(super) fn in_time(&self, times: &Times, invoke: &Invoke, at: u64) -> bool {
        std::iter::once(times).chain(&self.guards).all(|times| {
            times.iter().all(
                |(&order, &time)| {
                    if order == invoke.order { time <= at } else { order < invoke.order }
                },
            )
        })
    }

    pub(super) fn settable(&mut self) -> Option<Invoke> {
        let settable: Vec<Invoke> = self.invokes.iter().filter(|invoke| invoke.may_be_set).cloned().collect();
        if settable.is_empty() { None } else { Some(self.dice.of(&settable).clone()) }
    }

    pub(super) fn set(&mut self, place: Place, out: &mut Vec<Json>) {
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

    pub(super) fn save(&mut self, out: &mut Vec<Json>) {
        let Some(known) = self.some(|_| true) else { return };
        let print = self.dice.chance(0.1);
        let name = self.name();
        let op = if print { "print" } else { "save" };
        out.push(json!({"op": op, "name": name, "value": known.name}));
    }

    /// A hook point of several layers, stacked.
    pub(super) fn pattern(&mut self, out: &mut Vec<Json>) {
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

    pub(super) fn except(&mut self, node: &mut Json) -> u64 {
        if self.layers > 1 && self.dice.chance(0.5) {
            let layer = self.dice.below(self.layers);
            node["except"] = json!([format!("layers.{layer}.output")]);
            return self.layers - 1;
        }
        self.layers
    }

    pub(super) fn pattern_set(&mut self, out: &mut Vec<Json>) {
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
    pub(super) fn gradient(&mut self, place: Place, out: &mut Vec<Json>) {
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
}
