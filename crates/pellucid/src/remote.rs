//! Models that a service holds: the same programs, run there.

mod files;
mod jobs;
mod listeners;
mod tokens;

use std::fmt;
use std::io::BufReader;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pellucid_client::api::{DecodeRequest, EncodeRequest, JobState, Priority, Problem, ProblemKind};
use pellucid_client::{Client, Download, Ended, config};
use pellucid_engine::{EngineError, Explanation, Results as Inner, RunOptions};
use pellucid_graph::check::{self, CheckedProgram, Price, SpecIndex};
use pellucid_graph::fault::{Fault, Faults};
use pellucid_graph::{ModelSpec, Program, expand};

use crate::error::{Error, Result};
use crate::model::{Model, Place};
use crate::results::Results;
use files::Files;
use listeners::Listeners;
use tokens::Tokens;

pub use pellucid_client::Update;

/// Called with what happens to a run at a service: its place in the queue, how far it is, connections that are made again.
pub type OnUpdate = Arc<dyn Fn(&Update) + Send + Sync>;

/// How a model at a service is used.
#[derive(Clone, Default)]
pub struct RemoteOptions {
    /// The key; none: the one that is set up, by `pellucid login` or `PELLUCID_API_KEY`.
    pub key: Option<String>,
    /// Called on the thread that runs a program, with what happens to its run.
    pub on_update: Option<OnUpdate>,
    /// The place of its jobs among those of the same account.
    pub priority: Option<Priority>,
    /// The name of its jobs for people.
    pub label: Option<String>,
    /// How long what fails is tried again; none: as it is set up, 60 seconds by default.
    pub patience: Option<Duration>,
}

impl fmt::Debug for RemoteOptions {
    /// Without the key.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RemoteOptions { priority, label, patience, .. } = self;
        let mut shown = formatter.debug_struct("RemoteOptions");
        shown.field("priority", priority).field("label", label).field("patience", patience);
        shown.finish_non_exhaustive()
    }
}

/// A service: models that it holds, and programs that run there.
///
/// ```no_run
/// use pellucid::{Program, RunOptions, Service};
///
/// # fn main() -> pellucid::Result<()> {
/// let service = Service::at("https://models.example.org")?;
/// let program = Program::from_bytes(&std::fs::read("experiment.json").unwrap_or_default())?;
/// let results = service.run(None, &program, &RunOptions::default())?;
/// println!("{:?}", results.names().collect::<Vec<_>>());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Service {
    client: Client,
    options: RemoteOptions,
}

/// A model at a service.
pub(crate) struct Remote {
    service: Service,
    id: String,
    pub spec: Arc<ModelSpec>,
    /// Texts that were tokenised there.
    tokens: Arc<Tokens>,
}

impl Model {
    /// A model that a service holds, by its name there. Nothing is loaded but what it publishes of itself; traces are written as
    /// for a model in this process, and run there, with the same results bit for bit.
    ///
    /// ```no_run
    /// use pellucid::{Model, s};
    ///
    /// # fn main() -> pellucid::Result<()> {
    /// let model = Model::remote("https://models.example.org", "openai-community/gpt2")?;
    /// let trace = model.trace();
    /// trace.invoke("The Eiffel Tower is in the city of").logits().index(s![0, -1]).argmax(..).save("token");
    /// println!("{}", model.decode(&[trace.run()?["token"].to_vec_i64()?[0] as u32])?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Remote`]: the service cannot be reached, takes no such key, or has no such model.
    pub fn remote(address: &str, name: &str) -> Result<Model> {
        Model::remote_with(address, name, &RemoteOptions::default())
    }

    /// [`Model::remote`], with a key, or a listener for the place in the queue.
    ///
    /// # Errors
    /// Those of [`Model::remote`].
    pub fn remote_with(address: &str, name: &str, options: &RemoteOptions) -> Result<Model> {
        Service::with(address, options)?.model(name)
    }
}

impl Service {
    /// The service at an address, with the key that is set up for it. Nothing is sent yet.
    ///
    /// # Errors
    /// [`Error::Remote`]: that is no address, or what is set up cannot be read.
    pub fn at(address: &str) -> Result<Service> {
        Service::with(address, &RemoteOptions::default())
    }

    /// [`Service::at`], with a key, or a listener for the place in the queue.
    ///
    /// # Errors
    /// Those of [`Service::at`].
    pub fn with(address: &str, options: &RemoteOptions) -> Result<Service> {
        let mut access = config::options(address)?;
        access.key = options.key.clone().or(access.key);
        access.patience = options.patience.unwrap_or(access.patience);
        Ok(Service { client: Client::new(&access)?, options: options.clone() })
    }

    /// The client that speaks to it: jobs, models, the account.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// A model that it holds: see [`Model::remote`].
    ///
    /// # Errors
    /// Those of [`Model::remote`].
    pub fn model(&self, name: &str) -> Result<Model> {
        let spec = self.client.spec(name)?;
        let (service, id) = (self.clone(), name.to_owned());
        let remote = Remote { service, id, spec: Arc::new(spec), tokens: Arc::default() };
        Ok(Model::at(Place::There(Arc::new(remote))))
    }

    /// Checks a program and says what it would compute where, and at what price. Nothing runs. Without a model it is that which
    /// the program names, or the service's default.
    ///
    /// # Errors
    /// [`Error::Faults`]: everything that is wrong with it; [`Error::Remote`].
    pub fn explain(&self, model: Option<&str>, program: &Program) -> Result<Explanation> {
        let files = Files::of(program);
        let bytes = files.without_folders(program).to_bytes()?;
        let answer = self.client.explain(&bytes, model).map_err(|error| files.restored(error))?;
        let passes: serde_json::Result<Vec<_>> =
            answer.passes.into_iter().map(serde_json::from_value).collect();
        let passes = passes.map_err(|error| self.protocol(error.to_string()))?;
        let models: serde_json::Result<Vec<_>> =
            answer.models.into_iter().map(serde_json::from_value).collect();
        let models = models.map_err(|error| self.protocol(error.to_string()))?;
        let price = answer.price;
        Ok(Explanation {
            model: answer.model,
            price: Price {
                flops: price.flops,
                peak_bytes: price.peak_bytes,
                kept_bytes: price.kept_bytes,
                recomputed_flops: price.recomputed_flops,
                result_bytes: price.result_bytes,
                tokens: price.tokens,
                nodes: price.nodes,
                // What of them takes its time whatever the model is not told.
                own_flops: 0,
            },
            kept_at_most: answer.kept_at_most,
            cached_tokens: answer.cached_tokens,
            passes,
            nodes: (answer.nodes.0 as usize, answer.nodes.1 as usize),
            dropped: answer.dropped.into_iter().map(|(name, nodes)| (name, nodes as usize)).collect(),
            models,
            measured: None,
        })
    }

    /// Runs a program. Without a model it is that which the program names, or the service's default. Of the options, the time
    /// that it may take begins when the service takes it; the bound on memory is the service's own.
    ///
    /// # Errors
    /// [`Error::Faults`]: everything that is wrong with it; [`Error::Run`] where an operation fails on its values, or a bound
    /// is reached; [`Error::Remote`] where the service cannot be reached, or refuses.
    pub fn run(&self, model: Option<&str>, program: &Program, options: &RunOptions) -> Result<Results> {
        self.run_into(model, program, options, None)
    }

    /// [`Service::run`]; what comes back is written to a file as it comes, and read from there when it is whole. Whoever wants the file
    /// alone, without the values in memory, submits the program and follows the job: [`Client::follow`], [`Download::save`].
    ///
    /// # Errors
    /// Those of [`Service::run`], and [`Error::File`].
    pub fn run_to(
        &self,
        model: Option<&str>,
        program: &Program,
        options: &RunOptions,
        path: impl AsRef<Path>,
    ) -> Result<Results> {
        self.run_into(model, program, options, Some(path.as_ref()))
    }

    fn run_into(
        &self,
        model: Option<&str>,
        program: &Program,
        options: &RunOptions,
        path: Option<&Path>,
    ) -> Result<Results> {
        let files = Files::of(program);
        let bytes = files.without_folders(program).to_bytes()?;
        let submission = self.submission(model, options.seconds);
        let mut listeners = Listeners::new(options);
        let cancel = options.cancel.as_ref();
        let ended = if self.options.on_update.is_none() && !listeners.would_hear(program) {
            self.client.run_quietly(&bytes, &submission, cancel)
        } else {
            let mut updates = |update: Update| {
                if let Update::Happened(event) = &update {
                    listeners.hear(event);
                }
                if let Some(on_update) = &self.options.on_update {
                    on_update(&update);
                }
            };
            self.client.run(&bytes, &submission, &mut updates, cancel)
        };
        let ended = ended.map_err(|error| files.restored(error))?;
        let outcome = self.outcome(ended, &files, options, path);
        match &outcome {
            Ok(results) => listeners.hear_the_rest(results),
            Err(Error::Run(failure)) => listeners.hear_the_rest(&failure.kept),
            Err(_) => {}
        }
        outcome
    }

    /// What a run came to, as if it had been here.
    fn outcome(
        &self,
        ended: Ended,
        files: &Files,
        options: &RunOptions,
        path: Option<&Path>,
    ) -> Result<Results> {
        let state = ended.state();
        let problem = ended.job.and_then(|job| job.error).map(|problem| files.restored_in(problem));
        match (state, ended.result) {
            (JobState::Succeeded, Some(download)) => {
                if let Some(path) = path {
                    download.save(path)?;
                    return Results::load(path);
                }
                Ok(Results::new(self.read(download)?))
            }
            (JobState::Succeeded, None) => {
                Err(self.refused(Problem::new(ProblemKind::Gone, "The result has been deleted already.")))
            }
            (JobState::Cancelled, kept) => {
                let kept = kept.map(|kept| self.read(kept)).transpose()?;
                let trace = problem.and_then(|problem| problem.trace);
                Err(failure(EngineError::Cancelled, trace, kept))
            }
            (_, kept) => {
                let kept = kept.map(|kept| self.read(kept)).transpose()?;
                let problem = problem.unwrap_or_else(|| {
                    Problem::new(ProblemKind::Internal, "The job failed without a reason.")
                });
                match engine_error(&problem, options) {
                    Some(error) => Err(failure(error, problem.trace, kept)),
                    None => Err(self.refused(problem)),
                }
            }
        }
    }

    /// Reads a result as it comes, tensor by tensor.
    fn read(&self, download: Download) -> Result<Inner> {
        let (job, length) = (download.job().to_owned(), download.length());
        let results = Inner::from_safetensors(BufReader::with_capacity(1 << 16, download));
        results.map_err(|error| match error.downcast::<pellucid_client::Error>() {
            Ok(error) => error.into(),
            Err(error) => self.protocol(format!("the result of {job} ({length} bytes): {error}")),
        })
    }

    fn refused(&self, problem: Problem) -> Error {
        let (address, problem) = (self.client.address().to_string(), Box::new(problem));
        pellucid_client::Error::Refused { address, problem }.into()
    }

    fn protocol(&self, reason: String) -> Error {
        pellucid_client::Error::Protocol { address: self.client.address().to_string(), reason }.into()
    }
}

impl Remote {
    /// The same, whose runs are told to someone else.
    pub fn telling(&self, on_update: OnUpdate) -> Remote {
        let Remote { service, id, spec, tokens } = self;
        Remote {
            service: service.telling(on_update),
            id: id.clone(),
            spec: spec.clone(),
            tokens: tokens.clone(),
        }
    }

    /// Checks a program against what the model publishes. Texts are tokenised only there: lengths are not known yet.
    pub fn check(&self, program: Program) -> Result<CheckedProgram> {
        let index = SpecIndex::new(&self.spec);
        Ok(check::check(expand::expand(program, &index)?, &index)?)
    }

    pub fn encode(&self, text: &str, special_tokens: bool, chat: bool) -> Result<Vec<u32>> {
        let (model, texts) = (Some(self.id.clone()), vec![text.to_owned()]);
        let answer = self.service.client.encode(&EncodeRequest { model, texts, special_tokens, chat })?;
        Ok(answer.tokens.into_iter().next().unwrap_or_default())
    }

    pub fn decode(&self, tokens: &[u32]) -> Result<String> {
        let (model, tokens) = (Some(self.id.clone()), vec![tokens.to_vec()]);
        let answer = self.service.client.decode(&DecodeRequest { model, tokens })?;
        Ok(answer.texts.into_iter().next().unwrap_or_default())
    }

    pub fn explain(&self, program: &Program) -> Result<Explanation> {
        self.service.explain(Some(&self.id), program)
    }

    pub fn run(&self, program: &Program, options: &RunOptions) -> Result<Results> {
        self.service.run(Some(&self.id), program, options)
    }
}

/// The engine's own error that a problem tells of, where it is one of the run.
fn engine_error(problem: &Problem, options: &RunOptions) -> Option<EngineError> {
    let limit = problem.limit.as_ref();
    Some(match problem.kind {
        ProblemKind::RunFailed => EngineError::Node(Box::new(problem.faults.first()?.clone().into())),
        ProblemKind::DeadlineExceeded => {
            EngineError::DeadlineExceeded { seconds: limit.map(|limit| limit.allowed).or(options.seconds)? }
        }
        ProblemKind::MemoryExceeded => {
            let limit = limit?;
            EngineError::MemoryExceeded { needed: limit.used as u64, allowed: limit.allowed as u64 }
        }
        _ => return None,
    })
}

fn failure(error: EngineError, trace: Option<String>, kept: Option<Inner>) -> Error {
    Error::from(Box::new(pellucid_engine::Failure { error, trace, kept: kept.unwrap_or_default() }))
}

fn cancelled() -> Error {
    failure(EngineError::Cancelled, None, None)
}

impl From<pellucid_client::Error> for Error {
    /// What is wrong with a program is the same error wherever it was found.
    fn from(error: pellucid_client::Error) -> Self {
        match error {
            pellucid_client::Error::Cancelled => cancelled(),
            pellucid_client::Error::File { path, error } => Error::File { path, error },
            pellucid_client::Error::Refused { problem, .. }
                if problem.kind == ProblemKind::InvalidProgram && !problem.faults.is_empty() =>
            {
                Error::Faults(Faults(problem.faults.into_iter().map(Fault::from).collect()))
            }
            error => Error::Remote(Box::new(error)),
        }
    }
}
