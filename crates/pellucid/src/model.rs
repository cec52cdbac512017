//! Models: opened, asked about themselves, traced.

use std::fmt;
use std::sync::Arc;

use pellucid_engine::{Engine, Explanation, RunOptions};
use pellucid_graph::check::CheckedProgram;
use pellucid_graph::{ModelSpec, Program};
use pellucid_models::ModelOptions;
use pellucid_models::chat_template::Message;
use pellucid_models::tokenizer::Tokenizer;

use crate::error::{Error, Result};
use crate::results::Results;
use crate::session::Session;
use crate::trace::Trace;

/// A model in this process. A clone is the same model, and it can be shared between threads.
#[derive(Clone)]
pub struct Model {
    engine: Arc<Engine>,
}

impl fmt::Debug for Model {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Model").field("name", &self.name()).finish_non_exhaustive()
    }
}

impl Model {
    /// Opens a model: a Hugging Face folder, a GGUF file, or a hub id such as `openai-community/gpt2`, which is
    /// downloaded to the hub's own cache when it is not there.
    ///
    /// # Errors
    /// [`Error::Model`]: what is missing, damaged or of an unknown family.
    pub fn open(source: &str) -> Result<Model> {
        Model::open_with(source, &ModelOptions::default())
    }

    /// [`Model::open`], with a revision, a number type for the weights, or a listener for progress.
    ///
    /// # Errors
    /// Those of [`Model::open`].
    pub fn open_with(source: &str, options: &ModelOptions) -> Result<Model> {
        let model = pellucid_models::Model::open(source, options)?;
        Ok(Model { engine: Arc::new(Engine::new(Arc::new(model))) })
    }

    /// The model with another beside it, on which traces of a session can run: values flow between the two.
    ///
    /// ```
    /// use pellucid::{Model, s};
    ///
    /// # fn main() -> pellucid::Result<()> {
    /// let student = Model::bundled()?;
    /// let both = student.with_model("teacher", &Model::bundled()?);
    /// let session = both.session();
    /// let taught = session.trace_on("teacher").invoke("The capital of France is").logits().index(s![.., -1]);
    /// let own = session.trace().invoke("The capital of France is").logits().index(s![.., -1]);
    /// (taught.softmax(-1) - own.softmax(-1)).abs().amax(..).save("difference");
    /// assert_eq!(session.run()?["difference"].to_vec_f32()?, [0.0]);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn with_model(&self, name: &str, model: &Model) -> Model {
        let engine = self.engine.share().with_model(name, model.engine.model().clone());
        Model { engine: Arc::new(engine) }
    }

    /// The small model that comes with the library: a GPT-2 of 4 layers and 1.07 million parameters, trained on
    /// sentences made by a script. It knows indirect objects, facts, relations in context and induction, and nothing
    /// else. Its files are kept in the user's cache folder.
    ///
    /// # Errors
    /// [`Error::File`] where the cache folder cannot be written.
    pub fn bundled() -> Result<Model> {
        Model::bundled_with(&ModelOptions::default())
    }

    /// [`Model::bundled`], with options.
    ///
    /// # Errors
    /// Those of [`Model::bundled`].
    pub fn bundled_with(options: &ModelOptions) -> Result<Model> {
        let folder = crate::bundled::unpack()?;
        Model::open_with(&folder.to_string_lossy(), options)
    }

    pub(crate) fn inner(&self) -> &pellucid_models::Model {
        self.engine.model()
    }

    /// Opens a trace: what to read and change while the model runs.
    #[track_caller]
    pub fn trace(&self) -> Trace {
        self.session().trace()
    }

    /// Opens a session: traces in sequence, whose values flow from one to the next.
    pub fn session(&self) -> Session {
        Session::new(self.clone())
    }

    /// What the model publishes of itself: its module tree, its hook points in the order in which they are reached,
    /// its sizes and parameters.
    pub fn spec(&self) -> &ModelSpec {
        self.engine.model().spec()
    }

    /// Its name: the hub id, or the folder's or file's name.
    pub fn name(&self) -> &str {
        &self.spec().name
    }

    /// How many blocks it has.
    pub fn layers(&self) -> usize {
        self.spec().sizes.layers as usize
    }

    /// How many query heads each attention has.
    pub fn heads(&self) -> usize {
        self.spec().sizes.heads as usize
    }

    /// The width of the residual stream.
    pub fn hidden(&self) -> usize {
        self.spec().sizes.hidden as usize
    }

    /// Its tokenizer.
    ///
    /// # Errors
    /// [`Error::NoTokenizer`] where the model came without one.
    pub fn tokenizer(&self) -> Result<&Tokenizer> {
        self.engine.model().tokenizer().ok_or_else(|| Error::NoTokenizer { model: self.name().to_owned() })
    }

    /// The token ids of a prompt, with the special tokens that the tokenizer adds by default.
    ///
    /// # Errors
    /// [`Error::NoTokenizer`] where the model came without one.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        Ok(self.tokenizer()?.encode(text, true)?)
    }

    /// The token ids of a user's turn in the model's chat template, up to where its answer begins.
    ///
    /// # Errors
    /// [`Error::NoChatTemplate`] where the model came without one.
    pub fn encode_chat(&self, text: &str) -> Result<Vec<u32>> {
        let template = self.engine.model().chat_template();
        let template = template.ok_or_else(|| Error::NoChatTemplate { model: self.name().to_owned() })?;
        let text = template.apply(&[Message::user(text)], true)?;
        // The template writes its special tokens out.
        Ok(self.tokenizer()?.encode(&text, false)?)
    }

    /// The text of token ids.
    ///
    /// # Errors
    /// [`Error::NoTokenizer`] where the model came without one.
    pub fn decode(&self, tokens: &[u32]) -> Result<String> {
        Ok(self.tokenizer()?.decode(tokens, false)?)
    }

    /// The one token that a text is: `model.token(" Paris")`, with its leading space.
    ///
    /// # Errors
    /// [`Error::NotOneToken`] where it is several, or none.
    pub fn token(&self, text: &str) -> Result<u32> {
        match self.tokenizer()?.encode(text, false)?.as_slice() {
            [token] => Ok(*token),
            tokens => {
                let spaced = format!(" {}", text.trim_start());
                Err(Error::NotOneToken { text: text.to_owned(), count: tokens.len(), spaced })
            }
        }
    }

    /// Checks a program against the model: everything that can be known before anything runs.
    ///
    /// # Errors
    /// [`Error::Faults`]: everything that is wrong with it.
    pub fn check(&self, program: Program) -> Result<CheckedProgram> {
        Ok(self.engine.check(program)?)
    }

    /// What a checked program would compute where, and at what price. Nothing runs.
    ///
    /// # Errors
    /// Only where the engine itself is at fault.
    pub fn explain(&self, program: &CheckedProgram) -> Result<Explanation> {
        Ok(self.engine.explain(program)?)
    }

    /// Runs a checked program.
    ///
    /// # Errors
    /// [`Error::Run`] where an operation fails on its values, or a bound is reached.
    pub fn run(&self, program: &CheckedProgram, options: &RunOptions) -> Result<Results> {
        Ok(Results::new(self.engine.run_keeping(program, options)?))
    }

    /// Runs a checked program by the simple interpreter, one invoke at a time and nothing planned: the judge of
    /// [`Model::run`], with the same results bit for bit. It honours no bounds.
    ///
    /// # Errors
    /// Those of [`Model::run`].
    pub fn run_naive(&self, program: &CheckedProgram) -> Result<Results> {
        Ok(Results::new(self.engine.run_naive_keeping(program)?))
    }

    /// Runs several programs in the same passes. Each result is bit for bit what it would be alone, each failure its own.
    pub fn run_together(&self, programs: &[(&CheckedProgram, &RunOptions)]) -> Vec<Result<Results>> {
        let outcomes = self.engine.run_together_keeping(programs);
        outcomes.into_iter().map(|outcome| Ok(Results::new(outcome?))).collect()
    }
}
