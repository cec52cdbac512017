//! Conditions: two branches, of which one runs.

use std::panic::Location;
use std::sync::Arc;

use pellucid_graph::fault::Fault;
use pellucid_graph::{Branch, Cond, NodeId, NodeKind};

use crate::builder::{Builder, Scope, resolve, source};
use crate::region::Values;
use crate::session::Session;
use crate::steps::Steps;
use crate::trace::Trace;
use crate::value::{Value, Writer};

/// Where a condition is written.
struct Place<'a> {
    builder: &'a Arc<Builder>,
    scope: Scope,
    location: &'static Location<'static>,
}

impl Place<'_> {
    fn cond<R: Values>(
        &self,
        condition: &Value,
        then: impl FnOnce() -> R,
        otherwise: impl FnOnce() -> R,
    ) -> R {
        let mut writer = Writer { builder: self.builder, scope: self.scope, location: self.location };
        let condition = writer.read(condition);
        let unknown = Cond { condition, then: NodeId(0), otherwise: None };
        let (id, around) =
            self.builder.node(writer.scope, String::new(), NodeKind::Cond(unknown), self.location);
        let (first, given) = self.branch(id, around, "then", then);
        let (second, other) = self.branch(id, around, "else", otherwise);
        let count = given.values().len();
        if other.values().len() != count {
            let message = format!(
                "its branches give {count} and {} values; both must give as many",
                other.values().len()
            );
            self.builder.fault(Fault { source: Some(source(self.location)), ..Fault::new(message) });
        }
        self.builder.with_node(id, |kind| {
            *kind = NodeKind::Cond(Cond { condition, then: first, otherwise: Some(second) });
        });
        let value = Value::new(self.builder.clone(), id.into(), around);
        given.replaced((0..count as u32).map(|output| value.output(output)).collect())
    }

    fn branch<R: Values>(
        &self,
        owner: NodeId,
        around: Scope,
        name: &str,
        body: impl FnOnce() -> R,
    ) -> (NodeId, R) {
        let kind = NodeKind::Branch(Branch::default());
        let id = self.builder.part(owner, name.to_owned(), kind, self.location);
        self.builder.open(Scope { trace: around.trace, owner: Some(id) }, false);
        let given = body();
        self.builder.close();
        let values = given.values();
        let yields = values.iter().filter_map(|value| resolve(self.builder, value, self.location)).collect();
        self.builder.with_node(id, |kind| {
            if let NodeKind::Branch(branch) = kind {
                branch.yields = yields;
            }
        });
        (id, given)
    }
}

impl Trace {
    /// Two branches, of which one runs: `then` where the condition, a bool without dimensions, holds, `otherwise` where it
    /// does not. Each closure writes its branch when it is called here, and gives the values that come back from the one
    /// that ran: in both of the same number types and shapes. In the other nothing is set, and its saves are absent.
    ///
    /// ```
    /// use pellucid::{Model, s};
    ///
    /// # fn main() -> pellucid::Result<()> {
    /// let model = Model::bundled()?;
    /// let trace = model.trace();
    /// let prompt = trace.invoke("The capital of France is");
    /// let hidden = prompt.layer(1).output().index(s![.., -1]);
    /// let large = hidden.norm(-1).gt(1e6).any(..);
    /// let size = trace.cond(
    ///     &large,
    ///     || {
    ///         prompt.layer(1).edit_output(|output| output * 0.5);
    ///         hidden.norm(-1) * 0.5
    ///     },
    ///     || hidden.norm(-1),
    /// );
    /// size.save("size");
    /// prompt.logits().index(s![0, -1]).argmax(..).save("token");
    /// let token = trace.run()?["token"].to_vec_i64()?[0];
    /// assert_eq!(model.decode(&[token as u32])?, " Paris");
    /// # Ok(())
    /// # }
    /// ```
    #[track_caller]
    pub fn cond<R: Values>(
        &self,
        condition: &Value,
        then: impl FnOnce() -> R,
        otherwise: impl FnOnce() -> R,
    ) -> R {
        let Writer { builder, scope, location } = self.writer();
        Place { builder, scope, location }.cond(condition, then, otherwise)
    }
}

impl Steps {
    /// Two branches, of which one runs at each step: see [`Trace::cond`].
    #[track_caller]
    pub fn cond<R: Values>(
        &self,
        condition: &Value,
        then: impl FnOnce() -> R,
        otherwise: impl FnOnce() -> R,
    ) -> R {
        let Writer { builder, scope, location } = self.writer();
        Place { builder, scope, location }.cond(condition, then, otherwise)
    }
}

impl Session {
    /// Two branches between traces, of which one runs: traces that are opened in a closure run only where its branch does.
    /// See [`Trace::cond`].
    #[track_caller]
    pub fn cond<R: Values>(
        &self,
        condition: &Value,
        then: impl FnOnce() -> R,
        otherwise: impl FnOnce() -> R,
    ) -> R {
        Place { builder: &self.builder, scope: Scope::SESSION, location: Location::caller() }
            .cond(condition, then, otherwise)
    }
}
