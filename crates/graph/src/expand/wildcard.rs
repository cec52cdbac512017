//! Hook points by pattern: read and stacked, written, saved; and their gradients.

use std::collections::BTreeSet;

use super::{Bound, Expander};
use crate::fault::quote;
use crate::operation::{Argument, IndexItem, OperationKind};
use crate::program::{GradientOf, HookAddress, NodeId, NodeKind, Value};
use crate::surface::{Cache, GradAll, SetAll, SetGradAll, WildcardAddress};

impl<'a> Expander<'a> {
    pub(super) fn get_all(&mut self, id: NodeId, address: &'a WildcardAddress) {
        let Some(read) = self.read_all(id, address) else { return };
        let mut stacked: Vec<Value> = Vec::with_capacity(read.len());
        let mut last: Option<&Vec<Value>> = None;
        for (cell, (_, values)) in read.iter().enumerate() {
            if last == Some(values)
                && let Some(&same) = stacked.last()
            {
                stacked.push(same);
                continue;
            }
            let Some(value) = self.stacked(id, cell, values.clone()) else { return };
            stacked.push(value);
            last = Some(values);
        }
        self.bound[id.index()] = Bound::Outputs(vec![stacked]);
    }

    pub(super) fn set_all(&mut self, id: NodeId, set: &'a SetAll) {
        for cell in 0..self.cells_here() {
            let kind = NodeKind::SetAll(set.clone());
            let Some(NodeKind::SetAll(set)) = self.instance(id, &kind, cell) else { return };
            let written = |address, value| NodeKind::Set { address, value };
            if self.write_all(id, cell, &set.address, set.value, set.each, &written).is_none() {
                return;
            }
        }
    }

    pub(super) fn set_grad_all(&mut self, id: NodeId, set: &'a SetGradAll) {
        for cell in 0..self.cells_here() {
            let kind = NodeKind::SetGradAll(set.clone());
            let Some(NodeKind::SetGradAll(set)) = self.instance(id, &kind, cell) else { return };
            let backward = set.backward;
            let written =
                |address, value| NodeKind::SetGrad { backward, of: GradientOf::Hook(address), value };
            if self.write_all(id, cell, &set.address, set.value, set.each, &written).is_none() {
                return;
            }
        }
    }

    /// Writes what stands for each hook point that matches: all of a value to each, or its k-th row to the k-th.
    fn write_all(
        &mut self,
        id: NodeId,
        cell: usize,
        address: &WildcardAddress,
        value: Value,
        each: bool,
        written: &dyn Fn(HookAddress, Value) -> NodeKind,
    ) -> Option<()> {
        for (row, place) in self.matching(id, address)?.into_iter().enumerate() {
            let mut value = value;
            if each {
                let index = vec![IndexItem::Integer(row as i64)];
                let given = vec![Argument::Value(value), Argument::Index(index)];
                value = self.operation(id, cell, "row", OperationKind::GetItem, given)?;
            }
            let hook = self.index.spec().hook_points[place].path();
            let address = HookAddress { invoke: address.invoke, hook, step: address.step };
            self.emit(id, cell, "set", written(address, value))?;
        }
        Some(())
    }

    pub(super) fn grad_all(&mut self, id: NodeId, grad: &'a GradAll) {
        let mut stacked: Vec<Value> = Vec::with_capacity(self.cells_here());
        let mut last: Option<GradAll> = None;
        for cell in 0..self.cells_here() {
            let kind = NodeKind::GradAll(grad.clone());
            let Some(NodeKind::GradAll(grad)) = self.instance(id, &kind, cell) else { return };
            if last.as_ref() == Some(&grad)
                && let Some(&same) = stacked.last()
            {
                stacked.push(same);
                continue;
            }
            let Some(places) = self.matching(id, &grad.address) else { return };
            let mut values = Vec::with_capacity(places.len());
            for place in places {
                let hook = self.index.spec().hook_points[place].path();
                let address = HookAddress { invoke: grad.address.invoke, hook, step: None };
                let kind = NodeKind::Grad { backward: grad.backward, of: GradientOf::Hook(address) };
                match self.emit(id, cell, "grad", kind) {
                    Some(read) => values.push(read.into()),
                    None => return,
                }
            }
            let Some(value) = self.stacked(id, cell, values) else { return };
            stacked.push(value);
            last = Some(grad);
        }
        self.bound[id.index()] = Bound::Outputs(vec![stacked]);
    }

    pub(super) fn cache(&mut self, id: NodeId, cache: &'a Cache) {
        let Some(read) = self.read_all(id, &cache.address) else { return };
        let Some((places, _)) = read.first() else { return };
        if read.iter().any(|(others, _)| others != places) {
            let message = "the pattern stands for different hook points in different cells".to_owned();
            return self.fault(id, message, Some("cache outside the sweep, or read with `get`".into()));
        }
        let label = self.source.node(id).name.clone();
        for (row, &place) in places.clone().iter().enumerate() {
            let values = read.iter().filter_map(|(_, values)| values.get(row).copied()).collect();
            let name = format!("{label}/{}", self.index.spec().hook_points[place].path());
            self.save_values(id, &name, values);
        }
    }

    /// Getters of all hook points that match, for each cell: the places, and the values.
    fn read_all(&mut self, id: NodeId, address: &WildcardAddress) -> Option<Vec<(Vec<usize>, Vec<Value>)>> {
        let mut all: Vec<(Vec<usize>, Vec<Value>)> = Vec::with_capacity(self.cells_here());
        let mut last: Option<WildcardAddress> = None;
        for cell in 0..self.cells_here() {
            let kind = self.instance(id, &NodeKind::GetAll(address.clone()), cell)?;
            let NodeKind::GetAll(address) = kind else { return None };
            if last.as_ref() == Some(&address)
                && let Some(same) = all.last().cloned()
            {
                all.push(same);
                continue;
            }
            let places = self.matching(id, &address)?;
            let mut values = Vec::with_capacity(places.len());
            for &place in &places {
                let hook = self.index.spec().hook_points[place].path();
                let address = HookAddress { invoke: address.invoke, hook, step: address.step };
                values.push(self.emit(id, cell, "get", NodeKind::Get(address))?.into());
            }
            all.push((places, values));
            last = Some(address);
        }
        Some(all)
    }

    /// The places of all hook points that match, in the order of the schedule.
    fn matching(&mut self, id: NodeId, address: &WildcardAddress) -> Option<Vec<usize>> {
        let mut places = self.matching_one(id, &address.pattern)?;
        for pattern in &address.except {
            let left_out = self.matching_one(id, pattern)?;
            places.retain(|place| !left_out.contains(place));
        }
        if places.is_empty() {
            let message = format!("every hook point that matches {} is left out", quote(&address.pattern));
            self.fault(id, message, None);
            return None;
        }
        Some(places.into_iter().collect())
    }

    fn matching_one(&mut self, id: NodeId, text: &str) -> Option<BTreeSet<usize>> {
        if let Some(known) = self.patterns.get(text) {
            return Some(known.clone());
        }
        let Some(pattern) = Pattern::read(text) else {
            let hint = "`*` stands for one part of a path, `**` for any number of them, `layers[0:12:2]` and `layers[0,5]` for some layers";
            self.fault(id, format!("{} is no pattern of hook points", quote(text)), Some(hint.into()));
            return None;
        };
        let names = self.names.get_or_insert_with(|| self.index.hook_names());
        let mut used = BTreeSet::new();
        let places: BTreeSet<usize> = names
            .iter()
            .filter(|(name, _)| pattern.matches(name, &mut used))
            .map(|&(_, place)| place)
            .collect();
        if places.is_empty() {
            let hint = self.index.hint_for_hook(text).unwrap_or_else(|| {
                "`layers.*.attention.output` reads one of every layer; `layers.0.attention.*` all of one module".into()
            });
            let message =
                format!("`{}` has no hook point that matches {}", self.index.spec().name, quote(text));
            self.fault(id, message, Some(hint));
            return None;
        }
        // A number that is written out and stands for nothing is a slip: part of what was meant would not happen.
        if let Some((name, number)) = pattern.unused(&used) {
            let message =
                format!("{} names `{name}` {number}, but no hook point that matches has it", quote(text));
            let hint = "numbers count from 0, and each of a list stands for something; a slice such as `[2:]` takes what there is";
            self.fault(id, message, Some(hint.into()));
            return None;
        }
        self.patterns.insert(text.to_owned(), places.clone());
        Some(places)
    }
}

/// One part of a pattern.
enum Part<'p> {
    Exactly(&'p str),
    Any,
    AnyNumber,
    /// A part, then one whose number is chosen.
    Numbered(&'p str, Numbers),
}

/// Which numbers.
enum Numbers {
    Slice(Option<i64>, Option<i64>, i64),
    List(Vec<i64>),
}

struct Pattern<'p>(Vec<Part<'p>>);

impl<'p> Pattern<'p> {
    fn read(text: &'p str) -> Option<Pattern<'p>> {
        let mut parts = Vec::new();
        for part in text.split('.') {
            parts.push(match part {
                "*" => Part::Any,
                "**" => Part::AnyNumber,
                part => match part.split_once('[') {
                    None if part.contains(['*', ']']) || part.is_empty() => return None,
                    None => Part::Exactly(part),
                    Some((name, numbers)) => Part::Numbered(name, Numbers::read(numbers.strip_suffix(']')?)?),
                },
            });
        }
        // Each doubles the ways to match.
        (parts.iter().filter(|part| matches!(part, Part::AnyNumber)).count() <= 4).then_some(Pattern(parts))
    }

    fn matches(&self, name: &str, used: &mut Used) -> bool {
        let name: Vec<&str> = name.split('.').collect();
        matches(&self.0, &name, used)
    }

    /// A number of a list that no match used, with what it numbers.
    fn unused(&self, used: &Used) -> Option<(&'p str, i64)> {
        self.0.iter().enumerate().find_map(|(at, part)| match part {
            Part::Numbered(name, Numbers::List(numbers)) => {
                let after = self.0.len() - at;
                let unused = numbers.iter().find(|&&number| !used.contains(&(after, number)));
                unused.map(|&number| (*name, number))
            }
            _ => None,
        })
    }
}

/// The numbers of lists that matches used: how many parts of the pattern stand from the list on, and the number.
type Used = BTreeSet<(usize, i64)>;

fn matches(pattern: &[Part<'_>], name: &[&str], used: &mut Used) -> bool {
    let Some((part, rest)) = pattern.split_first() else { return name.is_empty() };
    match part {
        Part::AnyNumber => (0..=name.len()).any(|taken| matches(rest, &name[taken..], used)),
        Part::Any => name.split_first().is_some_and(|(_, name)| matches(rest, name, used)),
        Part::Exactly(exactly) => {
            name.split_first().is_some_and(|(first, name)| first == exactly && matches(rest, name, used))
        }
        Part::Numbered(exactly, numbers) => match name {
            [first, number, name @ ..] => match number.parse() {
                Ok(number) if first == exactly && numbers.contain(number) && matches(rest, name, used) => {
                    if let Numbers::List(_) = numbers {
                        used.insert((pattern.len(), number));
                    }
                    true
                }
                _ => false,
            },
            _ => false,
        },
    }
}

impl Numbers {
    fn read(text: &str) -> Option<Numbers> {
        if !text.contains(':') {
            return text
                .split(',')
                .map(|number| number.trim().parse().ok())
                .collect::<Option<_>>()
                .map(Numbers::List);
        }
        let mut parts = text.split(':').map(|part| match part.trim() {
            "" => Some(None),
            number => number.parse::<i64>().ok().map(Some),
        });
        let (from, to) = (parts.next()??, parts.next()??);
        let every = match parts.next() {
            None => 1,
            Some(every) => every?.unwrap_or(1),
        };
        let counts_up = from.is_none_or(|from| from >= 0) && to.is_none_or(|to| to >= 0) && every >= 1;
        (counts_up && parts.next().is_none()).then_some(Numbers::Slice(from, to, every))
    }

    fn contain(&self, number: i64) -> bool {
        match self {
            Numbers::List(numbers) => numbers.contains(&number),
            Numbers::Slice(from, to, every) => {
                let from = from.unwrap_or(0);
                number >= from && to.is_none_or(|to| number < to) && (number - from) % every == 0
            }
        }
    }
}
