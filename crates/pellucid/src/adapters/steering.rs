//! Steering vectors.

use std::collections::HashMap;
use std::ops::{Bound, RangeBounds};
use std::path::Path;

use pellucid_engine::Tensor;
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use serde_json::{Value as Json, json};

use crate::error::{Error, Result};
use crate::invoke::Invoke;
use crate::steps::Steps;
use crate::trace::Trace;
use crate::value::{Index, Item, Value, step};

/// The key of a steering file's metadata under which everything but the vector stands, as JSON.
const METADATA: &str = "pellucid.steering";
/// The name of the vector in a steering file.
const VECTOR: &str = "vector";
/// The longest steering file that is read.
const MAXIMUM_FILE_BYTES: u64 = 64 << 20;

/// A steering vector: `scale · vector` is added to a hook point, at the prompt's tokens, at those that are generated, or at
/// both.
///
/// ```
/// use pellucid::{Model, Steering, Tensor};
///
/// # fn main() -> pellucid::Result<()> {
/// let model = Model::bundled()?;
/// let direction = Tensor::from_f32(vec![0.5; model.hidden()], &[model.hidden()])?;
/// let steering = Steering::new("layers.1.output", &direction)?.scale(4.0).positions(-3..);
///
/// let trace = model.trace();
/// trace.generate(5);
/// let prompt = trace.invoke("The movie was");
/// steering.apply(&trace, &prompt);
/// prompt.generated().save("tokens");
/// assert_eq!(trace.run()?["tokens"].shape(), [1, 5]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Steering {
    hook: String,
    vector: Tensor,
    scale: f64,
    positions: Option<(Option<i64>, Option<i64>)>,
    prompt: bool,
    generated: bool,
}

impl Steering {
    /// Adds `vector` `[width]` at a hook point, at every token of the prompt and at each that is generated.
    ///
    /// # Errors
    /// [`Error::Steering`] where the vector has more dimensions than one.
    pub fn new(hook: &str, vector: &Tensor) -> Result<Steering> {
        if vector.rank() != 1 {
            return Err(Error::Steering {
                reason: format!(
                    "a steering vector has one dimension, and this has shape {:?}",
                    vector.shape()
                ),
                hint: "choose one prompt and position of it, as in `value.index(s![0, -1])`",
            });
        }
        Ok(Steering {
            hook: hook.to_owned(),
            vector: vector.clone(),
            scale: 1.0,
            positions: None,
            prompt: true,
            generated: true,
        })
    }

    /// Multiplies the vector; negative steers away.
    #[must_use]
    pub fn scale(mut self, scale: f64) -> Steering {
        self.scale = scale;
        self
    }

    /// Only these of the prompt's tokens: `2..5`, `-3..`, `..`. They count as in every index, a negative one from the end.
    #[must_use]
    pub fn positions(mut self, positions: impl RangeBounds<i64>) -> Steering {
        let start = match positions.start_bound() {
            Bound::Included(&first) => Some(first),
            Bound::Excluded(&before) => Some(before.saturating_add(1)),
            Bound::Unbounded => None,
        };
        let stop = match positions.end_bound() {
            // The last one of all has none after it to stop at.
            Bound::Included(&-1) | Bound::Unbounded => None,
            Bound::Included(&last) => Some(last.saturating_add(1)),
            Bound::Excluded(&stop) => Some(stop),
        };
        self.positions = (start.is_some() || stop.is_some()).then_some((start, stop));
        self
    }

    /// Only at the prompt's tokens.
    #[must_use]
    pub fn prompt_only(mut self) -> Steering {
        (self.prompt, self.generated) = (true, false);
        self
    }

    /// Only at the tokens that are generated.
    #[must_use]
    pub fn generated_only(mut self) -> Steering {
        (self.prompt, self.generated) = (false, true);
        self
    }

    /// The hook point.
    pub fn hook_point(&self) -> &str {
        &self.hook
    }

    /// The vector, not scaled.
    pub fn vector(&self) -> &Tensor {
        &self.vector
    }

    /// Steers an invoke of a trace. Where the trace generates, say so first ([`Trace::generate`]): this puts the steering at
    /// its steps.
    #[track_caller]
    pub fn apply(&self, trace: &Trace, invoke: &Invoke) {
        let added = trace.constant(&self.vector) * self.scale;
        if self.prompt {
            let value = invoke.get(&self.hook);
            let steered = match self.positions {
                None => &value + &added,
                Some(range) => add_at(&value, range, &added),
            };
            invoke.set(&self.hook, &steered);
        }
        if self.generated && trace.max_new_tokens() > 1 {
            // Written after the closure, where the caller's own line is still known.
            let invoke = trace.steps(1.., Steps::clone).at(invoke);
            invoke.set(&self.hook, &(invoke.get(&self.hook) + &added));
        }
    }

    /// Writes the specification as a safetensors file.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let definition = json!({
            "hook": self.hook,
            "scale": self.scale,
            "positions": self.positions.map(|(start, stop)| json!([start, stop])),
            "prompt": self.prompt,
            "generated": self.generated,
        });
        let metadata = HashMap::from([(METADATA.to_owned(), definition.to_string())]);
        let numbers = self.vector.to_vec_f32()?;
        let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        let view = TensorView::new(safetensors::Dtype::F32, vec![numbers.len()], &bytes);
        let view = view.map_err(|error| damaged(path, error))?;
        let file = safetensors::serialize([(VECTOR, view)], Some(metadata));
        let file = file.map_err(|error| damaged(path, error))?;
        std::fs::write(path, file).map_err(|error| Error::File { path: path.to_owned(), error })
    }

    /// Reads what [`Steering::save`] wrote.
    ///
    /// # Errors
    /// [`Error::File`] where there is no such file; [`Error::Steering`] where it is none of this kind.
    pub fn open(path: impl AsRef<Path>) -> Result<Steering> {
        let path = path.as_ref();
        let unreadable = |error| Error::File { path: path.to_owned(), error };
        if std::fs::metadata(path).map_err(unreadable)?.len() > MAXIMUM_FILE_BYTES {
            return Err(damaged(path, format!("it is longer than {MAXIMUM_FILE_BYTES} bytes")));
        }
        let bytes = std::fs::read(path).map_err(unreadable)?;
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|error| damaged(path, error))?;
        let text = header.metadata().as_ref().and_then(|metadata| metadata.get(METADATA));
        let text = text.ok_or_else(|| damaged(path, format!("its metadata has no `{METADATA}`")))?;
        let definition: Json = serde_json::from_str(text).map_err(|error| damaged(path, error))?;
        let field =
            |name: &str| definition.get(name).ok_or_else(|| damaged(path, format!("it has no `{name}`")));
        let truth = |name: &str| Ok::<bool, Error>(field(name)?.as_bool().unwrap_or(true));
        let file = SafeTensors::deserialize(&bytes).map_err(|error| damaged(path, error))?;
        let view = file.tensor(VECTOR).map_err(|error| damaged(path, error))?;
        if view.dtype() != safetensors::Dtype::F32 {
            return Err(damaged(path, "its vector is not of f32".to_owned()));
        }
        let vector = Tensor::from_bytes(view.data(), view.shape(), pellucid_graph::DType::F32)?;
        let hook =
            field("hook")?.as_str().ok_or_else(|| damaged(path, "its `hook` is not a text".to_owned()))?;
        let positions = match field("positions")? {
            Json::Null => None,
            positions => match positions.as_array().map(Vec::as_slice) {
                Some([start, stop]) => Some((start.as_i64(), stop.as_i64())),
                _ => return Err(damaged(path, "its `positions` are not a beginning and an end".to_owned())),
            },
        };
        let scale = field("scale")?.as_f64().unwrap_or(1.0);
        let read = Steering::new(hook, &vector)?.scale(scale);
        Ok(Steering { positions, prompt: truth("prompt")?, generated: truth("generated")?, ..read })
    }
}

/// `value` with `added` at some of its positions.
#[track_caller]
fn add_at(value: &Value, (start, stop): (Option<i64>, Option<i64>), added: &Value) -> Value {
    let slice = match (start, stop) {
        (Some(start), Some(stop)) => step(start..stop, 1),
        (Some(start), None) => step(start.., 1),
        (None, Some(stop)) => step(..stop, 1),
        (None, None) => step(.., 1),
    };
    let index = Index::from([Item::from(..), slice]);
    value.index_put(index.clone(), value.index(index) + added)
}

fn damaged(path: &Path, reason: impl std::fmt::Display) -> Error {
    Error::Steering {
        reason: format!("{} is not a steering vector: {reason}", path.display()),
        hint: "`Steering::save` writes such files",
    }
}
