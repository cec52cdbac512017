//! Where the hub is, where its cache is, and who asks.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::ProgressListener;

/// The hub where no other is named.
const DEFAULT_ENDPOINT: &str = "https://huggingface.co";
/// The longest file of a token that is read, in bytes.
const MAXIMUM_TOKEN_BYTES: u64 = 4096;

/// What a hub needs to be asked.
#[derive(Clone)]
pub struct Settings {
    /// The hub's address, without a slash at its end. `HF_ENDPOINT`.
    pub endpoint: String,
    /// The folder of the cache. `HF_HUB_CACHE`, or else `hub` in `HF_HOME`, which is `~/.cache/huggingface` by default.
    pub cache: PathBuf,
    /// Who asks. `HF_TOKEN`, or else the file `token` in `HF_HOME`, where the hub's own login puts it.
    pub token: Option<String>,
    /// Whether the network is not to be used. `HF_HUB_OFFLINE`.
    pub offline: bool,
    /// Whether to show progress, which only a terminal gets to see. Off by `HF_HUB_DISABLE_PROGRESS_BARS`.
    pub progress: bool,
    /// Told of the progress of each file, often.
    pub listener: Option<ProgressListener>,
}

/// The token is not shown.
impl fmt::Debug for Settings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Settings")
            .field("endpoint", &self.endpoint)
            .field("cache", &self.cache)
            .field("token", &self.token.as_ref().map(|_| "…"))
            .field("offline", &self.offline)
            .field("progress", &self.progress)
            .finish_non_exhaustive()
    }
}

impl Settings {
    /// As the environment has it.
    #[must_use]
    pub fn from_environment() -> Self {
        Self::from_variables(|name| std::env::var(name).ok())
    }

    /// As `variable` has it, which gives the value of an environment variable.
    fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Self {
        // An empty variable is as good as none.
        let variable =
            |name: &str| variable(name).map(|value| value.trim().to_owned()).filter(|v| !v.is_empty());
        let folder = |name: &str| variable(name).map(|path| expand_home(&path, variable("HOME").as_deref()));
        let is_on = |name: &str| {
            variable(name)
                .is_some_and(|value| matches!(value.to_lowercase().as_str(), "1" | "true" | "yes" | "on"))
        };
        let user_cache = || match folder("XDG_CACHE_HOME") {
            Some(cache) => cache,
            None => {
                let home = variable("HOME").or_else(|| variable("USERPROFILE"));
                home.map_or_else(PathBuf::new, PathBuf::from).join(".cache")
            }
        };
        let home = folder("HF_HOME").unwrap_or_else(|| user_cache().join("huggingface"));
        let token_file = folder("HF_TOKEN_PATH").unwrap_or_else(|| home.join("token"));
        let token = variable("HF_TOKEN").or_else(|| variable("HUGGING_FACE_HUB_TOKEN"));
        let endpoint = variable("HF_ENDPOINT").unwrap_or_else(|| DEFAULT_ENDPOINT.to_owned());
        Self {
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            cache: folder("HF_HUB_CACHE")
                .or_else(|| folder("HUGGINGFACE_HUB_CACHE"))
                .unwrap_or_else(|| home.join("hub")),
            token: token.or_else(|| read_token(&token_file)),
            offline: is_on("HF_HUB_OFFLINE") || is_on("TRANSFORMERS_OFFLINE"),
            progress: !is_on("HF_HUB_DISABLE_PROGRESS_BARS"),
            listener: None,
        }
    }
}

fn expand_home(path: &str, home: Option<&str>) -> PathBuf {
    match (path.strip_prefix("~/"), home) {
        (Some(rest), Some(home)) => Path::new(home).join(rest),
        _ => PathBuf::from(path),
    }
}

/// A file of a token that cannot be read is as good as none: the hub will say that a login is needed.
fn read_token(path: &Path) -> Option<String> {
    if std::fs::metadata(path).ok()?.len() > MAXIMUM_TOKEN_BYTES {
        return None;
    }
    let token = std::fs::read_to_string(path).ok()?.trim().to_owned();
    Some(token).filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::Settings;

    fn settings(variables: &[(&str, &str)]) -> Settings {
        Settings::from_variables(|name| {
            variables.iter().find(|(other, _)| *other == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn variables_mean_what_they_mean_to_the_hubs_own_library() {
        let plain = settings(&[("HOME", "/nobody")]);
        assert_eq!(plain.cache, PathBuf::from("/nobody/.cache/huggingface/hub"));
        assert_eq!(plain.endpoint, "https://huggingface.co");
        assert!(!plain.offline && plain.progress && plain.token.is_none());
        assert_eq!(settings(&[("HF_HOME", "/h")]).cache, PathBuf::from("/h/hub"));
        assert_eq!(settings(&[("HF_HOME", "~/h"), ("HOME", "/n")]).cache, PathBuf::from("/n/h/hub"));
        assert_eq!(settings(&[("HF_HOME", "/h"), ("HF_HUB_CACHE", "/c")]).cache, PathBuf::from("/c"));
        assert_eq!(settings(&[("XDG_CACHE_HOME", "/x")]).cache, PathBuf::from("/x/huggingface/hub"));
        assert_eq!(settings(&[("HF_ENDPOINT", "http://mirror/")]).endpoint, "http://mirror");
        for (value, offline) in [("1", true), ("ON", true), ("true", true), ("0", false), ("", false)] {
            assert_eq!(settings(&[("HF_HUB_OFFLINE", value)]).offline, offline, "{value:?}");
        }
    }

    #[test]
    fn a_token_comes_from_the_variable_or_the_file_and_is_not_shown() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().to_str().unwrap();
        std::fs::write(folder.path().join("token"), "hf_file\n").unwrap();
        assert_eq!(settings(&[("HF_HOME", home)]).token.as_deref(), Some("hf_file"));
        let both = settings(&[("HF_HOME", home), ("HF_TOKEN", " hf_variable ")]);
        assert_eq!(both.token.as_deref(), Some("hf_variable"));
        assert!(!format!("{both:?}").contains("hf_"));
    }
}
