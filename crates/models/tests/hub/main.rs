//! Models from a hub, against a stand-in on this machine: the cache's layout, downloads and their mishaps, and what people
//! are told.

#![allow(clippy::unwrap_used)]

mod server;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use pellucid_models::hub::{ModelName, Settings, Snapshot, Wanted, fetch, fetch_files};
use pellucid_models::weights::Source;
use pellucid_models::{Error, ProgressListener};
use serde_json::json;
use server::{Answer, Request, Server};
use tempfile::TempDir;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// The bundled model's files, and some that are not needed.
fn files() -> BTreeMap<String, Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/tiny-gpt2/model");
    let mut files: BTreeMap<String, Vec<u8>> = ["config.json", "generation_config.json", "tokenizer.json"]
        .into_iter()
        .chain(["tokenizer_config.json", "model.safetensors"])
        .map(|name| (name.to_owned(), std::fs::read(folder.join(name)).unwrap()))
        .collect();
    for unneeded in ["README.md", "pytorch_model.bin", "onnx/model.onnx", "consolidated.safetensors"] {
        files.insert(unneeded.to_owned(), b"not needed".to_vec());
    }
    files
}

/// A hub that has `files` under the name `owner/model`.
struct Hub {
    files: BTreeMap<String, Vec<u8>>,
}

impl Hub {
    fn etag(file: &str) -> String {
        format!("etag-{}", file.replace(['.', '/'], "-"))
    }

    fn answer(&self, request: &Request) -> Answer {
        let path = request.path.as_str();
        if path.starts_with("/api/models/owner/model/revision/") {
            let siblings: Vec<_> = self.files.keys().map(|name| json!({ "rfilename": name })).collect();
            return Answer::new(200, json!({ "sha": COMMIT, "siblings": siblings }).to_string());
        }
        let Some(file) = path.strip_prefix(&format!("/owner/model/resolve/{COMMIT}/")) else {
            return Answer::new(404, "").with("x-error-code", "RepoNotFound");
        };
        let Some(content) = self.files.get(file) else {
            return Answer::new(404, "").with("x-error-code", "EntryNotFound");
        };
        let tagged = |answer: Answer| answer.with("etag", format!("\"{}\"", Self::etag(file)));
        match request.header("range") {
            None => tagged(Answer::new(200, content.clone())),
            Some(range) => {
                let start: usize = range.trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap();
                let range = format!("bytes {start}-{}/{}", content.len() - 1, content.len());
                tagged(Answer::new(206, &content[start..]).with("content-range", range))
            }
        }
    }
}

fn hub() -> Hub {
    Hub { files: files() }
}

fn serve(hub: Hub) -> Server {
    Server::start(move |request| hub.answer(request))
}

struct Cache {
    folder: TempDir,
}

impl Cache {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn settings(&self, endpoint: &str) -> Settings {
        Settings {
            endpoint: endpoint.to_owned(),
            cache: self.folder.path().to_owned(),
            token: None,
            offline: false,
            progress: true,
            listener: None,
        }
    }

    fn model(&self) -> PathBuf {
        self.folder.path().join("models--owner--model")
    }
}

fn name(text: &str) -> ModelName {
    text.parse().unwrap()
}

fn fetch_all(settings: &Settings) -> Result<Snapshot, Error> {
    fetch(&name("owner/model"), Wanted::Everything, settings)
}

fn message(result: Result<Snapshot, Error>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn a_model_is_downloaded_once_in_the_hubs_own_layout() {
    let (server, cache) = (serve(hub()), Cache::new());
    let settings = cache.settings(&server.address);
    let snapshot = fetch_all(&settings).unwrap();
    assert_eq!(snapshot.commit, COMMIT);
    assert_eq!(snapshot.folder, cache.model().join("snapshots").join(COMMIT));
    assert_eq!(std::fs::read_to_string(cache.model().join("refs/main")).unwrap(), COMMIT);
    let mut there: Vec<String> = std::fs::read_dir(&snapshot.folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    there.sort();
    let needed = [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ];
    assert_eq!(there, needed);
    for file in needed {
        let blob = cache.model().join("blobs").join(Hub::etag(file));
        assert_eq!(std::fs::read(&blob).unwrap(), files()[file]);
        #[cfg(unix)]
        {
            let target = std::fs::read_link(snapshot.folder.join(file)).unwrap();
            assert_eq!(target, Path::new("../../blobs").join(Hub::etag(file)));
        }
    }
    let blobs = std::fs::read_dir(cache.model().join("blobs")).unwrap().count();
    assert_eq!(blobs, needed.len(), "nothing half done is left");

    // The second time the hub is asked what `main` is, and nothing is downloaded.
    let before = server.requests().len();
    assert_eq!(fetch_all(&settings).unwrap(), snapshot);
    assert_eq!(server.requests().len(), before + 1);
    // A commit needs no asking at all.
    let commit = name(&format!("owner/model@{COMMIT}"));
    assert_eq!(fetch(&commit, Wanted::Everything, &settings).unwrap(), snapshot);
    assert_eq!(server.requests().len(), before + 1);
    // Nor does anything when offline.
    let offline = Settings { offline: true, ..settings };
    assert_eq!(fetch_all(&offline).unwrap(), snapshot);
    assert_eq!(server.requests().len(), before + 1);
}

#[test]
fn a_model_by_name_opens() {
    let (server, cache) = (serve(hub()), Cache::new());
    let settings = cache.settings(&server.address);
    let source = Source::parse("owner/model").unwrap();
    assert_eq!(source.config(&settings).unwrap()["model_type"], "gpt2");
    let paths: Vec<String> = server.requests().into_iter().map(|request| request.path).collect();
    assert!(paths.iter().all(|path| path.contains("/api/") || path.ends_with("/config.json")), "{paths:?}");

    let files = source.open(&settings).unwrap();
    assert_eq!((files.origin.as_str(), files.revision.as_deref()), ("owner/model", Some(COMMIT)));
    assert_eq!(files.name, "owner/model");
    assert_eq!(files.tokenizer.unwrap().vocab_size(), 2048);
    assert!(files.checkpoint.names().any(|name| name.ends_with("wte.weight")));
    assert!(files.generation_config.is_some() && files.chat_template.is_none());
}

#[test]
fn shards_are_those_of_the_index() {
    let mut hub = hub();
    let whole = hub.files.remove("model.safetensors").unwrap();
    let index = json!({ "weight_map": { "a": "model-1.safetensors", "b": "model-2.safetensors" } });
    hub.files.insert("model.safetensors.index.json".to_owned(), index.to_string().into_bytes());
    hub.files.insert("model-1.safetensors".to_owned(), whole.clone());
    hub.files.insert("model-2.safetensors".to_owned(), whole);
    let (server, cache) = (serve(hub), Cache::new());
    let snapshot = fetch_all(&cache.settings(&server.address)).unwrap();
    assert!(snapshot.folder.join("model-2.safetensors").is_file());
    assert!(!snapshot.folder.join("consolidated.safetensors").exists());
}

#[test]
fn a_broken_download_goes_on_where_it_ended() {
    let hub = hub();
    let content = hub.files["model.safetensors"].clone();
    let breaks = Arc::new(AtomicUsize::new(3));
    let server = Server::start(move |request| {
        let answer = hub.answer(request);
        let is_weights = request.method == "GET" && request.path.ends_with("/model.safetensors");
        if is_weights && breaks.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok()
        {
            return Answer { send_only: Some(answer.body.len() / 2), ..answer };
        }
        answer
    });
    let cache = Cache::new();
    let told = Arc::new(Mutex::new(Vec::new()));
    let listener: ProgressListener = {
        let told = told.clone();
        Arc::new(move |now| {
            if now.what == "model.safetensors" {
                told.lock().unwrap().push((now.done as usize, now.total));
            }
        })
    };
    let settings = Settings { listener: Some(listener), ..cache.settings(&server.address) };
    let snapshot = fetch_all(&settings).unwrap();
    assert_eq!(std::fs::read(snapshot.folder.join("model.safetensors")).unwrap(), content);
    let told = told.lock().unwrap();
    assert!(told.is_sorted() && told.contains(&(content.len() / 2, Some(content.len() as u64))), "{told:?}");
    assert_eq!(told.last().unwrap().0, content.len());
    let ranges: Vec<Option<String>> = server
        .requests()
        .iter()
        .filter(|request| request.method == "GET" && request.path.ends_with("/model.safetensors"))
        .map(|request| request.header("range").map(str::to_owned))
        .collect();
    assert_eq!(ranges.len(), 4);
    assert_eq!(ranges[0], None);
    assert_eq!(ranges[1], Some(format!("bytes={}-", content.len() / 2)));
}

#[test]
fn a_later_run_goes_on_where_an_earlier_one_ended() {
    for ranges_are_done in [true, false] {
        let hub = hub();
        let content = hub.files["model.safetensors"].clone();
        let server = Server::start(move |request| {
            let mut request = request.clone();
            if !ranges_are_done {
                request.headers.remove("range");
            }
            hub.answer(&request)
        });
        let cache = Cache::new();
        let blobs = cache.model().join("blobs");
        std::fs::create_dir_all(&blobs).unwrap();
        // The other half is of another content, which shows whether it was kept.
        let mut half = content[..content.len() / 3].to_vec();
        half[0] ^= 1;
        std::fs::write(blobs.join(format!("{}.incomplete", Hub::etag("model.safetensors"))), half).unwrap();
        let snapshot = fetch_all(&cache.settings(&server.address)).unwrap();
        let came = std::fs::read(snapshot.folder.join("model.safetensors")).unwrap();
        assert_eq!(came.len(), content.len());
        assert_eq!(came[0] != content[0], ranges_are_done);
        assert_eq!(came[1..], content[1..]);
    }
}

#[test]
fn a_download_that_gains_nothing_is_given_up_with_what_to_do() {
    let hub = hub();
    let server = Server::start(move |request| {
        let answer = hub.answer(request);
        match request.method == "GET" && request.path.ends_with("/model.safetensors") {
            true => Answer { send_only: Some(0), ..answer },
            false => answer,
        }
    });
    let cache = Cache::new();
    let message = message(fetch_all(&cache.settings(&server.address)));
    assert!(message.contains("model.safetensors broke off"), "{message}");
    assert!(message.contains("goes on where it ended"), "{message}");
    assert!(!cache.model().join("refs/main").exists());
}

#[test]
fn redirects_are_followed_and_the_token_stays_at_home() {
    let hub = Arc::new(hub());
    let content = Arc::clone(&hub);
    let store = Server::start(move |request| {
        let file = request.path.trim_start_matches("/store/");
        match request.header("range") {
            None => Answer::new(200, content.files[file].clone()),
            Some(_) => Answer::new(500, ""),
        }
    });
    let at = store.address.clone();
    let server = Server::start(move |request| {
        // Renamed: the hub sends on within itself.
        if let Some(rest) = request.path.strip_prefix("/api/models/owner/old/") {
            return Answer::new(307, "").with("location", format!("/api/models/owner/model/{rest}"));
        }
        if let Some(rest) = request.path.strip_prefix("/owner/old/") {
            return Answer::new(307, "").with("location", format!("/owner/model/{rest}"));
        }
        let answer = hub.answer(request);
        match request.path.ends_with("/model.safetensors") {
            // Large files are elsewhere.
            true => Answer::new(302, "elsewhere")
                .with("location", format!("{at}/store/model.safetensors"))
                .with("x-linked-etag", "\"large\"")
                .with("x-linked-size", answer.body.len().to_string())
                .with("etag", "\"the-redirects-own\""),
            false => answer,
        }
    });
    let cache = Cache::new();
    let settings = Settings { token: Some("hf_secret".to_owned()), ..cache.settings(&server.address) };
    let snapshot = fetch(&name("owner/old"), Wanted::Everything, &settings).unwrap();
    assert_eq!(
        std::fs::read(snapshot.folder.join("model.safetensors")).unwrap(),
        files()["model.safetensors"]
    );
    assert!(cache.folder.path().join("models--owner--old/blobs/large").is_file());
    assert!(server.requests().iter().all(|r| r.header("authorization") == Some("Bearer hf_secret")));
    assert!(!store.requests().is_empty());
    assert!(store.requests().iter().all(|request| request.header("authorization").is_none()));
}

#[test]
fn what_a_hub_refuses_is_said_with_what_to_do() {
    let refusal = |status: u16, code: &'static str, token: Option<&str>| {
        let server = Server::start(move |_| Answer::new(status, "").with("x-error-code", code));
        let cache = Cache::new();
        let settings = Settings { token: token.map(str::to_owned), ..cache.settings(&server.address) };
        message(fetch(&name("owner/model@v2"), Wanted::Everything, &settings))
    };
    let cases = [
        (401, "", None, "set HF_TOKEN"),
        (401, "RepoNotFound", None, "no such model, or it is private"),
        (401, "", Some("hf_x"), "the token in use"),
        (403, "GatedRepo", Some("hf_x"), "accept them at"),
        (404, "RepoNotFound", None, "has no such model"),
        (404, "RevisionNotFound", None, "no revision `v2`"),
        (503, "", None, "cannot be reached (it answers 503"),
    ];
    for (status, code, token, expected) in cases {
        let message = refusal(status, code, token);
        assert!(
            message.starts_with("owner/model@v2: ") && message.contains(expected),
            "{status} {code}: {message}"
        );
        assert!(!message.contains("hf_x"), "{message}");
    }
}

#[test]
fn without_network_the_cache_serves_and_else_it_is_said() {
    let cache = Cache::new();
    let offline = Settings { offline: true, ..cache.settings("http://127.0.0.1:1") };
    let text = message(fetch_all(&offline));
    assert!(text.contains("not in the cache") && text.contains("unset HF_HUB_OFFLINE"), "{text}");
    let nobody = cache.settings("http://127.0.0.1:1");
    let text = message(fetch_all(&nobody));
    assert!(text.contains("cannot be reached") && text.contains("not in the cache"), "{text}");

    let server = serve(hub());
    fetch(&name("owner/model"), Wanted::Configuration, &cache.settings(&server.address)).unwrap();
    let text = message(fetch_all(&offline));
    assert!(text.contains("only partly in the cache"), "{text}");
    fetch(&name("owner/model"), Wanted::Configuration, &offline).unwrap();

    fetch_all(&cache.settings(&server.address)).unwrap();
    assert!(fetch_all(&nobody).unwrap().unreachable.is_some());
    assert!(fetch_all(&offline).unwrap().unreachable.is_none());
}

#[test]
fn a_repository_without_what_is_needed_says_what_it_has() {
    let with = |files: &[&str]| {
        let files = files.iter().map(|file| ((*file).to_owned(), b"{}".to_vec())).collect();
        let server = serve(Hub { files });
        message(fetch_all(&Cache::new().settings(&server.address)))
    };
    assert!(with(&["config.json", "pytorch_model.bin"]).contains("pickled"));
    assert!(with(&["model.Q4_0.gguf"]).contains("has GGUF files"));
    assert!(with(&["config.json"]).contains("no weights in safetensors"));
}

#[test]
fn a_hostile_hub_writes_nowhere_else() {
    let attempt = |commit: &'static str, etag: &'static str, index: &'static str| {
        let server = Server::start(move |request| {
            if request.path.contains("/api/") {
                let files = ["config.json", "../../evil", "model.safetensors.index.json"];
                let siblings: Vec<_> = files.iter().map(|file| json!({ "rfilename": file })).collect();
                return Answer::new(200, json!({ "sha": commit, "siblings": siblings }).to_string());
            }
            let body = if request.path.ends_with("index.json") { index } else { "{}" };
            Answer::new(200, body).with("etag", etag.replace("PATH", &request.path.len().to_string()))
        });
        let cache = Cache::new();
        let text = message(fetch_all(&cache.settings(&server.address)));
        assert!(!cache.folder.path().join("evil").exists() && !cache.model().join("evil").exists());
        text
    };
    assert!(attempt("../../../evil", "\"a\"", "{}").contains("names a commit that is none"));
    assert!(attempt(COMMIT, "\"../../evil\"", "{}").contains("no entity tag"));
    assert!(attempt(COMMIT, "", "{}").contains("no entity tag"));
    let outside = r#"{"weight_map": {"a": "../../evil"}}"#;
    assert!(attempt(COMMIT, "\"PATH\"", outside).contains("not a file name"));
    // A reference in the cache that is no commit is none.
    let cache = Cache::new();
    std::fs::create_dir_all(cache.model().join("refs")).unwrap();
    std::fs::write(cache.model().join("refs/main"), "../../..").unwrap();
    let offline = Settings { offline: true, ..cache.settings("http://127.0.0.1:1") };
    assert!(message(fetch_all(&offline)).contains("not in the cache"));
}

#[test]
fn two_at_once_download_once() {
    let (server, cache) = (serve(hub()), Cache::new());
    let settings = cache.settings(&server.address);
    std::thread::scope(|scope| {
        let both: Vec<_> = (0..2).map(|_| scope.spawn(|| fetch_all(&settings).unwrap())).collect();
        for one in both {
            assert!(one.join().unwrap().folder.join("model.safetensors").is_file());
        }
    });
    let downloads = server
        .requests()
        .iter()
        .filter(|request| request.method == "GET" && request.path.ends_with("/model.safetensors"))
        .count();
    assert_eq!(downloads, 1);
}

#[test]
fn chosen_files_come_from_a_repositorys_folders_and_nothing_else_does() {
    let mut hub = hub();
    let file = "blocks.1.x/cfg.json".to_owned();
    hub.files.insert(file.clone(), b"{}".to_vec());
    let (server, cache) = (serve(hub), Cache::new());
    let settings = cache.settings(&server.address);
    let get =
        |file: &str, settings: &Settings| fetch_files(&name("owner/model"), &[file.to_owned()], settings);
    let snapshot = get(&file, &settings).unwrap();
    let path = snapshot.folder.join(&file);
    assert_eq!(std::fs::read(&path).unwrap(), b"{}");
    let blobs = cache.model().join("blobs").canonicalize().unwrap();
    assert!(path.canonicalize().unwrap().starts_with(blobs), "a link into the cache's blobs");
    assert!(!snapshot.folder.join("model.safetensors").exists());
    let offline = Settings { offline: true, ..settings.clone() };
    assert_eq!(get(&file, &offline).unwrap(), snapshot);
    let missing = message(get("blocks.1.x/cfg.jsn", &settings));
    assert!(missing.contains("has no blocks.1.x/cfg.jsn; it has blocks.1.x/cfg.json"), "{missing}");
}
