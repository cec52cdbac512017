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
    Ok(model?)
}

/// What a model publishes of itself; its weights are not loaded.
pub(crate) fn specification(name: &str) -> Result<ModelSpec, Failure> {
    Ok(if name == BUNDLED { pellucid::spec::bundled() } else { pellucid::spec::of(name) }?)
}

/// The options, with a bar on standard error that only a terminal gets to see.
fn options(choices: &ModelChoices, bar: Arc<OnceLock<ProgressBar>>) -> ModelOptions {
    ModelOptions {
        precision: match choices.dtype {
            NumberType::F32 => Precision::F32,
            NumberType::Bf16 => Precision::Bf16,
        },
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
            bar.set_message(progress.what.to_owned());
            bar.set_position(progress.done);
        })),
        ..ModelOptions::default()
    }
}
