//! Opening the model that was asked for.

use std::sync::{Arc, OnceLock};

use indicatif::{ProgressBar, ProgressStyle};
use pellucid::{Model, ModelOptions, ModelSpec, Precision};

use crate::arguments::{ModelChoices, NumberType};
use crate::failure::Failure;

/// The name of the model inside this program.
pub(crate) const BUNDLED: &str = "bundled";

/// Models of fewer bytes are loaded before a progress bar could be seen.
const BAR_FROM: u64 = 64 << 20;

/// Opens a model: `bundled`, a folder, a GGUF file or a hub id.
pub(crate) fn open(name: &str, choices: &ModelChoices) -> Result<Model, Failure> {
    let bar = Arc::new(OnceLock::new());
    let options = options(choices, bar.clone());
    let model =
        if name == BUNDLED { Model::bundled_with(&options) } else { Model::open_with(name, &options) };
    if let Some(bar) = bar.get() {
        ProgressBar::finish_and_clear(bar);
    }
    let model = model?;
    note_unused(&model.unused_tensors(), name);
    Ok(model)
}

/// Opens a model without its weights: enough to explain programs.
pub(crate) fn outline(name: &str, choices: &ModelChoices) -> Result<Model, Failure> {
    let options = ModelOptions { precision: precision(choices), ..ModelOptions::default() };
    let bundled = if name == BUNDLED { Some(pellucid::bundled_folder()?) } else { None };
    Ok(match bundled {
        Some(folder) => Model::outline(&folder.to_string_lossy(), &options),
        None => Model::outline(name, &options),
    }?)
}

/// Says on standard error which tensors of a model's files it does not use, if that needs saying.
fn note_unused(unused: &[&str], model: &str) {
    const SHOWN: usize = 3;
    if unused.is_empty() {
        return;
    }
    let shown = unused[..unused.len().min(SHOWN)].join(", ");
    let more = if unused.len() > SHOWN { ", …" } else { "" };
    let tensors = if unused.len() == 1 { "tensor is" } else { "tensors are" };
    eprintln!(
        "note: {} {tensors} in the files of {model} that its configuration has no place for: {shown}{more}",
        unused.len()
    );
}

fn precision(choices: &ModelChoices) -> Precision {
    match choices.dtype {
        NumberType::F32 => Precision::F32,
        NumberType::Bf16 => Precision::Bf16,
        NumberType::Quantised => Precision::Quantised,
    }
}

/// What a model publishes of itself; its weights are not loaded.
pub(crate) fn specification(name: &str) -> Result<ModelSpec, Failure> {
    Ok(if name == BUNDLED { pellucid::spec::bundled() } else { pellucid::spec::of(name) }?)
}

/// The options, with a bar on standard error that only a terminal gets to see.
fn options(choices: &ModelChoices, bar: Arc<OnceLock<ProgressBar>>) -> ModelOptions {
    ModelOptions {
        precision: precision(choices),
        progress: Some(Arc::new(move |progress| {
            let Some(total) = progress.total.filter(|&total| total >= BAR_FROM) else { return };
            let bar = bar.get_or_init(|| {
                let bar = ProgressBar::new(total);
                // A template that does not parse leaves the plain bar.
                if let Ok(style) = ProgressStyle::with_template("{msg} {bar:30} {bytes} of {total_bytes}") {
                    bar.set_style(style);
                }
                bar
            });
            bar.set_length(total);
            bar.set_message(progress.what.to_owned());
            bar.set_position(progress.done);
        })),
        ..ModelOptions::default()
    }
}
