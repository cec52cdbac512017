//! Whether what a configuration names can be used: opened, not only written correctly.

use std::path::Path;

use pellucid_models::Model;

use super::{Config, ModelConfig};
use crate::models::{model_options, source_of};

impl Config {
    /// What it names and cannot be used: certificates, models that lie in folders or files, the folder for data. Nothing is made, and
    /// nothing is downloaded. Empty: all can be used.
    pub fn unusable(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let server = &self.server;
        if let (Some(certificate), Some(key)) = (&server.certificate, &server.private_key)
            && let Err(error) = crate::http::acceptor(certificate, key)
        {
            faults.push(format!("server.certificate and server.private_key: {error}"));
        }
        faults.extend(unusable_folder(&server.data));
        let mut pinned = 0_u64;
        for model in &self.models {
            match bytes_of(model) {
                Err(fault) => faults.push(fault),
                Ok(Some(bytes)) if bytes > self.engine.weight_bytes => faults.push(format!(
                    "model `{}`: its weights take {bytes} bytes, and engine.weight_bytes is {}",
                    model.id, self.engine.weight_bytes
                )),
                Ok(bytes) => pinned = pinned.saturating_add(bytes.filter(|_| model.pinned).unwrap_or(0)),
            }
        }
        if pinned > self.engine.weight_bytes {
            faults.push(format!(
                "the models that are pinned take {pinned} bytes together, and engine.weight_bytes is {}",
                self.engine.weight_bytes
            ));
        }
        faults
    }
}

/// Whether a source is a folder or a file here; otherwise it is on a hub.
fn is_here(source: &str) -> bool {
    source.starts_with(['/', '.', '~']) || source.ends_with(".gguf") || Path::new(source).exists()
}

/// Bytes of a model's weights, where it lies here.
fn bytes_of(model: &ModelConfig) -> Result<Option<u64>, String> {
    let fault = |message: String| format!("model `{}`: {message}", model.id);
    let source = source_of(model).map_err(fault)?;
    if !is_here(&source) {
        return Ok(None);
    }
    let outline = Model::outline(&source, &model_options(model)).map_err(|error| fault(error.to_string()))?;
    Ok(Some(outline.expected_weight_bytes()))
}

fn unusable_folder(folder: &Path) -> Option<String> {
    let there = folder.ancestors().find(|path| path.exists());
    match there {
        Some(path) if !path.is_dir() => Some(format!("server.data: {} is no folder", path.display())),
        Some(path) if path.metadata().is_ok_and(|known| known.permissions().readonly()) => {
            Some(format!("server.data: nothing may be written into {}", path.display()))
        }
        _ => None,
    }
}
