//! Sweeps and loops: bodies that are written once.

use std::collections::HashMap;
use std::panic::Location;
use std::sync::Arc;

use pellucid_graph::fault::Fault;
use pellucid_graph::{Loop, NodeId, NodeKind, Parameter, Prompts, Reduce as Reduced, Region, Scalar, Sweep};

use crate::axis::{Axis, AxisValues, IntoAxes};
use crate::builder::{Builder, Scope, resolve, source};
use crate::invoke::Invoke;
use crate::prompts::IntoPrompts;
use crate::reduce::Reduce;
use crate::session::Session;
use crate::trace::Trace;
use crate::value::{Value, Writer};

/// What a body gives: no value, one, an array, a vector, or a pair or triple of values.
pub trait Values: Sized {
    /// The values in order.
    fn values(&self) -> Vec<Value>;
    /// The same form with other values in place of these.
    #[must_use]
    fn replaced(&self, values: Vec<Value>) -> Self;
}

impl Values for () {
    fn values(&self) -> Vec<Value> {
        Vec::new()
    }

    fn replaced(&self, _values: Vec<Value>) {}
}

impl Values for Value {
    fn values(&self) -> Vec<Value> {
        vec![self.clone()]
    }

    fn replaced(&self, values: Vec<Value>) -> Value {
        values.into_iter().next().unwrap_or_else(|| self.clone())
    }
}

impl Values for Vec<Value> {
    fn values(&self) -> Vec<Value> {
        self.clone()
    }

    fn replaced(&self, values: Vec<Value>) -> Vec<Value> {
        values
    }
}

impl<const N: usize> Values for [Value; N] {
    fn values(&self) -> Vec<Value> {
        self.to_vec()
    }

    fn replaced(&self, values: Vec<Value>) -> [Value; N] {
        values.try_into().unwrap_or_else(|_| self.clone())
    }
}

macro_rules! values_of_tuple {
    ($($type:ident $place:tt),*) => {
        impl<$($type: Values),*> Values for ($($type,)*) {
            fn values(&self) -> Vec<Value> {
                let mut all = Vec::new();
                $(all.extend(self.$place.values());)*
                all
            }

            fn replaced(&self, values: Vec<Value>) -> Self {
                let mut rest = values.into_iter();
                ($({
                    let count = self.$place.values().len();
                    self.$place.replaced(rest.by_ref().take(count).collect())
                },)*)
            }
        }
    };
}

values_of_tuple!(A 0, B 1);
values_of_tuple!(A 0, B 1, C 2);
values_of_tuple!(A 0, B 1, C 2, D 3);

/// One cell of a sweep, or one iteration of a loop, while its body is written.
#[derive(Clone, Debug)]
pub struct Cell {
    builder: Arc<Builder>,
    scope: Scope,
    /// The body around the sweep or loop.
    around: Scope,
    parameters: HashMap<String, (NodeId, bool)>,
    last: String,
}

impl Cell {
    #[track_caller]
    pub(crate) fn writer(&self) -> Writer<'_> {
        Writer { builder: &self.builder, scope: self.scope, location: Location::caller() }
    }

    /// A parameter's number, 0-dimensional, or its row of a value. In the paths of hook points and modules a parameter of
    /// whole numbers is written `{name}`.
    #[track_caller]
    pub fn value(&self, name: &str) -> Value {
        match self.parameters.get(name) {
            Some(&(id, _)) => Value::new(self.builder.clone(), id.into(), self.scope),
            None => {
                let fault = Fault::new(format!("there is no parameter `{name}`")).with_hint(self.known());
                self.builder.fault(Fault { source: Some(source(Location::caller())), ..fault });
                self.writer().node(
                    "",
                    NodeKind::Literal {
                        dtype: pellucid_graph::DType::I64,
                        shape: vec![],
                        elements: vec![Scalar::Int(0)],
                    },
                )
            }
        }
    }

    /// The number of the iteration, 0-dimensional, of a loop that goes so many times; of others, the last parameter.
    #[track_caller]
    pub fn index(&self) -> Value {
        self.value(&self.last)
    }

    /// Adds an input that every cell has for itself: a prompt, or several, the same in all cells. For sweeps and loops in
    /// traces.
    #[track_caller]
    pub fn invoke(&self, prompts: impl IntoPrompts) -> Invoke {
        self.add(prompts.into_prompts(), Location::caller())
    }

    /// Adds an input of token ids that every cell has for itself.
    #[track_caller]
    pub fn invoke_tokens<T: AsRef<[u32]>>(&self, prompts: impl IntoIterator<Item = T>) -> Invoke {
        let prompts = Prompts::Tokens(prompts.into_iter().map(|tokens| tokens.as_ref().to_vec()).collect());
        self.add(prompts, Location::caller())
    }

    /// Adds an input with the prompts of a parameter.
    #[track_caller]
    pub fn invoke_of(&self, parameter: &str) -> Invoke {
        let location = Location::caller();
        let prompts = self.prompts_of(parameter, location);
        self.add(prompts, location)
    }

    /// The prompts of a parameter, for an invoke of a trace that a cell of a session has:
    /// `trace.invoke(cell.prompts("pair"))`.
    #[track_caller]
    pub fn prompts(&self, parameter: &str) -> Prompts {
        self.prompts_of(parameter, Location::caller())
    }

    fn prompts_of(&self, parameter: &str, location: &'static Location<'static>) -> Prompts {
        match self.parameters.get(parameter) {
            Some(&(id, true)) => Prompts::Axis(id),
            Some(_) => self.refuse(format!("`{parameter}` is no parameter of prompts"), location),
            None => self.refuse(format!("there is no parameter `{parameter}`"), location),
        }
    }

    fn refuse(&self, message: String, location: &'static Location<'static>) -> Prompts {
        let fault = Fault::new(message).with_hint(self.known());
        self.builder.fault(Fault { source: Some(source(location)), ..fault });
        Prompts::default()
    }

    fn known(&self) -> String {
        let mut names: Vec<&str> = self.parameters.keys().map(String::as_str).collect();
        names.sort_unstable();
        format!("the parameters are {}", names.join(", "))
    }

    fn add(&self, prompts: Prompts, location: &'static Location<'static>) -> Invoke {
        if self.scope.trace.is_none() {
            let fault = Fault::new("a sweep or loop between traces has no invokes of its own")
                .with_hint("open a trace in it: `session.trace()`");
            self.builder.fault(Fault { source: Some(source(location)), ..fault });
        }
        let index = match self.scope.owner {
            Some(owner) => self.builder.add_invoke(owner, prompts),
            None => 0,
        };
        Invoke::new(self.builder.clone(), self.scope, index)
    }

    /// One value made of a value of every cell, in the cells' order, known after the sweep; no more than the running
    /// result is held. Given back by the sweep's closure, it comes out of the sweep as it is.
    ///
    /// ```
    /// use pellucid::{Axis, Model, Reduce, s};
    ///
    /// # fn main() -> pellucid::Result<()> {
    /// let model = Model::bundled()?;
    /// let session = model.session();
    /// let prompts = ["The capital of France is", "The capital of Japan is"];
    /// let mean = session.sweep(Axis::new("prompt", prompts), |cell| {
    ///     let last = session.trace().invoke(cell.prompts("prompt")).layer(2).output().index(s![0, -1]);
    ///     cell.reduce(&last, Reduce::mean())
    /// });
    /// mean.save("mean"); // [hidden]
    /// assert_eq!(session.run()?["mean"].shape(), [model.hidden()]);
    /// # Ok(())
    /// # }
    /// ```
    #[track_caller]
    pub fn reduce(&self, value: &Value, how: Reduce) -> Value {
        let mut writer = self.writer();
        let value = writer.read(value);
        let reduced = writer.node("", NodeKind::Reduce(Reduced { value, ..how.0 }));
        Value::new(self.builder.clone(), reduced.reference(), self.around)
    }

    /// The `k` largest of a value over all cells, along a new last dimension, and the cells that they come from:
    /// `[…, k]` and `[…, k, axes]`.
    #[track_caller]
    pub fn topk(&self, value: &Value, k: u64) -> (Value, Value) {
        let values = self.reduce(value, Reduce::topk(k));
        let origins = values.output(1);
        (values, origins)
    }
}

/// Where a sweep or loop is written.
struct Place<'a> {
    builder: &'a Arc<Builder>,
    scope: Scope,
    location: &'static Location<'static>,
}

impl Place<'_> {
    /// Begins a sweep or loop.
    fn begin(&self, axes: Vec<Axis>, kind: NodeKind) -> Cell {
        let mut writer = Writer { builder: self.builder, scope: self.scope, location: self.location };
        let mut over = Vec::with_capacity(axes.len());
        let mut rows = Vec::new();
        for axis in axes {
            let mut parameters = Vec::new();
            for (name, values) in axis.parameters {
                let parameter = match values {
                    AxisValues::Given(parameter) => parameter,
                    AxisValues::Rows(value) => {
                        let read = writer.read(&value);
                        rows.push(read);
                        Parameter::Rows(read)
                    }
                };
                parameters.push((name, parameter));
            }
            over.push(parameters);
        }
        let (id, around) = self.builder.node(writer.scope, String::new(), kind, self.location);
        let mut known = HashMap::new();
        let mut last = String::new();
        let mut ids = Vec::with_capacity(over.len());
        for axis in over {
            let mut axis_ids = Vec::with_capacity(axis.len());
            for (name, parameter) in axis {
                let has_prompts = !parameter.has_value();
                let kind = NodeKind::Parameter(parameter);
                let parameter = self.builder.part(id, name.clone(), kind, self.location);
                axis_ids.push(parameter);
                known.insert(name.clone(), (parameter, has_prompts));
                last = name;
            }
            ids.push(axis_ids);
        }
        self.builder.with_node(id, |kind| {
            if let NodeKind::Sweep(Sweep { region, .. }) | NodeKind::Loop(Loop { region, .. }) = kind {
                region.over = ids;
            }
        });
        let scope = Scope { trace: around.trace, owner: Some(id) };
        self.builder.open(scope, false);
        Cell { builder: self.builder.clone(), scope, around, parameters: known, last }
    }

    fn sweep<R: Values>(&self, axes: impl IntoAxes, body: impl FnOnce(&Cell) -> R) -> R {
        let sweep = Sweep { region: Region::default(), yields: Vec::new() };
        let cell = self.begin(axes.into_axes(), NodeKind::Sweep(sweep));
        let given = body(&cell);
        self.builder.close();
        let id = cell.scope.owner.unwrap_or(NodeId(0));
        let first = Value::new(self.builder.clone(), id.into(), cell.around);
        let mut yields = Vec::new();
        let mut outputs = given.values();
        for value in &mut outputs {
            let Some(read) = resolve(self.builder, value, self.location) else { continue };
            // What was made of all cells is one value already.
            if self.builder.reduced_in(read.node) != Some(id) {
                *value = first.output(yields.len() as u32);
                yields.push(read);
            }
        }
        self.builder.with_node(id, |kind| {
            if let NodeKind::Sweep(sweep) = kind {
                sweep.yields = yields;
            }
        });
        given.replaced(outputs)
    }

    fn repeat<C: Values>(
        &self,
        from: u64,
        axes: Vec<Axis>,
        carried: C,
        body: impl FnOnce(&Cell, C) -> C,
    ) -> C {
        let mut writer = Writer { builder: self.builder, scope: self.scope, location: self.location };
        let initial: Vec<_> = carried.values().iter().map(|value| writer.read(value)).collect();
        let place = Place { scope: writer.scope, ..*self };
        let cell = place.begin(axes, NodeKind::Loop(Loop { from, ..Loop::default() }));
        let id = cell.scope.owner.unwrap_or(NodeId(0));
        let carry: Vec<NodeId> = initial
            .iter()
            .enumerate()
            .map(|(number, &initial)| {
                let name = format!("carried_{}_{number}", id.0);
                self.builder.part(id, name, NodeKind::Carried(initial), self.location)
            })
            .collect();
        let values =
            carry.iter().map(|&carried| Value::new(self.builder.clone(), carried.into(), cell.scope));
        let given = body(&cell, carried.replaced(values.collect()));
        self.builder.close();
        let next: Vec<_> =
            given.values().iter().filter_map(|value| resolve(self.builder, value, self.location)).collect();
        if next.len() != carry.len() {
            let message =
                format!("the loop carries {} values, but its body gives {}", carry.len(), next.len());
            self.builder.fault(Fault { source: Some(source(self.location)), ..Fault::new(message) });
        }
        let count = carry.len();
        self.builder.with_node(id, |kind| {
            if let NodeKind::Loop(repeated) = kind {
                (repeated.carry, repeated.next) = (carry, next);
            }
        });
        let first = Value::new(self.builder.clone(), id.into(), cell.around);
        given.replaced((0..count as u32).map(|output| first.output(output)).collect())
    }

    /// So many iterations, with a parameter `i`; in a loop inside another, `i1`, `i2`, ….
    fn counted(&self, count: u64) -> Vec<Axis> {
        let name = match self.builder.open_regions() {
            0 => "i".to_owned(),
            inside => format!("i{inside}"),
        };
        let to = i64::try_from(count).unwrap_or(i64::MAX);
        vec![Axis::new(&name, 0..to)]
    }
}

macro_rules! regions {
    ($($owner:ident),*) => {
        $(
            /// Bodies that are written once.
            impl $owner {
                /// One body for every cell of a grid: `sweep([Axis::new("layer", 0..12), Axis::new("position", 0..8)], …)`.
                /// What the closure writes is the body; what it gives comes back stacked in the grid's shape, and what it
                /// has reduced ([`Cell::reduce`]) as it is. All cells ride in as few passes as memory allows, and each gives
                /// bit for bit what it would give alone.
                ///
                /// ```
                /// use pellucid::{Axis, Model, s};
                ///
                /// # fn main() -> pellucid::Result<()> {
                /// let model = Model::bundled()?;
                /// let paris = i64::from(model.token(" Paris")?);
                /// let trace = model.trace();
                /// let clean = trace.invoke("The Eiffel Tower is in the city of");
                /// // For every layer: the last position's stream of one prompt, put into another.
                /// let logit = trace.sweep(Axis::new("layer", 0..model.layers()), |cell| {
                ///     let patched = cell.invoke("The Colosseum is in the city of");
                ///     let stream = clean.layer("{layer}").output().index(s![.., -1]);
                ///     patched.layer("{layer}").edit_output(|output| output.index_put(s![.., -1], &stream));
                ///     patched.logits().index(s![0, -1, paris])
                /// });
                /// logit.save("logit"); // [layers]
                /// assert_eq!(trace.run()?["logit"].shape(), [model.layers()]);
                /// # Ok(())
                /// # }
                /// ```
                #[track_caller]
                pub fn sweep<R: Values>(&self, over: impl IntoAxes, body: impl FnOnce(&Cell) -> R) -> R {
                    self.region_place(Location::caller()).sweep(over, body)
                }

                /// One body so many times in sequence. The closure is given the carried values and says what they are
                /// next; what comes back is what they are in the end. What is saved inside comes back stacked over the
                /// iterations.
                ///
                /// ```
                /// use pellucid::Model;
                ///
                /// # fn main() -> pellucid::Result<()> {
                /// let session = Model::bundled()?.session();
                /// let start = session.literal([100.0], &[1]);
                /// let root = session.repeat(8, start, |_iteration, x| (&x + 2.0 / &x) * 0.5); // Newton's method
                /// root.save("root");
                /// assert!((session.run()?["root"].to_vec_f32()?[0] - 2f32.sqrt()).abs() < 0.1);
                /// # Ok(())
                /// # }
                /// ```
                #[track_caller]
                pub fn repeat<C: Values>(&self, count: u64, carried: C, body: impl FnOnce(&Cell, C) -> C) -> C {
                    let place = self.region_place(Location::caller());
                    place.repeat(0, place.counted(count), carried, body)
                }

                /// [`Self::repeat`], once for each cell of a grid: the last axis goes fastest.
                #[track_caller]
                pub fn repeat_over<C: Values>(
                    &self,
                    over: impl IntoAxes,
                    carried: C,
                    body: impl FnOnce(&Cell, C) -> C,
                ) -> C {
                    self.region_place(Location::caller()).repeat(0, over.into_axes(), carried, body)
                }

                /// [`Self::repeat_over`] without the first `from` iterations, which were run elsewhere: `carried` is what
                /// they came to. Those that run have the numbers and the noise that they have where all do; what is saved
                /// inside comes back stacked along one dimension. None may be left: then all stays as it is carried, and
                /// nothing is saved inside.
                #[track_caller]
                pub fn repeat_from<C: Values>(
                    &self,
                    from: u64,
                    over: impl IntoAxes,
                    carried: C,
                    body: impl FnOnce(&Cell, C) -> C,
                ) -> C {
                    self.region_place(Location::caller()).repeat(from, over.into_axes(), carried, body)
                }
            }
        )*
    };
}

regions!(Trace, Session);

impl Trace {
    fn region_place(&self, location: &'static Location<'static>) -> Place<'_> {
        let Writer { builder, scope, .. } = self.writer();
        Place { builder, scope, location }
    }
}

impl Session {
    /// The axis of a loop that goes so many times.
    pub(crate) fn iterations(&self, count: u64) -> Vec<Axis> {
        self.region_place(Location::caller()).counted(count)
    }

    fn region_place(&self, location: &'static Location<'static>) -> Place<'_> {
        Place { builder: &self.builder, scope: Scope::SESSION, location }
    }
}
