//! What a model publishes of itself: enough to write, check and price a program without having the model.

use pellucid_models::hub::Settings;
use pellucid_models::weights::Source;

use crate::error::Result;

pub use pellucid_graph::spec::{
    Alias, Application, Axis, HookPointSpec, ModelSizes, ModelSpec, ModuleSpec, ParameterSpec,
};

/// The specification of a Hugging Face folder, a GGUF file or a model on the hub. No weights are loaded: a folder needs none, and of a
/// model on the hub only its configuration is downloaded.
///
/// # Errors
/// [`Error::Model`](crate::Error::Model): what is missing, damaged or of an unknown family.
pub fn of(source: &str) -> Result<ModelSpec> {
    Ok(Source::parse(source)?.spec(&Settings::from_environment())?)
}

/// The specification of the bundled model: see [`Model::bundled`](crate::Model::bundled).
///
/// # Errors
/// Those of [`Model::bundled`](crate::Model::bundled).
pub fn bundled() -> Result<ModelSpec> {
    of(&crate::bundled::unpack()?.to_string_lossy())
}
