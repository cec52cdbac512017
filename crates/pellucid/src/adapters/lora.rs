//! LoRA adapters.

use std::path::Path;

use pellucid_engine::Tensor;
use pellucid_models::adapters::{Array, LoraAdapter, LoraModule};

use super::tensor;
use crate::error::Result;
use crate::invoke::Invoke;
use crate::model::Model;
use crate::region::Values;
use crate::results::Results;
use crate::session::Session;
use crate::trace::Trace;
use crate::value::Value;

/// A LoRA adapter in the layout of the `peft` library: each of its linear layers gives
/// `output + scale · B (A input)`.
///
/// ```
/// use pellucid::{Lora, Model, s};
///
/// # fn main() -> pellucid::Result<()> {
/// let model = Model::bundled()?;
/// let lora = Lora::open("../../golden/adapters/lora-gpt2")?; // a folder, or a hub id
///
/// let trace = model.trace();
/// let plain = trace.invoke("The capital of France is");
/// let adapted = trace.invoke("The capital of France is");
/// lora.values(&trace)?.attach(&adapted);
/// plain.logits().index(s![0, -1]).save("plain");
/// adapted.logits().index(s![0, -1]).save("adapted");
///
/// let results = trace.run()?;
/// assert_ne!(results["plain"].to_vec_f32()?, results["adapted"].to_vec_f32()?);
/// # Ok(())
/// # }
/// ```
///
/// In a generation the adapter stands at every step: `trace.steps(.., |step| values.attach(&step.at(&invoke)))`.
#[derive(Clone, Debug)]
pub struct Lora {
    adapter: LoraAdapter,
}

impl Lora {
    /// Opens an adapter: a folder with `adapter_config.json` and `adapter_model.safetensors`, or a hub id.
    ///
    /// # Errors
    /// [`Error::Model`](crate::Error::Model): what is missing or damaged, or a variant that computes something else (DoRA, …).
    pub fn open(source: &str) -> Result<Lora> {
        Ok(Lora { adapter: LoraAdapter::open(source)? })
    }

    /// A new adapter for the linear layers whose paths end with one of `targets`, as `peft` begins one: A random by the
    /// seed, B zero, so that it changes nothing before it is trained.
    ///
    /// ```
    /// # fn main() -> pellucid::Result<()> {
    /// let model = pellucid::Model::bundled()?;
    /// let lora = pellucid::Lora::new(&model, 4, 8.0, &["c_attn", "mlp.c_proj"], 0)?;
    /// assert_eq!(lora.modules().count(), 2 * model.layers());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Model`](crate::Error::Model) where a target names no linear layer.
    pub fn new(model: &Model, rank: usize, alpha: f64, targets: &[&str], seed: u64) -> Result<Lora> {
        Ok(Lora { adapter: LoraAdapter::new(model.spec(), rank, alpha, targets, seed)? })
    }

    /// The paths of its linear layers.
    pub fn modules(&self) -> impl Iterator<Item = &str> {
        self.adapter.modules.iter().map(|module| module.path.as_str())
    }

    /// The adapter's matrices as values of a trace, where they can be used for any of its invokes.
    ///
    /// # Errors
    /// [`Error::Model`](crate::Error::Model) where the trace's model has no such layer, or one of another size.
    #[track_caller]
    pub fn values(&self, trace: &Trace) -> Result<LoraValues> {
        self.values_with(trace.session(), &mut |tensor| trace.constant(tensor))
    }

    /// The adapter's matrices as values of a session, to be used in its traces, or trained:
    ///
    /// ```
    /// use pellucid::{Lora, Model, Optimiser, s};
    ///
    /// # fn main() -> pellucid::Result<()> {
    /// let model = Model::bundled()?;
    /// let lora = Lora::new(&model, 2, 8.0, &["mlp.c_fc"], 0)?;
    /// let session = model.session();
    /// let oslo = session.literal([model.token(" Oslo")?], &[1]);
    /// let training = session.training(Optimiser::adam(0.01), lora.values_in(&session)?);
    /// let training = training.steps(10, |_step, trace, adapter| {
    ///     let prompt = trace.invoke("The White Tower is in the city of");
    ///     adapter.attach(&prompt);
    ///     let loss = prompt.logits().index(s![.., -1]).cross_entropy(&oslo);
    ///     loss.save("losses");
    ///     loss
    /// });
    /// training.parameters().save("adapter");
    /// let results = session.run()?;
    /// let losses = results["losses"].to_vec_f32()?;
    /// assert!(losses[9] < 0.5 * losses[0], "{losses:?}");
    /// # let folder = std::env::temp_dir().join(format!("pellucid-lora-{}", std::process::id()));
    /// lora.with_results(&results, "adapter")?.save(&folder)?; // in peft's layout
    /// # std::fs::remove_dir_all(folder).ok();
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of [`Lora::values`].
    #[track_caller]
    pub fn values_in(&self, session: &Session) -> Result<LoraValues> {
        self.values_with(session, &mut |tensor| session.constant(tensor))
    }

    #[track_caller]
    fn values_with(
        &self,
        session: &Session,
        constant: &mut dyn FnMut(&Tensor) -> Value,
    ) -> Result<LoraValues> {
        self.check(session.model())?;
        let mut pairs = Vec::with_capacity(self.adapter.modules.len());
        for LoraMatrices { path, scale, a, b } in self.matrices()? {
            pairs.push(LoraPair { path, scale, a: constant(&a), b: constant(&b) });
        }
        Ok(LoraValues { pairs })
    }

    /// Whether the adapter is of such a model.
    ///
    /// # Errors
    /// [`Error::Model`](crate::Error::Model) where the model has no such layer, or one of another size.
    pub fn check(&self, model: &Model) -> Result<()> {
        Ok(self.adapter.check(model.spec())?)
    }

    /// The adapter's matrices, in the order of [`Lora::modules`].
    ///
    /// # Errors
    /// Where a tensor cannot be made, which only a lack of memory causes.
    pub fn matrices(&self) -> Result<Vec<LoraMatrices>> {
        let LoraAdapter { settings, modules, .. } = &self.adapter;
        let matrices = modules.iter().map(|module| {
            let (path, scale) = (module.path.clone(), settings.scale(&module.path, module.rank()));
            Ok(LoraMatrices { path, scale, a: tensor(&module.a)?, b: tensor(&module.b)? })
        });
        matrices.collect()
    }

    /// The same adapter with other matrices: A and B of each linear layer, in the order of [`Lora::modules`].
    ///
    /// # Errors
    /// [`Error::Model`](crate::Error::Model) where one has another shape, or there are not as many.
    pub fn with_matrices(&self, matrices: &[(Tensor, Tensor)]) -> Result<Lora> {
        let mut adapter = self.adapter.clone();
        if matrices.len() != adapter.modules.len() {
            let (layers, given) = (adapter.modules.len(), matrices.len());
            let reason = format!("matrices of {given} linear layers were given for {layers}");
            let (origin, model) = (adapter.origin, adapter.settings.base_model.unwrap_or_default());
            return Err(pellucid_models::Error::Misfit { origin, model, reason }.into());
        }
        for (module, (a, b)) in adapter.modules.iter_mut().zip(matrices) {
            module.a = array(a, &module.a, module)?;
            module.b = array(b, &module.b, module)?;
        }
        Ok(Lora { adapter })
    }

    /// The same adapter with the matrices that [`LoraValues::save`] returned under that name: what training made of it.
    ///
    /// # Errors
    /// [`Error::NotSaved`](crate::Error::NotSaved) where they are not among the results;
    /// [`Error::Model`](crate::Error::Model) where one has another shape.
    pub fn with_results(&self, results: &Results, name: &str) -> Result<Lora> {
        let matrix = |index, letter| results.get(&saved_name(name, index, letter)).cloned();
        let pairs =
            (0..self.adapter.modules.len()).map(|index| Ok((matrix(index, "a")?, matrix(index, "b")?)));
        self.with_matrices(&pairs.collect::<Result<Vec<_>>>()?)
    }

    /// Writes the adapter in `peft`'s layout to a folder, which is made where it is not there.
    ///
    /// # Errors
    /// [`Error::Model`](crate::Error::Model) where the files cannot be written.
    pub fn save(&self, folder: impl AsRef<Path>) -> Result<()> {
        Ok(self.adapter.save(folder)?)
    }
}

fn saved_name(name: &str, index: usize, matrix: &str) -> String {
    format!("{name}_{index}_{matrix}")
}

fn array(tensor: &Tensor, like: &Array, module: &LoraModule) -> Result<Array> {
    if tensor.shape() != like.shape {
        let error = pellucid_models::Error::ShapeMismatch {
            origin: "the results".to_owned(),
            name: module.path.clone(),
            found: tensor.shape().to_vec(),
            expected: like.shape.clone(),
        };
        return Err(error.into());
    }
    Ok(Array { shape: like.shape.clone(), numbers: tensor.to_vec_f32()? })
}

/// The values of an adapter in a trace: one pair of matrices for each linear layer. They can be read, and replaced by
/// values of the program; [`Session::training`] trains them.
#[derive(Clone, Debug)]
pub struct LoraValues {
    pairs: Vec<LoraPair>,
}

/// An adapter's part for one linear layer.
#[derive(Clone, Debug)]
pub struct LoraPair {
    /// The layer's path.
    pub path: String,
    /// What multiplies `B (A input)`.
    pub scale: f64,
    /// `[rank, in]`.
    pub a: Value,
    /// `[out, rank]`.
    pub b: Value,
}

/// The matrices of an adapter's part for one linear layer.
#[derive(Clone, Debug)]
pub struct LoraMatrices {
    /// The layer's path.
    pub path: String,
    /// What multiplies `B (A input)`.
    pub scale: f64,
    /// `[rank, in]`.
    pub a: Tensor,
    /// `[out, rank]`.
    pub b: Tensor,
}

/// Matrix by matrix: A and B of the first layer, then those of the next.
impl Values for LoraValues {
    fn values(&self) -> Vec<Value> {
        self.pairs.iter().flat_map(|pair| [pair.a.clone(), pair.b.clone()]).collect()
    }

    fn replaced(&self, values: Vec<Value>) -> LoraValues {
        let mut replaced = self.clone();
        let matrices = replaced.pairs.iter_mut().flat_map(|pair| [&mut pair.a, &mut pair.b]);
        matrices.zip(values).for_each(|(matrix, value)| *matrix = value);
        replaced
    }
}

impl LoraValues {
    /// The pairs, in the order of [`Lora::modules`].
    pub fn pairs(&self) -> &[LoraPair] {
        &self.pairs
    }

    /// The pairs, to replace their matrices.
    pub fn pairs_mut(&mut self) -> &mut [LoraPair] {
        &mut self.pairs
    }

    /// Puts the adapter on an invoke: every one of its layers gives `output + scale · B (A input)` there.
    #[track_caller]
    pub fn attach(&self, invoke: &Invoke) {
        for pair in &self.pairs {
            let layer = invoke.module(&pair.path);
            let inside = layer.input().matmul(&pair.a.transpose(0, 1));
            let added = inside.matmul(&pair.b.transpose(0, 1)) * pair.scale;
            layer.set_output(&(layer.output() + added));
        }
    }

    /// Marks all matrices as returned, for [`Lora::with_results`]: `name_0_a`, `name_0_b`, `name_1_a`, ….
    #[track_caller]
    pub fn save(&self, name: &str) {
        for (index, pair) in self.pairs.iter().enumerate() {
            pair.a.save(&saved_name(name, index, "a"));
            pair.b.save(&saved_name(name, index, "b"));
        }
    }
}
