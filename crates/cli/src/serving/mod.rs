//! What whoever runs the service uses: `serve`, `keys`, `usage`, `config`.

pub(crate) mod arguments;
mod config;
mod keys;
mod serve;
mod usage;

pub(crate) use config::config;
pub(crate) use keys::keys;
pub(crate) use serve::serve;
pub(crate) use usage::usage;

use pellucid_server::Config;
use pellucid_server::config::{ConfigError, Layers};

use crate::failure::Failure;
use arguments::Configuration;

/// The configuration: the file, the environment over it, flags over both.
fn read(choices: &Configuration) -> Result<Layers, Failure> {
    let mut layers = Layers::default();
    if let Some(path) = &choices.config {
        let name = path.display().to_string();
        let text =
            std::fs::read_to_string(path).map_err(|error| Failure::File { name: name.clone(), error })?;
        layers = layers.file(&name, &text)?;
    }
    let variables: Vec<(String, String)> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    layers = layers.environment(variables.iter().map(|(name, value)| (name.as_str(), value.as_str())))?;
    for setting in &choices.set {
        let (path, value) = setting
            .split_once('=')
            .ok_or_else(|| Failure::Message(format!("--set {setting}: it is section.name=value")))?;
        layers = layers.set(path, value)?;
    }
    if let Some(data) = &choices.data {
        layers = layers.set("server.data", &data.to_string_lossy())?;
    }
    Ok(layers)
}

fn finished(layers: Layers) -> Result<Config, Failure> {
    Ok(layers.config()?)
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Failure::Message(error.to_string())
    }
}

impl From<pellucid_server::admin::AdminError> for Failure {
    fn from(error: pellucid_server::admin::AdminError) -> Self {
        Failure::Message(error.to_string())
    }
}
