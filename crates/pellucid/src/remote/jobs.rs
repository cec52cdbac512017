//! Jobs that go on by themselves, and keys.

use std::path::PathBuf;

use pellucid_client::api::{Account, Job, Problem, ProblemKind, Submission};
use pellucid_client::{Address, Ended, config};
use pellucid_engine::RunOptions;
use pellucid_graph::Program;

use super::files::Files;
use super::{OnUpdate, RemoteOptions, Service};
use crate::error::Result;
use crate::results::Results;

impl Service {
    /// Submits a program, and gives the job, without waiting for it: [`Service::results`] has what it saved once it has ended.
    /// Without a model it is that which the program names, or the service's default. `seconds`, from its admission, bound it.
    ///
    /// # Errors
    /// [`Error::Faults`](crate::Error::Faults): everything that is wrong with it; [`Error::Remote`](crate::Error::Remote).
    pub fn submit(&self, model: Option<&str>, program: &Program, seconds: Option<f64>) -> Result<Job> {
        let files = Files::of(program);
        let bytes = files.without_folders(program).to_bytes()?;
        let submitted = self.client().submit(&bytes, &self.submission(model, seconds));
        Ok(submitted.map_err(|error| files.restored(error))?)
    }

    /// The results of a job that has ended. With its program, what it failed of is told of the files that the program names:
    /// they travelled without their folders.
    ///
    /// # Errors
    /// What it failed of, as [`Service::run`] tells it; [`Error::Remote`](crate::Error::Remote) where it has not ended.
    pub fn results(&self, id: &str, program: Option<&Program>) -> Result<Results> {
        let job = self.client().job(id)?;
        if !job.state.is_final() {
            return Err(self.refused(Problem::new(ProblemKind::NotFinished, format!("{id} has not ended."))));
        }
        let result = if job.result.is_some() { Some(self.client().result(&job)?) } else { None };
        let files = program.map_or_else(Files::default, Files::of);
        let ended = Ended { id: job.id.clone(), job: Some(Box::new(job)), result };
        self.outcome(ended, &files, &RunOptions::default(), None)
    }

    /// Tries a key, and keeps it for the service, which is the one that is spoken to from then on where none is named. Gives the
    /// account and the configuration file, which only its owner can read.
    ///
    /// # Errors
    /// [`Error::Remote`](crate::Error::Remote): no such key, no such service, or the file cannot be written.
    pub fn log_in(address: &str, key: &str) -> Result<(Account, PathBuf)> {
        let address: Address = address.parse::<Address>()?;
        let options = RemoteOptions { key: Some(key.to_owned()), ..RemoteOptions::default() };
        let account = Service::with(address.as_str(), &options)?.client().account()?;
        let path = config::log_in(&address, key)?;
        Ok((account, path))
    }

    /// The same service; what happens to its runs is told to this listener.
    #[must_use]
    pub fn telling(&self, on_update: OnUpdate) -> Service {
        let options = RemoteOptions { on_update: Some(on_update), ..self.options.clone() };
        Service { client: self.client.clone(), options }
    }

    pub(super) fn submission(&self, model: Option<&str>, seconds: Option<f64>) -> Submission {
        let RemoteOptions { priority, label, .. } = self.options.clone();
        Submission { model: model.map(str::to_owned), priority, deadline_s: seconds, label }
    }
}
