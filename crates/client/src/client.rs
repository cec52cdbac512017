//! The client: one method for each route.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pellucid_graph::ModelSpec;
use ureq::http::Method;

use crate::address::{Address, escape};
use crate::api::{self, *};
use crate::download::Download;
use crate::error::Result;
use crate::events::Events;
use crate::retry::Watch;
use crate::send::{Request, Sender};
use crate::specs;

/// Where a service is, which key it takes, and how long is to be waited for it.
#[derive(Clone)]
pub struct Options {
    /// Its address.
    pub address: String,
    /// The key; none: the service needs none.
    pub key: Option<String>,
    /// How long something that fails is tried again, from when it first failed: connections that are cut, a service that is being
    /// restarted or has too much to do. 60 seconds by default.
    pub patience: Duration,
    /// Whether the key may go to another machine unencrypted.
    pub plain_http: bool,
    /// A PEM file of certificates that are trusted instead of the public ones.
    pub certificates: Option<PathBuf>,
    /// The folder in which models' specifications are kept, so that they are fetched only when they have changed.
    pub cache: Option<PathBuf>,
    /// The trace that requests belong to, as the header `traceparent` names it (W3C Trace Context): the service goes on with it. One
    /// that is none is not sent.
    pub traceparent: Option<String>,
}

impl Options {
    /// For the service at that address, without a key.
    pub fn new(address: impl Into<String>) -> Options {
        Options {
            address: address.into(),
            key: None,
            patience: Duration::from_secs(60),
            plain_http: false,
            certificates: None,
            cache: specs::default_cache(),
            traceparent: None,
        }
    }

    /// The options with a key.
    #[must_use]
    pub fn key(mut self, key: impl Into<String>) -> Options {
        self.key = Some(key.into());
        self
    }

    /// The options with that patience.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Options {
        self.patience = patience;
        self
    }
}

impl fmt::Debug for Options {
    /// Without the key.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Options")
            .field("address", &self.address)
            .field("key", &self.key.as_ref().map(|_| "…"))
            .field("patience", &self.patience)
            .finish_non_exhaustive()
    }
}

/// A service, as it is seen from here. A clone shares its connections; it can be used by several threads at once.
#[derive(Clone)]
pub struct Client {
    pub(crate) sender: Arc<Sender>,
    cache: Option<PathBuf>,
}

impl fmt::Debug for Client {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Client").field("address", self.address()).finish_non_exhaustive()
    }
}

impl Client {
    /// A client of the service. Nothing is sent yet.
    ///
    /// # Errors
    /// [`Error::Address`](crate::Error::Address) where that is no address; [`Error::PlainHttp`](crate::Error::PlainHttp) where the
    /// key would go to another machine unencrypted; a file of certificates that cannot be read.
    pub fn new(options: &Options) -> Result<Client> {
        Ok(Client { sender: Arc::new(Sender::new(options)?), cache: options.cache.clone() })
    }

    /// The service's address.
    pub fn address(&self) -> &Address {
        &self.sender.address
    }

    /// Sends a request whose answer is JSON.
    fn json<T: serde::de::DeserializeOwned>(&self, request: &Request<'_>) -> Result<T> {
        self.sender.json(request, &mut Watch::new(None, &mut |_, _| {}))
    }

    /// A job.
    ///
    /// # Errors
    /// [`Error`](crate::Error): the service cannot be reached, or knows no such job of one's own.
    pub fn job(&self, id: &str) -> Result<Job> {
        self.json(&Request::get(job_path(id)))
    }

    /// A job, when it has ended, or after so many seconds, at most [`MAXIMUM_WAIT_SECONDS`].
    ///
    /// # Errors
    /// Those of [`Client::job`].
    pub fn job_waiting(&self, id: &str, seconds: u64) -> Result<Job> {
        self.json(&Request::get(job_path(id)).waiting(seconds.min(MAXIMUM_WAIT_SECONDS)))
    }

    /// One's own jobs, the newest first.
    ///
    /// # Errors
    /// [`Error`](crate::Error).
    pub fn jobs(&self, query: &JobQuery) -> Result<JobList> {
        self.json(&Request::get("/v1/jobs").query(query))
    }

    /// Cancels a job, where it has not ended, and gives it as it is then. One that runs may take until its next pass to end.
    ///
    /// # Errors
    /// Those of [`Client::job`].
    pub fn cancel(&self, id: &str) -> Result<Job> {
        self.json(&Request::new(Method::DELETE, job_path(id)))
    }

    /// Cancels a job, and has its program, its result and its logs erased.
    ///
    /// # Errors
    /// Those of [`Client::job`].
    pub fn erase(&self, id: &str) -> Result<()> {
        let request = Request::new(Method::DELETE, job_path(id)).query(&Removal { erase: true });
        self.sender.send(&request, &mut Watch::new(None, &mut |_, _| {}), |_| Ok(()))
    }

    /// What happens to a job, from the beginning.
    pub fn events(&self, id: &str) -> Events {
        Events::new(self.sender.clone(), id)
    }

    /// A job's result, which is fetched as it is read.
    ///
    /// # Errors
    /// A job that has no result: a problem of the kind [`ProblemKind::NotFinished`] or [`ProblemKind::NoResult`].
    pub fn result(&self, job: &Job) -> Result<Download> {
        match &job.result {
            Some(result) => Ok(Download::new(self.sender.clone(), &job.id, result)),
            None => {
                let (kind, why) = if job.state.is_final() {
                    (ProblemKind::NoResult, "it saved nothing, or its result has been deleted")
                } else {
                    (ProblemKind::NotFinished, "it has not ended")
                };
                let problem = Problem::new(kind, format!("{} has no result: {why}.", job.id));
                let address = self.address().to_string();
                Err(crate::Error::Refused { address, problem: Box::new(problem) })
            }
        }
    }

    /// What a program would compute where, and at what price. Nothing runs.
    ///
    /// # Errors
    /// [`Error::Refused`](crate::Error::Refused) with all that is wrong with the program.
    pub fn explain(&self, program: &[u8], model: Option<&str>) -> Result<api::Explanation> {
        let query = ExplainQuery { model: model.map(str::to_owned) };
        self.json(&Request::new(Method::POST, "/v1/explain").query(&query).body(media_type(program), program))
    }

    /// The token ids of texts.
    ///
    /// # Errors
    /// [`Error`](crate::Error): no such model, or it has no tokenizer, or no chat template.
    pub fn encode(&self, request: &EncodeRequest) -> Result<EncodeResponse> {
        let body = self.body(request)?;
        self.json(&Request::new(Method::POST, "/v1/encode").body(JSON, &body))
    }

    /// The texts of token ids.
    ///
    /// # Errors
    /// [`Error`](crate::Error): no such model, or it has no tokenizer.
    pub fn decode(&self, request: &DecodeRequest) -> Result<DecodeResponse> {
        let body = self.body(request)?;
        self.json(&Request::new(Method::POST, "/v1/decode").body(JSON, &body))
    }

    fn body(&self, request: &impl serde::Serialize) -> Result<Vec<u8>> {
        serde_json::to_vec(request).map_err(|error| self.sender.protocol(error.to_string()))
    }

    /// The models that one may use.
    ///
    /// # Errors
    /// [`Error`](crate::Error).
    pub fn models(&self) -> Result<ModelList> {
        self.json(&Request::get("/v1/models"))
    }

    /// What a model publishes of itself. It is kept, and fetched again only when it has changed.
    ///
    /// # Errors
    /// [`Error`](crate::Error): no such model, with the nearest names.
    pub fn spec(&self, model: &str) -> Result<ModelSpec> {
        let path: Vec<String> = model.split('/').map(escape).collect();
        specs::fetch(&self.sender, &format!("/v1/models/{}", path.join("/")), model, self.cache.as_deref())
    }

    /// The account that the key belongs to: what it may use, and has used.
    ///
    /// # Errors
    /// [`Error`](crate::Error): no such key.
    pub fn account(&self) -> Result<Account> {
        self.json(&Request::get("/v1/account"))
    }

    /// What the account has used, day by day.
    ///
    /// # Errors
    /// [`Error`](crate::Error).
    pub fn usage(&self, query: &UsageQuery) -> Result<UsageReport> {
        self.json(&Request::get("/v1/usage").query(query))
    }

    /// How the service is.
    ///
    /// # Errors
    /// [`Error`](crate::Error).
    pub fn status(&self) -> Result<ServiceStatus> {
        self.json(&Request::get("/v1/status"))
    }
}

pub(crate) fn job_path(id: &str) -> String {
    format!("/v1/jobs/{}", escape(id))
}

/// The type of a program's bytes: JSON, or a safetensors file, which begins with its header's length.
pub(crate) fn media_type(program: &[u8]) -> &'static str {
    let first = program.iter().find(|byte| !byte.is_ascii_whitespace());
    if first == Some(&b'{') && program.get(7) != Some(&0) { JSON } else { SAFETENSORS }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_told_apart_as_the_wire_does_it() {
        assert_eq!(media_type(br#" { "pellucid": 1 }"#), JSON);
        // A header of 123 bytes, whose length begins with a `{`.
        assert_eq!(media_type(b"{\0\0\0\0\0\0\0{\"__metadata__\""), SAFETENSORS);
        assert_eq!(media_type(b""), SAFETENSORS);
    }

    #[test]
    fn keys_are_not_told() {
        let options = Options::new("https://a").key("pellucid_secret");
        assert!(!format!("{options:?}").contains("secret"));
        assert!(!format!("{:?}", Client::new(&options).unwrap()).contains("secret"));
    }

    #[test]
    fn keys_do_not_go_to_other_machines_unencrypted() {
        let open = |address: &str| Client::new(&Options::new(address).key("pellucid_k"));
        assert!(open("https://a").is_ok() && open("http://127.0.0.1:1").is_ok());
        let error = open("http://a").unwrap_err().to_string();
        assert!(error.contains("unencrypted") && error.contains("hint: use https://"), "{error}");
        assert!(Client::new(&Options { plain_http: true, ..Options::new("http://a").key("k") }).is_ok());
        assert!(open("https://a").is_ok());
        assert!(Client::new(&Options::new("https://a").key("a\r\nX: y")).is_err());
    }
}
