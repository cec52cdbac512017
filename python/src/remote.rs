//! Services: models elsewhere, jobs that run there, keys.

use pellucid::client::config;
use pellucid::{OnUpdate, RunOptions};
use pyo3::prelude::*;

use crate::error;
use crate::model::Model;
use crate::program::{Program, written};
use crate::run::{self, Listeners, Results};

/// A service. It can be shared between threads.
#[pyclass(frozen, module = "pellucid._core")]
#[derive(Clone, Debug)]
pub(crate) struct Service(pellucid::Service);

#[pymethods]
impl Service {
    /// The service at an address, with the key that is set up for it. Nothing is sent yet.
    #[new]
    fn new(py: Python<'_>, address: &str) -> PyResult<Service> {
        pellucid::Service::at(address).map(Service).map_err(|error| error::raised(py, error))
    }

    /// The address of the service that is set up, if one is.
    #[staticmethod]
    fn configured(py: Python<'_>) -> PyResult<Option<String>> {
        config::remote().map_err(|error| error::raised(py, error.into()))
    }

    /// Tries a key and keeps it. Gives the account's name and the file that the key is kept in.
    #[staticmethod]
    fn log_in(py: Python<'_>, address: String, key: String) -> PyResult<(String, String)> {
        let tried = run::interruptible(py, move || pellucid::Service::log_in(&address, &key))?;
        let (account, path) = tried.map_err(|error| error::raised(py, error))?;
        Ok((account.account, path.display().to_string()))
    }

    /// Its address.
    #[getter]
    fn address(&self) -> String {
        self.0.client().address().to_string()
    }

    /// A model that it holds, by its name there.
    fn model(&self, py: Python<'_>, name: String) -> PyResult<Model> {
        let service = self.0.clone();
        let model = run::interruptible(py, move || service.model(&name))?;
        model.map(Model).map_err(|error| error::raised(py, error))
    }

    /// Submits a program, and gives the job as JSON, without waiting for it.
    #[pyo3(signature = (program, model = None, seconds = None))]
    fn submit(
        &self,
        py: Python<'_>,
        program: &Program,
        model: Option<String>,
        seconds: Option<f64>,
    ) -> PyResult<String> {
        let (service, program) = (self.0.clone(), program.0.clone());
        let job = run::interruptible(py, move || service.submit(model.as_deref(), &program, seconds))?;
        written(py, &job.map_err(|error| error::raised(py, error))?)
    }

    /// A job as JSON: now, or when it has ended, or after so many seconds.
    #[pyo3(signature = (id, seconds = 0))]
    fn job(&self, py: Python<'_>, id: String, seconds: u64) -> PyResult<String> {
        let service = self.0.clone();
        let job = run::interruptible(py, move || service.client().job_waiting(&id, seconds))?;
        written(py, &job.map_err(|error| error::raised(py, error.into()))?)
    }

    /// Cancels a job, and gives it as it is then, as JSON.
    fn cancel(&self, py: Python<'_>, id: String) -> PyResult<String> {
        let service = self.0.clone();
        let job = run::interruptible(py, move || service.client().cancel(&id))?;
        written(py, &job.map_err(|error| error::raised(py, error.into()))?)
    }

    /// The results of a job that has ended; what it failed of is raised, told of the files that its program names.
    #[pyo3(signature = (id, program = None))]
    fn results(&self, py: Python<'_>, id: String, program: Option<&Program>) -> PyResult<Results> {
        let (service, program) = (self.0.clone(), program.map(|program| program.0.clone()));
        let work = move |_: &RunOptions, _: Option<OnUpdate>| service.results(&id, program.as_ref());
        run::run(py, work, None, None, &Listeners::default(), None)
    }
}
