//! Models as Python holds them.

use std::sync::{Arc, Mutex, PoisonError};

use pellucid::picture::plan_to_html;
use pellucid::{ModelOptions, OnUpdate, Precision, RunOptions};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::error;
use crate::program::{CheckedProgram, Described, Program, described, written};
use crate::run::{self, Cancellation, Results};

/// A model, in this process or at a service. It can be shared between threads.
#[pyclass(frozen, module = "pellucid._core")]
#[derive(Clone, Debug)]
pub(crate) struct Model(pub(crate) pellucid::Model);

#[pymethods]
impl Model {
    /// Opens a model: `bundled`, a folder, a GGUF file, or a hub id. `progress` is called with what is being done, bytes
    /// done, and bytes in all where known.
    #[staticmethod]
    #[pyo3(signature = (source, revision = None, precision = "f32", progress = None))]
    fn open(
        py: Python<'_>,
        source: &str,
        revision: Option<String>,
        precision: &str,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Model> {
        let precision = match precision {
            "f32" | "float32" => Precision::F32,
            "bf16" | "bfloat16" => Precision::Bf16,
            "quantised" => Precision::Quantised,
            other => {
                let message = format!("weights are held as `f32`, `bf16` or `quantised`, not as `{other}`");
                return Err(PyValueError::new_err(message));
            }
        };
        let progress = progress.map(|listener| -> pellucid::ProgressListener {
            Arc::new(move |progress| {
                Python::attach(|py| {
                    // Who only watches cannot stop it.
                    let _ = listener.call1(py, (progress.what, progress.done, progress.total));
                });
            })
        });
        let options = ModelOptions { precision, revision, progress };
        let opened = py.detach(|| match source {
            "bundled" => pellucid::Model::bundled_with(&options),
            source => pellucid::Model::open_with(source, &options),
        });
        opened.map(Model).map_err(|error| error::raised(py, error))
    }

    /// The model with another beside it, by a name.
    fn with_model(&self, name: &str, model: &Model) -> Model {
        Model(self.0.with_model(name, &model.0))
    }

    /// Tensors of its files that it does not use and that nothing explains.
    fn unused_tensors(&self) -> Vec<String> {
        self.0.unused_tensors().into_iter().map(str::to_owned).collect()
    }

    /// The model with a cache of prefixes, of so many bytes at most.
    fn with_prefix_cache(&self, bytes: u64) -> Model {
        Model(self.0.with_prefix_cache(bytes))
    }

    /// What it publishes of itself, as JSON.
    fn spec(&self, py: Python<'_>) -> PyResult<String> {
        written(py, self.0.spec())
    }

    /// Token ids of a text.
    fn encode(&self, py: Python<'_>, text: &str, special_tokens: bool) -> PyResult<Vec<u32>> {
        self.asked(py, text.to_owned(), move |model, text| model.encode_with(&text, special_tokens))
    }

    /// The text of token ids.
    fn decode(&self, py: Python<'_>, tokens: Vec<u32>, skip_special: bool) -> PyResult<String> {
        self.asked(py, tokens, move |model, tokens| match model.tokenizer() {
            Ok(tokenizer) => Ok(tokenizer.decode(&tokens, skip_special)?),
            // A service tells all of them.
            Err(error) if skip_special => Err(error),
            Err(_) => model.decode(&tokens),
        })
    }

    /// The one token that a text is.
    fn token(&self, py: Python<'_>, text: &str) -> PyResult<u32> {
        self.asked(py, text.to_owned(), |model, text| model.token(&text))
    }

    /// Token ids of a user's turn in the model's chat template.
    fn encode_chat(&self, py: Python<'_>, text: &str) -> PyResult<Vec<u32>> {
        self.asked(py, text.to_owned(), |model, text| model.encode_chat(&text))
    }

    /// The tokens that begin and end a text, and how many there are; none: it came without a tokenizer.
    fn tokenizer(&self) -> Option<(Option<u32>, Option<u32>, usize)> {
        let tokenizer = self.0.tokenizer().ok()?;
        Some((tokenizer.bos_id(), tokenizer.eos_id(), tokenizer.vocab_size()))
    }

    /// Checks a program: all that can be known before it runs.
    fn check(&self, py: Python<'_>, program: &Program) -> PyResult<CheckedProgram> {
        let checked = py.detach(|| self.0.check(program.0.clone()));
        checked.map(CheckedProgram).map_err(|error| error::raised(py, error))
    }

    /// Checks a program and says what it would compute where, and at what price.
    fn explain(&self, py: Python<'_>, program: &Program) -> PyResult<String> {
        let explained = self.asked(py, program.0.clone(), |model, program| model.explain_program(program))?;
        Ok(explained.to_string())
    }

    /// Checks a program, runs it, and says what each of its passes took: as text, and drawn as HTML. Ctrl-C cancels.
    fn analyze(
        &self,
        py: Python<'_>,
        program: &Program,
        on_log: Option<Py<PyAny>>,
    ) -> PyResult<(String, String)> {
        let (program, model) = (program.0.clone(), self.0.clone());
        let told: Arc<Mutex<Option<(String, String)>>> = Arc::default();
        let tell = Arc::clone(&told);
        let work = move |options: &RunOptions, _: Option<OnUpdate>| {
            let (plan, results) = model.analyze_program(program, options)?;
            *tell.lock().unwrap_or_else(PoisonError::into_inner) =
                Some((plan.to_string(), plan_to_html(&plan)));
            Ok(results)
        };
        let listeners = run::Listeners { log: on_log, ..run::Listeners::default() };
        run::run(py, work, None, None, &listeners, None)?;
        Ok(told.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or_default())
    }

    /// The plan, drawn as HTML to stand in a page.
    fn drawn_plan(&self, py: Python<'_>, program: &Program) -> PyResult<String> {
        let explained = self.asked(py, program.0.clone(), |model, program| model.explain_program(program))?;
        Ok(plan_to_html(&explained))
    }

    /// The plan as JSON.
    fn plan(&self, py: Python<'_>, program: &Program) -> PyResult<String> {
        written(py, &self.asked(py, program.0.clone(), |model, program| model.explain_program(program))?)
    }

    /// Checks a program and runs it, here or at the model's service. While it runs, other threads of Python go on, and Ctrl-C
    /// cancels.
    #[pyo3(signature = (program, memory_bytes = None, seconds = None, on_log = None, on_token = None, on_progress = None, on_update = None, naive = false, cancellation = None))]
    #[expect(clippy::too_many_arguments, reason = "they are keywords in Python")]
    fn run(
        &self,
        py: Python<'_>,
        program: &Program,
        memory_bytes: Option<u64>,
        seconds: Option<f64>,
        on_log: Option<Py<PyAny>>,
        on_token: Option<Py<PyAny>>,
        on_progress: Option<Py<PyAny>>,
        on_update: Option<Py<PyAny>>,
        naive: bool,
        cancellation: Option<Py<Cancellation>>,
    ) -> PyResult<Results> {
        let listeners =
            run::Listeners { log: on_log, token: on_token, progress: on_progress, update: on_update };
        let cancel = cancellation.as_ref().map(|cancellation| &cancellation.get().0);
        let (program, model) = (program.0.clone(), self.0.clone());
        // No value may be larger than what there is: the process would not outlive it.
        let memory_bytes =
            memory_bytes.or_else(|| pellucid::available_memory().filter(|_| !model.is_remote()));
        let work = move |options: &RunOptions, updates: Option<OnUpdate>| match updates {
            _ if naive => model.run_naive_with(&model.check(program)?, options),
            Some(updates) => model.telling(updates).run_program(program, options),
            None => model.run_program(program, options),
        };
        run::run(py, work, memory_bytes, seconds, &listeners, cancel)
    }

    /// The types of a node's values, of a program that may be written only in part.
    fn types_of(&self, py: Python<'_>, program: &Program, node: &str) -> PyResult<Vec<Described>> {
        let node = node.to_owned();
        let types =
            self.asked(py, program.0.clone(), move |model, program| model.types_of(program, &node))?;
        Ok(types.iter().map(described).collect())
    }
}

impl Model {
    /// Asks the model something. One at a service may take its time to answer.
    fn asked<A: Send + 'static, T: Send + 'static>(
        &self,
        py: Python<'_>,
        given: A,
        ask: impl FnOnce(&pellucid::Model, A) -> pellucid::Result<T> + Send + 'static,
    ) -> PyResult<T> {
        let model = self.0.clone();
        let answer = if model.is_remote() {
            run::interruptible(py, move || ask(&model, given))?
        } else {
            py.detach(|| ask(&model, given))
        };
        answer.map_err(|error| error::raised(py, error))
    }
}

/// What a model publishes of itself, as JSON, without its weights.
#[pyfunction]
pub(crate) fn specification(py: Python<'_>, source: &str) -> PyResult<String> {
    let spec = py.detach(|| match source {
        "bundled" => pellucid::spec::bundled(),
        source => pellucid::spec::of(source),
    });
    written(py, &spec.map_err(|error| error::raised(py, error))?)
}
