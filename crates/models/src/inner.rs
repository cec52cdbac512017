//! The one table of inner hook points: their names, shapes and meanings on every family.
//!
//! Beside its `input` and `output`, a module of one of these kinds has the hook points below. Documents are generated
//! from this table, the decoder names its hook stages by it, and a test holds the shapes to the golden values.

/// What kind of module an inner hook point is under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Under {
    /// An attention module.
    Attention,
    /// An MLP.
    Mlp,
    /// A norm.
    Norm,
}

/// One axis of an inner hook point, before a configuration gives it a size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InnerAxis {
    /// The invoke's prompts.
    Prompts,
    /// The tokens of this step.
    Length,
    /// All tokens attended to so far.
    Context,
    /// Query heads.
    Heads,
    /// Key and value heads.
    KeyValueHeads,
    /// Width of a head.
    HeadSize,
    /// Width inside the MLP.
    Inner,
    /// 1. (A norm over heads has its heads before it, where its input has them.)
    One,
}

/// The inner hook points.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Inner {
    /// `query_pre`.
    QueryBeforeRotation,
    /// `key_pre`.
    KeyBeforeRotation,
    /// `value`.
    Value,
    /// `query`.
    Query,
    /// `key`.
    Key,
    /// `scores`.
    Scores,
    /// `pattern`.
    Pattern,
    /// `mixed`.
    Mixed,
    /// `pre`.
    BeforeActivation,
    /// `up`.
    Up,
    /// `post`.
    BeforeDownProjection,
    /// `scale`.
    Scale,
}

/// One line of the table.
#[derive(Clone, Copy, Debug)]
pub struct InnerHookPoint {
    /// Which.
    pub point: Inner,
    /// Its name after the module's path.
    pub name: &'static str,
    /// The kind of module it is under.
    pub under: Under,
    /// Its shape.
    pub shape: &'static [InnerAxis],
    /// What it is.
    pub meaning: &'static str,
    /// Where it is not on every family: where it is.
    pub only: Option<&'static str>,
}

/// The table, under each kind of module in the order in which a forward pass reaches them.
pub const INNER_HOOK_POINTS: &[InnerHookPoint] = {
    use InnerAxis::{Context, HeadSize, Heads, Inner as Width, KeyValueHeads, Length, One, Prompts};
    use Under::{Attention, Mlp, Norm};
    &[
        InnerHookPoint {
            point: Inner::QueryBeforeRotation,
            name: "query_pre",
            under: Attention,
            shape: &[Prompts, Length, Heads, HeadSize],
            meaning: "the query before rotation, after its norm where it has one",
            only: Some("families with rotary positions"),
        },
        InnerHookPoint {
            point: Inner::KeyBeforeRotation,
            name: "key_pre",
            under: Attention,
            shape: &[Prompts, Length, KeyValueHeads, HeadSize],
            meaning: "the key before rotation, after its norm where it has one",
            only: Some("families with rotary positions"),
        },
        InnerHookPoint {
            point: Inner::Value,
            name: "value",
            under: Attention,
            shape: &[Prompts, Length, KeyValueHeads, HeadSize],
            meaning: "the value; its heads are not repeated",
            only: None,
        },
        InnerHookPoint {
            point: Inner::Query,
            name: "query",
            under: Attention,
            shape: &[Prompts, Length, Heads, HeadSize],
            meaning: "the query as it enters the dot product: after norm and rotation",
            only: None,
        },
        InnerHookPoint {
            point: Inner::Key,
            name: "key",
            under: Attention,
            shape: &[Prompts, Length, KeyValueHeads, HeadSize],
            meaning: "the key as it enters the dot product: after norm and rotation; its heads are not repeated",
            only: None,
        },
        InnerHookPoint {
            point: Inner::Scores,
            name: "scores",
            under: Attention,
            shape: &[Prompts, Heads, Length, Context],
            meaning: "what enters the softmax: scaled, soft-capped, masked with −∞",
            only: None,
        },
        InnerHookPoint {
            point: Inner::Pattern,
            name: "pattern",
            under: Attention,
            shape: &[Prompts, Heads, Length, Context],
            meaning: "the softmax's result",
            only: None,
        },
        InnerHookPoint {
            point: Inner::Mixed,
            name: "mixed",
            under: Attention,
            shape: &[Prompts, Length, Heads, HeadSize],
            meaning: "pattern times value, before the output projection",
            only: None,
        },
        InnerHookPoint {
            point: Inner::BeforeActivation,
            name: "pre",
            under: Mlp,
            shape: &[Prompts, Length, Width],
            meaning: "what enters the activation function; in a gated MLP, the gate projection's result",
            only: None,
        },
        InnerHookPoint {
            point: Inner::Up,
            name: "up",
            under: Mlp,
            shape: &[Prompts, Length, Width],
            meaning: "the linear branch of a gated MLP",
            only: Some("families with gated MLPs"),
        },
        InnerHookPoint {
            point: Inner::BeforeDownProjection,
            name: "post",
            under: Mlp,
            shape: &[Prompts, Length, Width],
            meaning: "what enters the down projection",
            only: None,
        },
        InnerHookPoint {
            point: Inner::Scale,
            name: "scale",
            under: Norm,
            shape: &[Prompts, Length, One],
            meaning: "the divisor: √(variance + ε), or √(mean square + ε)",
            only: None,
        },
    ]
};

impl Inner {
    /// Its name after the module's path.
    #[must_use]
    pub fn name(self) -> &'static str {
        INNER_HOOK_POINTS.iter().find(|line| line.point == self).map_or("", |line| line.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_one_line_for_each_inner_hook_point() {
        let mut names: Vec<_> = INNER_HOOK_POINTS.iter().map(|line| (line.point.name(), line.name)).collect();
        assert!(names.iter().all(|(by_point, name)| by_point == name));
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), INNER_HOOK_POINTS.len());
        assert_eq!(Inner::Scale as usize + 1, INNER_HOOK_POINTS.len());
    }
}
