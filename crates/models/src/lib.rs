//! Model families as stage lists, with the specification each publishes; weights, tokenizers.
//!
//! | module | holds |
//! | --- | --- |
//! | [`family`] | a table for each family: module tree, oddities, how its `config.json` reads |
//! | [`config`] | what the one decoder needs to know, read from a `config.json` |
//! | [`decoder`] | the one decoder: from a configuration and a family's table to a list of stages |
//! | [`spec`] | the [`pellucid_graph::ModelSpec`] that goes with it |
//! | [`inner`] | the one table of inner hook points |
//! | [`stage`] | the types of a list of stages: the seam to an engine |
//! | [`rotary`] | tables of rotary positions |
//! | [`Model`] | a loaded model: blueprint, packed weights, tokenizer |
//! | [`adapters`] | what is laid over a model: LoRA adapters, sparse autoencoders |
//! | [`weights`] | checkpoints: named tensors in mapped files |
//! | [`hub`] | models by name: the hub's cache, and downloads into it |
//! | [`tokenizer`] | text to token ids and back |
//! | [`chat_template`] | conversations as the text a model was trained on |
//!
//! What a model publishes needs no weights, only its configuration:
//!
//! ```
//! let config = serde_json::json!({ "model_type": "gpt2", "n_layer": 2, "n_embd": 64, "n_head": 4 });
//! let model = pellucid_models::blueprint("small", &config, None)?;
//! let pattern = model.spec.hook_points.iter().find(|point| point.name == "pattern").unwrap();
//! assert_eq!(pattern.path(), "transformer.h.0.attn.pattern");
//! # Ok::<(), pellucid_models::ConfigError>(())
//! ```
//!
//! A loaded model is its blueprint with weights:
//!
//! ```
//! use pellucid_models::{Model, ModelOptions};
//!
//! let model = Model::open("../../models/tiny-gpt2/model", &ModelOptions::default())?;
//! let embedding = model.parameter("transformer.wte.weight").unwrap();
//! assert_eq!(embedding.shape(), [2048, 128]);
//! # Ok::<(), pellucid_models::Error>(())
//! ```
//!
//! **Invariant:** this crate knows nothing of programs or users, and no family has a forward function.

pub mod adapters;
pub mod chat_template;
pub mod config;
pub mod decoder;
pub mod error;
pub mod family;
mod files;
pub mod hub;
pub mod inner;
mod model;
mod model_weight;
mod parameter;
pub mod rotary;
pub mod spec;
pub mod stage;
pub mod tokenizer;
pub mod weights;

pub use config::ConfigError;
pub use error::{Error, Result};
pub use files::ModelFiles;
pub use model::{Model, ModelOptions, Progress, ProgressListener};
pub use model_weight::ModelWeight;
pub use parameter::Parameter;
/// How weights are packed.
pub use pellucid_kernels::Precision;
pub use spec::{Blueprint, blueprint};
