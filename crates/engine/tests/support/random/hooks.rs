//! What is proposed about hook points: getters, setters and edits, values that go from one invoke to another, modules applied.

use super::*;

impl Builder<'_> {
    /// A hook point of a random kind.
    pub(super) fn place(&mut self) -> usize {
        let kind = self.dice.below(self.kinds.len() as u64) as usize;
        *self.dice.of(&self.kinds[kind].1)
    }

    pub(super) fn address(&mut self, place: usize) -> HookAddress {
        let invokes = self.current().invokes.len() as u64;
        let total = self.current().generation.as_ref().map_or(1, |generation| generation.max_new_tokens);
        HookAddress {
            invoke: self.dice.below(invokes) as usize,
            hook: self.index.spec().hook_points[place].path(),
            step: (self.steps.is_none() && total > 1 && self.dice.chance(0.7))
                .then(|| self.dice.below(total)),
        }
    }

    pub(super) fn getter(&mut self) {
        let place = self.place();
        let address = self.address(place);
        let mut draft = self.draft();
        let value = draft.add(NodeKind::Get(address));
        if self.dice.chance(if self.wishes.alike { 0.7 } else { 0.25 }) {
            // One position: what narrows the logits.
            let index = vec![IndexItem::Slice { start: None, stop: None, step: 1 }, self.column()];
            draft.operation(OperationKind::GetItem, vec![Argument::Value(value), Argument::Index(index)]);
        }
        self.put(draft);
    }

    /// One of the last positions; or some of them, where rows can be shared.
    pub(super) fn column(&mut self) -> IndexItem {
        let column = -(self.dice.below(if self.wishes.alike { 4 } else { 2 }) as i64) - 1;
        if self.wishes.alike && self.dice.chance(0.25) {
            IndexItem::Slice { start: Some(column), stop: None, step: 1 }
        } else {
            IndexItem::Integer(column)
        }
    }

    pub(super) fn readable(&self) -> Vec<Known> {
        self.known
            .iter()
            .filter(|known| known.steps.is_none() || known.steps == self.steps)
            .cloned()
            .collect()
    }

    pub(super) fn some_value(&mut self, wanted: impl Fn(&Known) -> bool) -> Option<Known> {
        let fitting: Vec<Known> = self.readable().into_iter().filter(wanted).collect();
        if fitting.is_empty() {
            return None;
        }
        // What is new is read more often.
        let at = self.dice.below(fitting.len() as u64).max(self.dice.below(fitting.len() as u64));
        Some(fitting[at as usize].clone())
    }

    pub(super) fn setter(&mut self) {
        let place = self.place();
        let address = self.address(place);
        let mut draft = self.draft();
        let danger = self.danger;
        if self.index.spec().hook_points[place].dtype == DType::I64 {
            self.ids(&address, &mut draft);
        } else {
            self.edit(&address, &mut draft);
        }
        let written = draft.clone();
        let taken = self.put(draft);
        // Which of several that fail is reported is a matter of the plan.
        if taken && self.danger == danger && self.wishes.alike && self.dice.chance(0.5) {
            self.again(&written, address.invoke);
        }
        if taken && self.dice.chance(0.3) {
            // A chain of versions: what a getter sees after a setter, set again.
            let mut draft = self.draft();
            let seen = draft.add(NodeKind::Get(address.clone()));
            if self.index.spec().hook_points[place].dtype != DType::I64 {
                let less = draft.operation(OperationKind::Mul, vec![Argument::Value(seen), number(0.75)]);
                draft.add(NodeKind::Set { address: address.clone(), value: less });
                draft.add(NodeKind::Get(address));
            }
            self.put(draft);
        }
    }

    /// The same edit of other invokes: where their prompts are equal, they go on as one.
    fn again(&mut self, written: &Draft, invoke: usize) {
        for other in 0..self.current().invokes.len() {
            if other == invoke || self.dice.chance(0.4) {
                continue;
            }
            let mut draft = self.draft();
            let base = draft.base;
            let moved = |id: NodeId| match id.index().checked_sub(written.base) {
                Some(place) => NodeId((base + place) as u32),
                None => id,
            };
            for (kind, _) in &written.kinds {
                let mut kind = kind.clone();
                kind.renumber(&moved);
                if let NodeKind::Get(address) | NodeKind::Set { address, .. } = &mut kind
                    && address.invoke == invoke
                {
                    address.invoke = other;
                }
                draft.add(kind);
            }
            self.put(draft);
        }
    }

    /// A setter of a hook point of numbers.
    pub(super) fn edit(&mut self, address: &HookAddress, draft: &mut Draft) {
        let hook = address.hook.clone();
        let same = |known: &Known| known.dtype.is_float();
        let way = if self.wishes.alike && self.dice.chance(0.6) {
            self.dice.range(2, 4)
        } else {
            self.dice.below(6)
        };
        if way == 0
            && let Some(known) = self.some_value(same)
        {
            // Whatever there is, if it has the shape.
            draft.add(NodeKind::Set { address: address.clone(), value: known.value });
            return;
        }
        let seen = draft.add(NodeKind::Get(address.clone()));
        let value = match way {
            1 => draft.operation(OperationKind::Mul, vec![Argument::Value(seen), number(1.25)]),
            2 => {
                let index = vec![IndexItem::Slice { start: None, stop: None, step: 1 }, self.column()];
                let values = number(self.dice.range(0, 20) as f64 / 10.0 - 1.0);
                draft.operation(
                    OperationKind::IndexPut,
                    vec![
                        Argument::Value(seen),
                        Argument::Index(index),
                        values,
                        Argument::Scalar(Scalar::Bool(self.dice.chance(0.5))),
                    ],
                )
            }
            3 if !self.known.is_empty() => {
                // The same hook point's value elsewhere: patching.
                let invoke = self.dice.below(self.current().invokes.len() as u64) as usize;
                let other = draft.add(NodeKind::Get(HookAddress { invoke, ..address.clone() }));
                let index =
                    vec![IndexItem::Slice { start: None, stop: Some(1), step: 1 }, IndexItem::Integer(-1)];
                let row = draft.operation(
                    OperationKind::GetItem,
                    vec![Argument::Value(other), Argument::Index(index.clone())],
                );
                draft.operation(
                    OperationKind::IndexPut,
                    vec![Argument::Value(seen), Argument::Index(index), Argument::Value(row)],
                )
            }
            _ => match self.some_value(same) {
                Some(known) => {
                    let bent = self.scalar_of(known.value, draft);
                    draft.operation(OperationKind::Add, vec![Argument::Value(seen), Argument::Value(bent)])
                }
                None => draft.operation(OperationKind::Sub, vec![Argument::Value(seen), number(0.3)]),
            },
        };
        let _ = hook;
        draft.add(NodeKind::Set { address: address.clone(), value });
    }

    /// One number, finite and not large, that depends on all of a value.
    pub(super) fn scalar_of(&mut self, value: Value, draft: &mut Draft) -> Value {
        let bent = draft.operation(OperationKind::Tanh, vec![Argument::Value(value)]);
        let mean = draft.operation(OperationKind::Mean, vec![Argument::Value(bent)]);
        draft.operation(OperationKind::Mul, vec![Argument::Value(mean), number(2.0)])
    }

    /// A setter of token ids or positions.
    pub(super) fn ids(&mut self, address: &HookAddress, draft: &mut Draft) {
        let spec = self.index.spec();
        let positions = spec.sizes.positions.unwrap_or(spec.sizes.vocabulary);
        let below = positions.min(spec.sizes.vocabulary);
        let seen = draft.add(NodeKind::Get(address.clone()));
        let value = match self.dice.below(3) {
            0 => {
                draft.operation(OperationKind::Flip, vec![Argument::Value(seen), Argument::Integers(vec![1])])
            }
            1 => {
                let more = draft.operation(OperationKind::Add, vec![Argument::Value(seen), whole(1)]);
                draft.operation(OperationKind::Remainder, vec![Argument::Value(more), whole(below as i64)])
            }
            _ => {
                let failing = self.wishes.may_fail && !self.danger && self.dice.chance(0.5);
                self.danger |= failing;
                let id = if failing { 1_000_000 } else { self.dice.below(below) as i64 };
                draft.operation(
                    OperationKind::IndexPut,
                    vec![
                        Argument::Value(seen),
                        Argument::Index(vec![
                            IndexItem::Slice { start: None, stop: None, step: 1 },
                            IndexItem::Integer(-1),
                        ]),
                        whole(id),
                    ],
                )
            }
        };
        draft.add(NodeKind::Set { address: address.clone(), value });
    }

    /// Two invokes that need each other at different depths: each waits for the other once.
    pub(super) fn each_other(&mut self) {
        let count = self.current().invokes.len() as u64;
        let first = self.dice.below(count) as usize;
        let second = (first + 1 + self.dice.below(count - 1) as usize) % count as usize;
        let mut places: Vec<usize> = (0..4).map(|_| self.place()).collect();
        places.retain(|&place| self.index.spec().hook_points[place].dtype != DType::I64);
        places.sort_unstable();
        let [a, b, c, d] = places[..] else { return };
        let at = |invoke: usize, place: usize| HookAddress {
            invoke,
            hook: self.index.spec().hook_points[place].path(),
            step: None,
        };
        // The first's late value into the second's early one, and the second's late value into the first's latest.
        let (one, early, late, latest) = (at(first, c), at(second, a), at(second, b), at(first, d));
        let mut draft = self.draft();
        let from = draft.add(NodeKind::Get(one));
        let bent = self.scalar_of(from, &mut draft);
        let seen = draft.add(NodeKind::Get(early.clone()));
        let sum = draft.operation(OperationKind::Add, vec![Argument::Value(seen), Argument::Value(bent)]);
        draft.add(NodeKind::Set { address: early, value: sum });
        let from = draft.add(NodeKind::Get(late));
        let bent = self.scalar_of(from, &mut draft);
        let seen = draft.add(NodeKind::Get(latest.clone()));
        let sum = draft.operation(OperationKind::Sub, vec![Argument::Value(seen), Argument::Value(bent)]);
        draft.add(NodeKind::Set { address: latest, value: sum });
        self.put(draft);
    }

    pub(super) fn apply(&mut self) {
        let modules = &self.index.spec().modules;
        let applicable: Vec<usize> = (0..modules.len())
            .filter(|&module| modules[module].applied != pellucid_graph::spec::Application::None)
            .collect();
        let attending: Vec<usize> = applicable
            .iter()
            .copied()
            .filter(|&module| modules[module].applied == pellucid_graph::spec::Application::Sequence)
            .collect();
        let attends = !attending.is_empty() && self.dice.chance(if self.wishes.smooth { 0.6 } else { 0.2 });
        let module = modules[*self.dice.of(if attends { &attending } else { &applicable })].path.clone();
        let input = self.index.hook(&format!("{module}.input")).map(|place| {
            self.index.spec().hook_points[place].shape.iter().filter_map(|axis| match axis {
                pellucid_graph::spec::Axis::Size(size) => Some(*size),
                _ => None,
            })
        });
        let takes: Vec<u64> = input.map(Iterator::collect).unwrap_or_default();
        let fitting = |known: &Known| {
            known.shape.len() >= takes.len() + 2
                && known.shape[known.shape.len() - takes.len()..]
                    .iter()
                    .zip(&takes)
                    .all(|(size, wanted)| size.is_none_or(|size| size == *wanted))
                && known.dtype.is_float()
        };
        let known = self.some_value(fitting);
        let mut draft = self.draft();
        let value = match known {
            Some(known) => known.value,
            None => {
                // The input of some module that takes the same: the stream of a random place.
                let same: Vec<usize> = (0..self.index.spec().hook_points.len())
                    .filter(|&place| {
                        let sizes: Vec<u64> = self.index.spec().hook_points[place]
                            .shape
                            .iter()
                            .filter_map(|axis| match axis {
                                pellucid_graph::spec::Axis::Size(size) => Some(*size),
                                _ => None,
                            })
                            .collect();
                        sizes == takes
                    })
                    .collect();
                if same.is_empty() {
                    return;
                }
                let place = *self.dice.of(&same);
                let address = self.address(place);
                draft.add(NodeKind::Get(address))
            }
        };
        draft.add(NodeKind::Apply { module, input: value });
        self.put(draft);
    }

    pub(super) fn input_value(&mut self) {
        let invoke = self.dice.below(self.current().invokes.len() as u64) as usize;
        let kind = match self.dice.below(5) {
            0 => NodeKind::Tokens(invoke),
            1 => NodeKind::Mask(invoke),
            2 => NodeKind::Lengths(invoke),
            3 => {
                let size = self.dice.range(1, 5);
                let elements = (0..size).map(|_| Scalar::Float(self.dice.range(0, 100) as f64 / 50.0 - 1.0));
                NodeKind::Literal { dtype: DType::F32, shape: vec![size], elements: elements.collect() }
            }
            _ => {
                let key = format!("c{}", self.program.constants.len());
                let hidden = self.index.spec().sizes.hidden;
                let bytes = (0..hidden)
                    .flat_map(|_| (self.dice.range(0, 100) as f32 / 50.0 - 1.0).to_le_bytes())
                    .collect();
                self.program.constants.insert(
                    key.clone(),
                    pellucid_graph::program::Constant { dtype: DType::F32, shape: vec![hidden], bytes },
                );
                NodeKind::Constant(key)
            }
        };
        let mut draft = self.draft();
        draft.add(kind);
        self.put(draft);
    }
}
