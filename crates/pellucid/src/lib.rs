//! Look into neural networks, and intervene in them: open a model, trace a prompt, read and change any value inside.
//!
//! ```
//! use pellucid::{Model, s};
//!
//! # fn main() -> pellucid::Result<()> {
//! let model = Model::bundled()?;
//! let (mary, john) = (i64::from(model.token(" Mary")?), i64::from(model.token(" John")?));
//!
//! // Two prompts that differ in one word, and the residual stream of the first put into the second.
//! let trace = model.trace();
//! let clean = trace.invoke("When Mary and John went to the store, John gave a drink to");
//! let corrupted = trace.invoke("When Mary and John went to the store, Mary gave a drink to");
//! let source = clean.layer(0).output(); // [prompts, length, hidden]
//! corrupted.layer(0).edit_output(|output| output.index_put(s![.., 9], source.index(s![.., 9])));
//!
//! let logits = corrupted.logits().index(s![0, -1]); // [vocabulary]
//! (logits.index(s![mary]) - logits.index(s![john])).save("difference");
//!
//! let results = trace.run()?;
//! assert!(results["difference"].to_vec_f32()?[0] > 5.0); // it says Mary now
//! # Ok(())
//! # }
//! ```
//!
//! | type | is |
//! | --- | --- |
//! | [`Model`] | a model in this process (a folder, a GGUF file, a hub id, or the bundled one), or at a service: [`Model::remote`] |
//! | [`Trace`] | one or more inputs, and one graph over them; with [`Trace::generate`] a generation |
//! | [`Invoke`], [`Module`] | one input of a trace; its hook points by path, read and set |
//! | [`Value`] | what will have been computed: operators and methods with PyTorch's names and semantics |
//! | [`Backward`] | gradients of a value, read and written |
//! | [`Session`] | traces in sequence, whose values flow from one to the next |
//! | [`Session::train`], [`Optimiser`] | training in the engine |
//! | [`Axis`], [`Cell`] | sweeps and loops: one body for a whole grid, or again and again |
//! | [`Pattern`] | many hook points at once |
//! | [`Lora`], [`SparseAutoencoder`], [`Steering`] | what is laid over a model: adapters, dictionaries, vectors |
//! | [`Service`] | models elsewhere, and programs that run there |
//! | [`Results`], [`Tensor`] | what comes back |
//! | [`picture`] | heat maps and curves of it, for a terminal and as a web page |
//! | [`Program`] | an experiment as data: written down, sent, run elsewhere |
//!
//! A trace only writes a program down. Before anything runs, all of it is checked against the model: hook points, shapes,
//! number types, whether what is set could be known by then. What is wrong is reported together, each with the line of
//! your source in which it was written:
//!
//! ```
//! # fn main() -> pellucid::Result<()> {
//! # let model = pellucid::Model::bundled()?;
//! let trace = model.trace();
//! let prompt = trace.invoke("The capital of France is");
//! prompt.get("layers.1.attention.patern").save("pattern");
//! let error = trace.run().unwrap_err().to_string();
//! assert!(error.contains("hint: did you mean `layers.1.attention.pattern`?"), "{error}");
//! # Ok(())
//! # }
//! ```
//!
//! Short programs for each idea are in `examples/` of this crate; classic experiments of the field, with their numbers held
//! to PyTorch, in `examples/` of the repository.
//!
//! **Invariant:** this crate writes programs and hands them to an engine; it computes nothing itself.

mod adapters;
mod axis;
mod backward;
mod branch;
mod builder;
mod bundled;
mod edit;
mod error;
mod evaluate;
#[cfg(doctest)]
mod examples;
mod generation;
mod invoke;
mod memory;
mod model;
mod module;
mod pattern;
pub mod picture;
mod prompts;
mod reduce;
mod region;
mod remote;
mod results;
mod session;
pub mod spec;
mod steps;
mod trace;
mod train;
mod value;

pub use adapters::{
    AutoencoderParts, AutoencoderValues, Lora, LoraMatrices, LoraPair, LoraValues, SparseAutoencoder, Splice,
    Steering,
};
pub use axis::{Axis, AxisValues, IntoAxes};
pub use backward::Backward;
pub use bundled::unpack as bundled_folder;
pub use edit::{Edit, EditBody};
pub use error::{Error, Failure, Result};
pub use evaluate::evaluate;
pub use generation::Generation;
pub use invoke::Invoke;
pub use memory::available as available_memory;
pub use model::Model;
pub use module::Module;
pub use pattern::Pattern;
pub use prompts::IntoPrompts;
pub use reduce::Reduce;
pub use region::{Cell, Values};
pub use remote::{OnUpdate, RemoteOptions, Service, Update};
pub use results::Results;
pub use session::Session;
pub use steps::Steps;
pub use trace::Trace;
pub use train::{Checkpoint, Optimiser, Schedule, Training};
pub use value::{
    Adam, CrossEntropy, Dimension, Dimensions, Ellipsis, Index, Item, NewAxis, Operand, OrthogonalMap,
    Pieces, Reduction, Sgd, Shape, Size, Value, step,
};

pub use pellucid_client as client;
pub use pellucid_engine::job::OnLog;
pub use pellucid_engine::operations::OperationError;
pub use pellucid_engine::plan::{PREFIX_CACHE_BYTES, PrefixCache, PrefixCacheUse};
pub use pellucid_engine::{
    EngineError, Explanation, GeneratedToken, LogEntry, Progress, Provenance, Report, RunOptions, SavedValue,
    Tensor, keep_freed_memory,
};
pub use pellucid_graph::check::{CheckedProgram, Price};
pub use pellucid_graph::fault::{Fault, Faults};
pub use pellucid_graph::limits;
pub use pellucid_graph::{DType, ModelSpec, Program, Prompts, Scalar, SourceLocation};
pub use pellucid_models::adapters::InputNormalisation;
pub use pellucid_models::tokenizer::Tokenizer;
pub use pellucid_models::{ModelOptions, Precision, ProgressListener};

/// The instruction-set path by which this process computes: the best of this CPU, or the one that `PELLUCID_ISA` names. A
/// result is reproducible, bit for bit, on a machine with the path of the same name.
///
/// # Errors
/// Where `PELLUCID_ISA` names none that this CPU can run.
pub fn instruction_set() -> std::result::Result<&'static str, String> {
    pellucid_engine::Isa::asked_for().map(pellucid_engine::Isa::name)
}

/// To be called in a process that was forked off, before it computes or asks anything: threads and connections of its parent are
/// not its own.
pub fn forked() {
    pellucid_engine::forked();
    pellucid_client::forked();
}
