//! The one decoder: from a configuration and a family's tree to a list of stages.
//!
//! Each step below is of a role ([`Role`]); a family that has no module of that role has no such step, or has it
//! without hook points. Where a module is, its `input` and `output` hook points stand around what it computes, so the
//! list and the specification cannot disagree.

use std::collections::HashMap;

use pellucid_graph::DType;
use pellucid_graph::spec::{Axis, HookPointSpec, ParameterSpec};

use crate::config::{DecoderConfig, Positions, Residual};
use crate::family::{Family, FusedOrder, Role};
use crate::inner::Inner;
use crate::spec::{Module, Places, linear, linear_layout, places};
use crate::stage::{
    Attention, HookLayout, Kernel, ModuleStages, Norm, NormKind, POSITIONS, Slot, SlotShape, Stage,
    StageList, TOKENS, WeightId, WeightSpec,
};

/// The list of stages of a configuration, and its hook points in the order in which the list reaches them.
pub(crate) fn stages(
    family: &Family,
    config: &DecoderConfig,
    modules: &[Module],
    parameters: &[ParameterSpec],
) -> (StageList, Vec<HookPointSpec>) {
    let mut builder = Builder {
        family,
        config,
        modules,
        places: places(modules),
        weights: parameters.iter().enumerate().map(|(index, weight)| (weight.name.as_str(), index)).collect(),
        hook_points: Vec::new(),
        list: StageList {
            slots: 2,
            shapes: vec![SlotShape::Id, SlotShape::Id],
            weights: parameters
                .iter()
                .map(|weight| WeightSpec {
                    name: weight.name.clone(),
                    shape: weight.shape.iter().map(|size| *size as usize).collect(),
                })
                .collect(),
            modules: vec![ModuleStages { range: 0..0, input: None, output: None }; modules.len()],
            attention_layers: config.layers,
            rotary: config.rotary.clone(),
            ..StageList::default()
        },
    };
    builder.model();
    (builder.list, builder.hook_points)
}

struct Builder<'a> {
    family: &'a Family,
    config: &'a DecoderConfig,
    modules: &'a [Module],
    places: Places,
    weights: HashMap<&'a str, usize>,
    hook_points: Vec<HookPointSpec>,
    list: StageList,
}

impl Builder<'_> {
    fn model(&mut self) {
        let logits = self.module(Role::Root, None, TOKENS, |b, tokens| {
            let hidden = b.module(Role::Model, None, tokens, Self::body);
            let logits = b.linear(Role::Unembed, None, hidden);
            match b.config.logit_cap {
                Some(cap) => b.same(Kernel::SoftCap(cap), logits),
                None => logits,
            }
        });
        self.list.logits = Some(logits);
    }

    /// From token ids to what the unembedding reads.
    fn body(&mut self, tokens: Slot) -> Slot {
        let config = self.config;
        let embedded = self.module(Role::Embed, None, tokens, |b, ids| {
            b.embed(Role::Embed, ids, 0, config.embedding_scale, config.embedding)
        });
        let positions = match config.positions {
            Positions::Learned { offset, .. } => Some(self.positions(offset)),
            Positions::Rotary => None,
        };
        let mut stream = self.linear_if(Role::ProjectIn, None, embedded);
        if let Some(positions) = positions {
            stream = self.add(stream, positions);
        }
        stream = self.identity(Role::EmbedDropout, None, stream);
        let first = self.list.stages.len();
        for layer in 0..config.layers {
            stream = self.block(layer, stream);
        }
        if let Some(index) = self.places.get(&(Role::Layers, None)) {
            self.list.modules[*index].range = first..self.list.stages.len();
        }
        self.list.token_wise_from = self.list.stages.len();
        stream = self.norm(Role::FinalNorm, None, stream);
        self.linear_if(Role::ProjectOut, None, stream)
    }

    fn positions(&mut self, offset: usize) -> Slot {
        let hidden = self.config.hidden;
        if offset == 0 {
            return self.module(Role::Positions, None, POSITIONS, |b, ids| {
                b.embed(Role::Positions, ids, 0, 1.0, hidden)
            });
        }
        // Where positions are counted from inside the module, transformers calls it with a mask, which is no value of
        // the model: there is no `input`.
        let start = self.list.stages.len();
        let rows = self.embed(Role::Positions, POSITIONS, offset as i64, 1.0, hidden);
        let Some(index) = self.places.get(&(Role::Positions, None)).copied() else { return rows };
        let output = self.hook(index, "output", rows, HookLayout::Tokens);
        self.list.modules[index] = ModuleStages {
            range: start..self.list.stages.len(),
            input: Some(POSITIONS),
            output: Some(output),
        };
        output
    }

    fn block(&mut self, layer: usize, stream: Slot) -> Slot {
        let layer = Some(layer);
        self.module(Role::Block, layer, stream, |b, stream| match b.config.residual {
            Residual::Sequential => {
                let branch = b.norm(Role::Norm1, layer, stream);
                let branch = b.attention_branch(layer, branch);
                let stream = b.add(branch, stream);
                let branch = b.norm(Role::Norm2, layer, stream);
                let branch = b.mlp_branch(layer, branch);
                b.add(branch, stream)
            }
            Residual::NormAfter => {
                let branch = b.attention_branch(layer, stream);
                let stream = b.add(branch, stream);
                let stream = b.norm(Role::Norm1, layer, stream);
                let branch = b.mlp_branch(layer, stream);
                let stream = b.add(branch, stream);
                b.norm(Role::Norm2, layer, stream)
            }
            Residual::Parallel => {
                let branch = b.norm(Role::Norm1, layer, stream);
                let attention = b.attention_branch(layer, branch);
                let branch = b.norm(Role::Norm2, layer, stream);
                let mlp = b.mlp_branch(layer, branch);
                let branches = b.add(mlp, attention);
                b.add(branches, stream)
            }
        })
    }

    fn attention_branch(&mut self, layer: Option<usize>, branch: Slot) -> Slot {
        let branch = self.module(Role::Attention, layer, branch, |b, x| b.attention(layer, x));
        let branch = self.identity(Role::AttentionDropout, layer, branch);
        self.norm(Role::PostAttentionNorm, layer, branch)
    }

    fn mlp_branch(&mut self, layer: Option<usize>, branch: Slot) -> Slot {
        let branch = self.module(Role::Mlp, layer, branch, |b, x| b.mlp(layer, x));
        let branch = self.identity(Role::MlpDropout, layer, branch);
        self.norm(Role::PostMlpNorm, layer, branch)
    }

    fn attention(&mut self, layer: Option<usize>, x: Slot) -> Slot {
        let config = self.config;
        let number = layer.unwrap_or_default();
        let own = config.attention[number];
        let (heads, key_value_heads, size) = (config.heads, config.key_value_heads, config.head_size);
        let by_head = |heads: usize| vec![(heads, size), (size, 1)];

        let fused = self.has(Role::QueryKeyValue, layer).then(|| self.linear(Role::QueryKeyValue, layer, x));
        let part = |b: &mut Self, role: Role, part: usize, heads: usize| match fused {
            None => {
                let projected = b.linear(role, layer, x);
                let projected = match config.query_scale {
                    Some(scale) if role == Role::Query => b.same(Kernel::Scale(scale), projected),
                    _ => projected,
                };
                b.view(projected, 0, by_head(heads))
            }
            Some(fused) => match b.family.fused {
                FusedOrder::ByProjection => b.view(fused, part * heads * size, by_head(heads)),
                FusedOrder::ByHead => b.view(fused, part * size, vec![(heads, 3 * size), (size, 1)]),
            },
        };
        let mut query = part(self, Role::Query, 0, heads);
        query = self.norm(Role::QueryNorm, layer, query);
        if own.rotary.is_some() {
            query = self.inner(Role::Attention, layer, Inner::QueryBeforeRotation, query);
        }
        let mut key = part(self, Role::Key, 1, key_value_heads);
        key = self.norm(Role::KeyNorm, layer, key);
        if own.rotary.is_some() {
            key = self.inner(Role::Attention, layer, Inner::KeyBeforeRotation, key);
        }
        let value = part(self, Role::Value, 2, key_value_heads);
        let value = self.inner(Role::Attention, layer, Inner::Value, value);
        if let Some(table) = own.rotary {
            let rotary = |b: &mut Self, x: Slot| {
                let shape = b.shape(x).clone();
                b.stage(Kernel::Rotary { table }, &[x, POSITIONS], shape)
            };
            query = rotary(self, query);
            key = rotary(self, key);
        }
        let query = self.inner(Role::Attention, layer, Inner::Query, query);
        let key = self.inner(Role::Attention, layer, Inner::Key, key);

        let attention = Attention {
            layer: number,
            heads,
            key_value_heads,
            head_size: size,
            scale: own.scale,
            soft_cap: config.score_cap,
            window: own.window,
        };
        let context = SlotShape::Context { heads };
        let scores =
            self.stage(Kernel::AttentionScores(attention.clone()), &[query, key, value], context.clone());
        let scores = self.inner(Role::Attention, layer, Inner::Scores, scores);
        let pattern = self.stage(Kernel::AttentionPattern(attention.clone()), &[scores], context);
        let pattern = self.inner(Role::Attention, layer, Inner::Pattern, pattern);
        let mixed = SlotShape::Inner(vec![heads, size]);
        let mixed = self.stage(Kernel::AttentionMixed(attention), &[query, pattern, value], mixed);
        let mixed = self.inner(Role::Attention, layer, Inner::Mixed, mixed);
        let mixed = self.view(mixed, 0, vec![(heads * size, 1)]);
        let output = self.linear(Role::AttentionOutput, layer, mixed);
        self.identity(Role::AttentionOutputDropout, layer, output)
    }

    fn mlp(&mut self, layer: Option<usize>, x: Slot) -> Slot {
        let gated = self.has(Role::MlpGate, layer);
        let before = self.linear(if gated { Role::MlpGate } else { Role::MlpIn }, layer, x);
        let before = self.inner(Role::Mlp, layer, Inner::BeforeActivation, before);
        let kind = self.config.activation.kind;
        let mut after =
            self.module(Role::MlpActivation, layer, before, |b, x| b.same(Kernel::Activation(kind), x));
        if gated {
            let up = self.linear(Role::MlpUp, layer, x);
            let up = self.inner(Role::Mlp, layer, Inner::Up, up);
            let shape = self.shape(up).clone();
            after = self.stage(Kernel::Multiply, &[after, up], shape);
        }
        let after = self.inner(Role::Mlp, layer, Inner::BeforeDownProjection, after);
        let output = self.linear(Role::MlpDown, layer, after);
        self.identity(Role::MlpInnerDropout, layer, output)
    }

    /// A norm; nothing where the family has none of this role.
    fn norm(&mut self, role: Role, layer: Option<usize>, x: Slot) -> Slot {
        if !self.has(role, layer) {
            return x;
        }
        let config = self.config.norm;
        self.module(role, layer, x, |b, x| {
            let weight = |name| if config.affine { b.weight(role, layer, name) } else { None };
            let norm = Norm {
                kind: config.kind,
                weight: weight("weight"),
                bias: if config.kind == NormKind::Layer { weight("bias") } else { None },
                epsilon: config.epsilon,
                weight_offset: config.weight_offset,
            };
            let shape = b.shape(x).clone();
            let mut divisors = match &shape {
                SlotShape::Inner(dimensions) => dimensions.clone(),
                _ => Vec::new(),
            };
            if let Some(last) = divisors.last_mut() {
                *last = 1;
            }
            let scale = b.stage(Kernel::NormScale(norm.clone()), &[x], SlotShape::Inner(divisors));
            let scale = b.inner(role, layer, Inner::Scale, scale);
            b.stage(Kernel::NormApply(norm), &[x, scale], shape)
        })
    }

    fn linear_if(&mut self, role: Role, layer: Option<usize>, x: Slot) -> Slot {
        if self.has(role, layer) { self.linear(role, layer, x) } else { x }
    }

    fn linear(&mut self, role: Role, layer: Option<usize>, x: Slot) -> Slot {
        let config = self.config;
        self.module(role, layer, x, |b, x| {
            // Every role that comes here has a width, and every width a weight: both are made from one table.
            let width = linear(role, config).map_or(0, |(_, output, _)| output);
            let class = b.places.get(&(role, layer)).map_or("", |index| b.modules[*index].class);
            let own = b.weight(role, layer, "weight");
            let (weight, layout) = match own {
                Some(weight) => (weight, linear_layout(class)),
                None => {
                    (b.weight(Role::Embed, None, "weight").unwrap_or(WeightId(0)), linear_layout("Linear"))
                }
            };
            let bias = b.weight(role, layer, "bias");
            b.stage(Kernel::Linear { weight, bias, layout }, &[x], SlotShape::Inner(vec![width]))
        })
    }

    fn embed(&mut self, role: Role, ids: Slot, offset: i64, scale: f32, width: usize) -> Slot {
        let table = self.weight(role, None, "weight").unwrap_or(WeightId(0));
        self.stage(Kernel::Embed { table, offset, scale }, &[ids], SlotShape::Inner(vec![width]))
    }

    /// A module that changes nothing: dropout outside training.
    fn identity(&mut self, role: Role, layer: Option<usize>, x: Slot) -> Slot {
        self.module(role, layer, x, |_, x| x)
    }

    fn add(&mut self, branch: Slot, stream: Slot) -> Slot {
        let shape = self.shape(stream).clone();
        self.stage(Kernel::Add, &[branch, stream], shape)
    }

    /// A stage whose result is shaped as its one input.
    fn same(&mut self, kernel: Kernel, x: Slot) -> Slot {
        let shape = self.shape(x).clone();
        self.stage(kernel, &[x], shape)
    }

    fn view(&mut self, x: Slot, offset: usize, dimensions: Vec<(usize, usize)>) -> Slot {
        let shape = SlotShape::Inner(dimensions.iter().map(|(size, _)| *size).collect());
        self.stage(Kernel::View { offset, dimensions }, &[x], shape)
    }

    /// What a module computes, between its `input` and `output` hook points if the family has such a module.
    fn module(
        &mut self,
        role: Role,
        layer: Option<usize>,
        input: Slot,
        body: impl FnOnce(&mut Self, Slot) -> Slot,
    ) -> Slot {
        let Some(index) = self.places.get(&(role, layer)).copied() else { return body(self, input) };
        let layout = match role {
            Role::QueryNorm | Role::KeyNorm => self.family.head_norm_layout,
            _ => HookLayout::Tokens,
        };
        let start = self.list.stages.len();
        let x = self.hook(index, "input", input, layout);
        let y = body(self, x);
        let output = self.hook(index, "output", y, layout);
        self.list.modules[index] =
            ModuleStages { range: start..self.list.stages.len(), input: Some(input), output: Some(output) };
        output
    }

    /// An inner hook point, if the family has a module for it to be under.
    fn inner(&mut self, role: Role, layer: Option<usize>, point: Inner, x: Slot) -> Slot {
        let Some(index) = self.places.get(&(role, layer)).copied() else { return x };
        let layout = match (point, role) {
            (Inner::Scores | Inner::Pattern, _) => HookLayout::Context,
            (Inner::Scale, Role::QueryNorm | Role::KeyNorm) => self.family.head_norm_layout,
            _ => HookLayout::Tokens,
        };
        self.hook(index, point.name(), x, layout)
    }

    fn hook(&mut self, module: usize, name: &str, x: Slot, layout: HookLayout) -> Slot {
        let shape = self.shape(x).clone();
        let size = |size: &usize| Axis::Size(*size as u64);
        let axes = match (&shape, layout) {
            (SlotShape::Id, _) => vec![Axis::Prompts, Axis::Length],
            (SlotShape::Context { heads }, _) => {
                vec![Axis::Prompts, Axis::Size(*heads as u64), Axis::Length, Axis::Context]
            }
            (SlotShape::Inner(inner), HookLayout::HeadsFirst) => {
                let mut axes = vec![Axis::Prompts];
                axes.extend(inner.first().map(size));
                axes.push(Axis::Length);
                axes.extend(inner.iter().skip(1).map(size));
                axes
            }
            (SlotShape::Inner(inner), _) => {
                [Axis::Prompts, Axis::Length].into_iter().chain(inner.iter().map(size)).collect()
            }
        };
        let point = self.hook_points.len();
        self.hook_points.push(HookPointSpec {
            module: self.modules[module].path.clone(),
            name: name.to_owned(),
            shape: axes,
            dtype: if shape == SlotShape::Id { DType::I64 } else { DType::F32 },
        });
        self.stage(Kernel::Hook { point, layout }, &[x], shape)
    }

    fn stage(&mut self, kernel: Kernel, inputs: &[Slot], shape: SlotShape) -> Slot {
        let output = Slot(self.list.slots);
        self.list.slots += 1;
        self.list.shapes.push(shape);
        self.list.stages.push(Stage { kernel, inputs: inputs.to_vec(), outputs: vec![output] });
        output
    }

    fn has(&self, role: Role, layer: Option<usize>) -> bool {
        self.places.contains_key(&(role, layer))
    }

    fn shape(&self, slot: Slot) -> &SlotShape {
        &self.list.shapes[slot.0 as usize]
    }

    fn weight(&self, role: Role, layer: Option<usize>, name: &str) -> Option<WeightId> {
        let path = &self.modules[*self.places.get(&(role, layer))?].path;
        self.weights.get(format!("{path}.{name}").as_str()).map(|index| WeightId(*index as u32))
    }
}
