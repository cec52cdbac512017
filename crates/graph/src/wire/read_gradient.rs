//! Reads gradients: of a value, of a hook point, of all hook points that match a pattern.

use super::json::Item;
use super::outline::Reference;
use super::read_region::is_pattern;
use super::reader::{Fields, Reader, Segment};
use crate::fault::quote;
use crate::limits;
use crate::program::{GradientOf, HookAddress, NodeId, NodeKind};
use crate::surface::{GradAll, SetGradAll, WildcardAddress};

/// What a gradient is the gradient of.
enum Of {
    One(GradientOf),
    Many(WildcardAddress),
}

impl<'t> Reader<'t> {
    pub(super) fn grad(&mut self, fields: Fields<'t>) -> Option<NodeKind> {
        let backward = self.required(fields, "backward", Reader::backward);
        let of = self.gradient_of(fields);
        let backward = backward?;
        Some(match of? {
            Of::One(of) => NodeKind::Grad { backward, of },
            Of::Many(address) => NodeKind::GradAll(GradAll { backward, address }),
        })
    }

    pub(super) fn set_grad(&mut self, fields: Fields<'t>) -> Option<NodeKind> {
        let backward = self.required(fields, "backward", Reader::backward);
        let of = self.gradient_of(fields);
        let value = self.required(fields, "value", Reader::value);
        let each = self.optional(fields, "each", Reader::boolean);
        let (backward, of, value) = (backward?, of?, value?);
        match (of, each?) {
            (Of::One(of), None) => Some(NodeKind::SetGrad { backward, of, value }),
            (Of::One(_), Some(_)) => self.at(Segment::Key("each"), |reader| {
                reader.fault("`each` is said with a pattern: this gradient is only one")
            }),
            (Of::Many(address), each) => Some(NodeKind::SetGradAll(SetGradAll {
                backward,
                address,
                value,
                each: each.unwrap_or(false),
            })),
        }
    }

    fn gradient_of(&mut self, fields: Fields<'t>) -> Option<Of> {
        let hint = "a gradient is that of a value, `of`, or of a hook point, `hook`: write one of them";
        let except = self.optional(fields, "except", Reader::patterns);
        match (fields.optional("of"), fields.optional("hook"), fields.optional("invoke")) {
            (Some(_), None, None) if fields.optional("except").is_some() => {
                self.fault_with_hint("a value is no pattern: `except` goes with `hook`", hint)
            }
            (Some(_), None, None) => {
                self.required(fields, "of", Reader::value).map(GradientOf::Value).map(Of::One)
            }
            (Some(_), None, Some(_)) => {
                self.fault_with_hint("a value belongs to no invoke: `invoke` goes with `hook`", hint)
            }
            (None, Some(_), _) => {
                let invoke = self.invoke_of(fields);
                let hook = self.required(fields, "hook", |reader, item| {
                    reader.text(item, "a hook point", limits::TEXT_BYTES).map(str::to_owned)
                });
                let (invoke, hook, step) = (invoke?, hook?, None);
                Some(match except? {
                    None if !is_pattern(&hook) => {
                        Of::One(GradientOf::Hook(HookAddress { invoke, hook, step }))
                    }
                    except => {
                        let except = except.unwrap_or_default();
                        Of::Many(WildcardAddress { invoke, pattern: hook, except, step })
                    }
                })
            }
            (None, None, _) => self.fault_with_hint("needs the field `of` or the field `hook`", hint),
            (Some(_), Some(_), _) => self.fault_with_hint("has both `of` and `hook`", hint),
        }
    }

    /// The name of an earlier `backward`.
    fn backward(&mut self, item: Item<'t>) -> Option<NodeId> {
        let name = self.text(item, "the name of a `backward`", limits::TEXT_BYTES)?;
        match self.outline.reference(name, self.node.unwrap_or(NodeId(0))) {
            Reference::NoValue(node, "backward") => Some(node),
            Reference::Value(_)
            | Reference::NoValue(..)
            | Reference::OutOfScope(_)
            | Reference::NotYetReduced => self.fault(format!("{} is not a `backward`", quote(name))),
            Reference::Itself | Reference::Later(_) => self.fault_with_hint(
                format!("{} does not stand before it", quote(name)),
                "write the `backward` before the gradients that it computes",
            ),
            Reference::Nothing => self.fault(format!("there is no `backward` {}", quote(name))),
        }
    }
}
