//! Reads sweeps, loops and what belongs to them, and hook points by pattern.

use std::collections::HashMap;

use super::form::is_name;
use super::json::{Item, Json};
use super::outline::{Outline, Owned, Reference};
use super::read_argument::is_object_with;
use super::reader::{Fields, Reader, Segment};
use crate::fault::quote;
use crate::limits;
use crate::program::{HookAddress, Invoke, Node, NodeId, NodeKind, Prompts, Value};
use crate::scalar::Scalar;
use crate::suggest::did_you_mean;
use crate::surface::{
    Branch, Cache, Cond, Edit, Loop, Parameter, Reduce, Reduction, Region, SetAll, Sweep, WildcardAddress,
};

/// The fields of a parameter's range.
pub(super) const RANGE_FIELDS: [&str; 1] = ["range"];
/// The fields of a parameter of texts.
pub(super) const TEXTS_FIELDS: [&str; 2] = ["texts", "special_tokens"];
/// The fields of a parameter of token ids.
pub(super) const TOKEN_LISTS_FIELDS: [&str; 1] = ["token_lists"];
/// The fields of a parameter of a value's rows.
pub(super) const ROWS_FIELDS: [&str; 1] = ["rows_of"];

/// The fields of a branch of a condition.
pub(super) const BRANCH_FIELDS: [&str; 2] = ["body", "yields"];

impl<'t> Reader<'t> {
    pub(super) fn sweep(&mut self, id: NodeId, fields: Fields<'t>, owned: Owned) -> Option<NodeKind> {
        let axes = self.required(fields, "over", Reader::axes);
        let region = self.region(id, fields, owned);
        let yields = self.optional(fields, "yields", |reader, item| {
            reader.list(item, "a list of nodes' names", limits::LIST_ARGUMENTS, Reader::inner_value)
        });
        axes?;
        Some(NodeKind::Sweep(Sweep { region: region?, yields: yields?.unwrap_or_default() }))
    }

    pub(super) fn repeat(&mut self, id: NodeId, fields: Fields<'t>, owned: Owned) -> Option<NodeKind> {
        let axes = match (fields.optional("over"), fields.optional("count")) {
            (Some(_), None) => self.required(fields, "over", Reader::axes),
            // The number itself is read as the parameter that it stands for.
            (None, Some(_)) => Some(()),
            (None, None) => self.fault("a loop needs the field `over`, or `count`"),
            (Some(_), Some(_)) => self.fault("a loop has one of `over` and `count`, not both"),
        };
        let carried: Vec<String> =
            owned.carry.iter().map(|id| self.outline.entries[id.index()].name.to_string()).collect();
        let carry = owned.carry.clone();
        let region = self.region(id, fields, owned);
        let is_object = self.optional(fields, "carry", |reader, item| match item.entries() {
            Some(_) => Some(()),
            None => reader.expected("an object of values by name", item),
        });
        let next = self.optional(fields, "next", |reader, item| reader.next(item, &carried));
        let next = match next? {
            Some(next) => next,
            None if carried.is_empty() => Vec::new(),
            None => return self.fault("a loop that carries values needs the field `next`"),
        };
        let from = self.optional(fields, "from", Reader::natural);
        axes?;
        is_object?;
        Some(NodeKind::Loop(Loop { region: region?, carry, next, from: from?.unwrap_or(0) }))
    }

    fn region(&mut self, id: NodeId, fields: Fields<'t>, owned: Owned) -> Option<Region> {
        let in_trace = self.outline.entries[id.index()].trace.is_some();
        let invokes = self.optional(fields, "invokes", |reader, item| match in_trace {
            true => reader.read_invokes(item),
            false => reader.fault_with_hint(
                "invokes of a sweep or loop that stands outside a trace",
                "give them to the traces in its body",
            ),
        });
        if in_trace {
            self.see_invokes(invokes.as_ref().map(|invokes| invokes.as_deref().unwrap_or_default()));
        }
        self.body_of(fields)?;
        Some(Region { over: owned.over, invokes: invokes?.unwrap_or_default(), body: owned.body })
    }

    /// That the axes are objects with parameters; the parameters are read on their own.
    fn axes(&mut self, item: Item<'t>) -> Option<()> {
        let axes = self.list(item, "a list of axes", limits::AXES, |reader, item| match item.entries() {
            Some([]) => reader.fault("an axis without a parameter"),
            Some(_) => Some(()),
            None => reader.expected("an object of parameters by name", item),
        });
        match axes?.is_empty() {
            true => self.fault("no axis"),
            false => Some(()),
        }
    }

    /// The value of the body that each carried value is next.
    fn next(&mut self, item: Item<'t>, carried: &[String]) -> Option<Vec<Value>> {
        let Some(entries) = item.entries() else {
            return self.expected("an object of values by name", item);
        };
        let mut values: HashMap<&str, Value> = HashMap::new();
        let mut complete = true;
        for (name, json) in entries {
            if self.faults.is_full() {
                return None;
            }
            if !carried.iter().any(|carried| carried == name) {
                let message = format!("the loop carries no {}", quote(name));
                let guess = did_you_mean(name, carried.iter().map(String::as_str));
                self.fault_with_guess::<()>(message, guess);
                complete = false;
                continue;
            }
            match self.inner_value(json.into()) {
                Some(value) if values.insert(name, value).is_some() => {
                    self.fault::<()>(format!("{} stands there twice", quote(name)));
                }
                Some(_) => {}
                None => complete = false,
            }
        }
        let missing = carried.iter().find(|name| !values.contains_key(name.as_str()));
        if let Some(missing) = missing.filter(|_| complete) {
            return self.fault(format!("it does not say what {} is next", quote(missing)));
        }
        complete.then(|| carried.iter().filter_map(|name| values.get(name.as_str()).copied()).collect())
    }

    pub(super) fn parameter_node(&mut self, id: NodeId, item: Item<'t>) -> Option<Node> {
        let name = self.local_name(id);
        let is_count = self.outline.entries[id.index()].is_count();
        let parameter = match is_count {
            true => self.natural(item).and_then(|count| match i64::try_from(count) {
                Ok(to) => Some(Parameter::Range { from: 0, to, step: 1 }),
                Err(_) => self.fault("a whole number above 2^63 - 1"),
            }),
            false => self.parameter_values(item),
        };
        Some(Node::new(name?, NodeKind::Parameter(parameter?)))
    }

    pub(super) fn carried_node(&mut self, id: NodeId, item: Item<'t>) -> Option<Node> {
        let name = self.local_name(id);
        let value = self.value(item);
        Some(Node::new(name?, NodeKind::Carried(value?)))
    }

    /// A condition; its branches are read on their own.
    pub(super) fn cond(&mut self, fields: Fields<'t>, owned: &Owned) -> Option<NodeKind> {
        let condition = self.required(fields, "condition", Reader::value);
        self.required(fields, "then", |_, _| Some(()))?;
        let [Some(then), otherwise] = owned.branches else { return None };
        Some(NodeKind::Cond(Cond { condition: condition?, then, otherwise }))
    }

    pub(super) fn branch_node(&mut self, id: NodeId, item: Item<'t>) -> Option<Node> {
        let body = self.outline.entries[id.index()].owned.body.clone();
        let name = self.outline.entries[id.index()].name.to_string();
        let fields = self.fields(item, "a branch", &BRANCH_FIELDS)?;
        self.body_of(fields)?;
        let yields = self.optional(fields, "yields", |reader, item| {
            reader.list(item, "a list of nodes' names", limits::LIST_ARGUMENTS, Reader::inner_value)
        });
        Some(Node::new(name, NodeKind::Branch(Branch { body, yields: yields?.unwrap_or_default() })))
    }

    /// A stack of edits.
    pub(super) fn edit(&mut self, fields: Fields<'t>, body: Vec<NodeId>) -> Option<NodeKind> {
        let invoke = self.optional(fields, "invoke", Reader::name);
        let edits = self.optional(fields, "edits", Reader::edits);
        let invoke = invoke.map(|name| name.unwrap_or("x").to_owned());
        let seen = invoke.clone().map(|name| vec![Invoke::new(name, Prompts::default())]);
        self.see_invokes(seen.as_deref());
        self.body_of(fields)?;
        Some(NodeKind::Edit(Edit { invoke: invoke?, edits: edits?.unwrap_or_default(), body }))
    }

    /// Names of edits that stand before this node.
    pub(super) fn edits(&mut self, item: Item<'t>) -> Option<Vec<NodeId>> {
        self.list(item, "a list of names of edits", limits::EDITS, |reader, item| {
            let name = reader.text(item, "the name of an edit", limits::TEXT_BYTES)?;
            let from = reader.node.unwrap_or(NodeId(0));
            if let Some(id) = reader.outline.edit(name, from) {
                return Some(id);
            }
            let guess = did_you_mean(name, reader.outline.edits_before(from));
            reader.fault_with_guess(format!("no edit {} stands before", quote(name)), guess)
        })
    }

    fn local_name(&mut self, id: NodeId) -> Option<String> {
        let name = self.outline.entries[id.index()].name.to_string();
        if is_name(&name) {
            return Some(name);
        }
        self.fault_with_hint(
            format!("{} cannot be a name", quote(&name)),
            "a name is made of the letters a to z and A to Z, digits and `_`",
        )
    }

    fn parameter_values(&mut self, item: Item<'t>) -> Option<Parameter> {
        if is_object_with(item, "range") {
            return self.range(item);
        }
        if is_object_with(item, "texts") {
            let fields = self.fields(item, "a parameter of texts", &TEXTS_FIELDS)?;
            let cells = self.required(fields, "texts", |reader, item| {
                reader.list(item, "a list of texts", limits::CELLS, |reader, item| match item.text() {
                    Some(_) => Some(vec![reader.prompt(item)?]),
                    None => reader.list(item, "a text, or a list of texts", limits::PROMPTS, Reader::prompt),
                })
            });
            let special_tokens = self.optional(fields, "special_tokens", Reader::boolean)?.unwrap_or(true);
            return Some(Parameter::Texts { cells: cells?, special_tokens });
        }
        if is_object_with(item, "token_lists") {
            let fields = self.fields(item, "a parameter of token ids", &TOKEN_LISTS_FIELDS)?;
            let cells = self.required(fields, "token_lists", |reader, item| {
                reader.list(item, "a list of lists of token ids", limits::CELLS, Reader::token_cell)
            });
            return cells.map(Parameter::Tokens);
        }
        if is_object_with(item, "rows_of") {
            let fields = self.fields(item, "a parameter of rows", &ROWS_FIELDS)?;
            return self.required(fields, "rows_of", Reader::value).map(Parameter::Rows);
        }
        if item.items().is_none() {
            return self.fault_with_hint(
                format!("expected a parameter's values, found {}", item.kind()),
                r#"write a list of numbers, {"range": [0, 12]}, {"texts": […]}, {"token_lists": […]} or {"rows_of": "value"}"#,
            );
        }
        let numbers = self.list(item, "a list of numbers", limits::CELLS, |reader, item| {
            match reader.scalar(item)? {
                Scalar::Bool(_) => reader.expected("a number", item),
                number => Some(number),
            }
        })?;
        let any_float = numbers.iter().any(|number| matches!(number, Scalar::Float(_)));
        let one_kind = numbers.into_iter().map(|number| match number {
            Scalar::Int(_) if any_float => Scalar::Float(number.as_f64()),
            number => number,
        });
        Some(Parameter::Numbers(one_kind.collect()))
    }

    fn range(&mut self, item: Item<'t>) -> Option<Parameter> {
        let fields = self.fields(item, "a range", &RANGE_FIELDS)?;
        self.required(fields, "range", |reader, item| {
            let numbers = reader.list(item, "a list of two or three whole numbers", 3, Reader::integer)?;
            match numbers.as_slice() {
                [_, _, 0] => reader.fault("a range's step cannot be 0"),
                &[from, to] => Some(Parameter::Range { from, to, step: 1 }),
                &[from, to, step] => Some(Parameter::Range { from, to, step }),
                _ => reader.fault("a range is `[from, to]` or `[from, to, step]`"),
            }
        })
    }

    /// One prompt, or several.
    fn token_cell(&mut self, item: Item<'t>) -> Option<Vec<Vec<u32>>> {
        match item {
            Item::Json(Json::List(items)) if !items.is_empty() => {
                self.list(item, "a list of lists of token ids", limits::PROMPTS, |reader, item| {
                    reader.token_ids(item, limits::PROMPT_TOKENS)
                })
            }
            _ => Some(vec![self.token_ids(item, limits::PROMPT_TOKENS)?]),
        }
    }

    /// The parameter of prompts that an invoke names.
    pub(super) fn prompt_parameter(&mut self, item: Item<'t>) -> Option<NodeId> {
        let name = self.text(item, "the name of a parameter", limits::TEXT_BYTES)?;
        let from = self.node.unwrap_or(NodeId(0));
        let owned = self.outline.entries.get(from.index()).map(|entry| &entry.owned);
        // An invoke of a sweep names that sweep's own parameters.
        let reference = match owned.is_some_and(|owned| !owned.over.is_empty()) {
            true => self.outline.reference_inside(name, from),
            false => self.outline.reference(name, from),
        };
        let is_parameter = |outline: &Outline<'_>, node: NodeId| {
            let item = outline.entries[node.index()].item;
            outline.is_parameter(node)
                && (is_object_with(item, "texts") || is_object_with(item, "token_lists"))
        };
        match reference {
            Reference::Value(node) if !is_parameter(&self.outline, node) => self.fault_with_hint(
                format!("{} is no parameter of prompts", quote(name)),
                r#"a parameter of prompts is given as {"texts": […]} or {"token_lists": […]}"#,
            ),
            reference => self.referred(name, reference),
        }
    }

    pub(super) fn reduce(&mut self, id: NodeId, fields: Fields<'t>) -> Option<NodeKind> {
        let reduction = self.required(fields, "reduction", |reader, item| {
            let text = reader.text(item, "a reduction", limits::TEXT_BYTES)?;
            let names = Reduction::ALL.map(Reduction::name);
            Reduction::ALL.into_iter().find(|reduction| reduction.name() == text).or_else(|| {
                let message = format!("there is no reduction {}", quote(text));
                reader.fault_with_hint(message, format!("reductions are {}", names.join(", ")))
            })
        });
        let value = self.required(fields, "value", Reader::value);
        let dim = self.optional(fields, "dim", |reader, item| match item.items() {
            Some(_) => reader.list(item, "a list of whole numbers", limits::DIMENSIONS, Reader::integer),
            None => Some(vec![reader.integer(item)?]),
        });
        let correction = self.optional(fields, "correction", Reader::number);
        let k = self.optional(fields, "k", |reader, item| match reader.natural(item)? {
            0 => reader.fault("expected a whole number of at least 1, found 0"),
            k => Some(k),
        });
        let largest = self.optional(fields, "largest", Reader::boolean);
        let in_sweep =
            self.outline.entries[id.index()].scope.is_some_and(|scope| self.outline.is_op(scope, "sweep"));
        if !in_sweep {
            return self.fault_with_hint("stands outside a sweep", "put it into the `body` of a `sweep`");
        }
        let (reduction, k) = (reduction?, k?);
        let k = match (reduction, k) {
            (Reduction::TopK, None) => return self.fault("`topk` needs the field `k`: how many"),
            (_, k) => k.unwrap_or(0),
        };
        Some(NodeKind::Reduce(Reduce {
            reduction,
            value: value?,
            dim: dim?.unwrap_or_default(),
            correction: correction?.unwrap_or(Scalar::Int(1)),
            k,
            largest: largest?.unwrap_or(true),
        }))
    }

    pub(super) fn get(&mut self, fields: Fields<'t>) -> Option<NodeKind> {
        Some(match self.address(fields)? {
            Address::One(address) => NodeKind::Get(address),
            Address::Many(address) => NodeKind::GetAll(address),
        })
    }

    pub(super) fn set(&mut self, fields: Fields<'t>) -> Option<NodeKind> {
        let address = self.address(fields);
        let value = self.required(fields, "value", Reader::value);
        let each = self.optional(fields, "each", Reader::boolean);
        match (address?, each?) {
            (Address::One(address), None) => Some(NodeKind::Set { address, value: value? }),
            (Address::One(_), Some(_)) => self.at(Segment::Key("each"), |reader| {
                reader.fault("`each` is said with a pattern: this hook point is only one")
            }),
            (Address::Many(address), each) => {
                Some(NodeKind::SetAll(SetAll { address, value: value?, each: each.unwrap_or(false) }))
            }
        }
    }

    pub(super) fn cache(&mut self, fields: Fields<'t>) -> Option<NodeKind> {
        let invoke = self.invoke_of(fields);
        let pattern = self.optional(fields, "pattern", |reader, item| {
            reader.text(item, "a pattern of hook points", limits::TEXT_BYTES).map(str::to_owned)
        });
        let except = self.optional(fields, "except", Reader::patterns);
        let step = self.optional(fields, "step", Reader::natural);
        Some(NodeKind::Cache(Cache {
            address: WildcardAddress {
                invoke: invoke?,
                pattern: pattern?.unwrap_or_else(|| "**".into()),
                except: except?.unwrap_or_default(),
                step: step?,
            },
        }))
    }

    fn address(&mut self, fields: Fields<'t>) -> Option<Address> {
        let invoke = self.invoke_of(fields);
        let hook = self.required(fields, "hook", |reader, item| {
            reader.text(item, "a hook point", limits::TEXT_BYTES).map(str::to_owned)
        });
        let step = self.optional(fields, "step", Reader::natural);
        let except = self.optional(fields, "except", Reader::patterns);
        let (invoke, hook, step) = (invoke?, hook?, step?);
        match except? {
            None if !is_pattern(&hook) => Some(Address::One(HookAddress { invoke, hook, step })),
            except => {
                let except = except.unwrap_or_default();
                Some(Address::Many(WildcardAddress { invoke, pattern: hook, except, step }))
            }
        }
    }

    pub(super) fn patterns(&mut self, item: Item<'t>) -> Option<Vec<String>> {
        self.list(item, "a list of hook points", limits::LIST_ARGUMENTS, |reader, item| {
            reader.text(item, "a hook point", limits::TEXT_BYTES).map(str::to_owned)
        })
    }
}

/// A hook point, or all that match a pattern.
enum Address {
    One(HookAddress),
    Many(WildcardAddress),
}

/// Whether a hook point's address stands for several.
pub(super) fn is_pattern(hook: &str) -> bool {
    hook.contains(['*', '['])
}
