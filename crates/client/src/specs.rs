//! Specifications of models, kept on disk: they are asked for by their `ETag`, and fetched only when they have changed.

use std::fs;
use std::path::{Path, PathBuf};

use pellucid_graph::ModelSpec;
use serde::{Deserialize, Serialize};
use ureq::http::StatusCode;

use crate::address::escape;
use crate::error::Result;
use crate::retry::Watch;
use crate::send::{Request, Sender};

#[derive(Serialize, Deserialize)]
struct Kept {
    etag: String,
    spec: ModelSpec,
}

/// The user's folder for what can be made again.
pub(crate) fn default_cache() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = || set("HOME").or_else(|| set("USERPROFILE")).map(|home| home.join(".cache"));
    let folder = set("XDG_CACHE_HOME").filter(|path| path.is_absolute()).or_else(home)?;
    Some(folder.join("pellucid").join("specifications"))
}

pub(crate) fn fetch(sender: &Sender, path: &str, model: &str, cache: Option<&Path>) -> Result<ModelSpec> {
    let file = cache.map(|cache| file(cache, sender, model));
    // What cannot be read is as good as not there.
    let read = |file: &PathBuf| serde_json::from_slice::<Kept>(&fs::read(file).ok()?).ok();
    let kept = file.as_ref().and_then(read);
    let mut request = Request::get(path);
    if let Some(kept) = &kept {
        request = request.header("if-none-match", kept.etag.clone());
    }
    let fetched = sender.send(&request, &mut Watch::new(None, &mut |_, _| {}), |answer| {
        let etag = answer.headers().get("etag").and_then(|etag| etag.to_str().ok()).map(str::to_owned);
        if answer.status() == StatusCode::NOT_MODIFIED {
            return Ok(None);
        }
        Ok(Some((etag, sender.read_json::<ModelSpec>(answer)?)))
    })?;
    match (fetched, kept) {
        (Some((Some(etag), spec)), _) => {
            let kept = Kept { etag, spec };
            if let Some(file) = &file {
                // A cache that cannot be written only costs another fetch.
                let _ = keep(file, &kept);
            }
            Ok(kept.spec)
        }
        (Some((None, spec)), _) => Ok(spec),
        (None, Some(kept)) => Ok(kept.spec),
        (None, None) => Err(sender.protocol("HTTP 304 to a request without a condition".to_owned())),
    }
}

fn file(cache: &Path, sender: &Sender, model: &str) -> PathBuf {
    cache.join(escape(sender.address.as_str())).join(format!("{}.json", escape(model)))
}

/// Written beside and renamed: another process sees the whole file or none.
fn keep(file: &Path, kept: &Kept) -> std::io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let beside = tempfile::NamedTempFile::new_in(folder)?;
    serde_json::to_writer(beside.as_file(), kept)?;
    beside.persist(file)?;
    Ok(())
}
