//! Models: opened, asked about themselves, traced.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use pellucid_engine::{Engine, Explanation, PrefixCache, RunOptions};
use pellucid_graph::check::CheckedProgram;
use pellucid_graph::{ModelSpec, Program, TensorType};
use pellucid_models::ModelOptions;
use pellucid_models::chat_template::Message;
use pellucid_models::tokenizer::Tokenizer;

use crate::error::{Error, Result};
use crate::remote::{OnUpdate, Remote};
use crate::results::Results;
use crate::session::Session;
use crate::trace::Trace;

/// A model, in this process or at a service. A clone is the same model, and it can be shared between threads.
#[derive(Clone)]
pub struct Model {
    place: Place,
    /// The cache of runs that are given none.
    prefixes: Option<Arc<PrefixCache>>,
}

/// Where a model is.
#[derive(Clone)]
pub(crate) enum Place {
    Here(Arc<Engine>),
    There(Arc<Remote>),
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
        Ok(Model::at(Place::Here(Arc::new(Engine::new(Arc::new(model))))))
    }

    /// A model without its weights, which in a folder need not even be there: programs are checked, priced and explained on it,
    /// and texts tokenised. It runs nothing.
    ///
    /// # Errors
    /// Those of [`Model::open`].
    pub fn outline(source: &str, options: &ModelOptions) -> Result<Model> {
        let model = pellucid_models::Model::outline(source, options)?;
        Ok(Model::at(Place::Here(Arc::new(Engine::new(Arc::new(model))))))
    }

    /// Tensors of the model's files that it does not use, and that nothing explains: it may be another model than its
    /// configuration says. None are known of a model at a service.
    pub fn unused_tensors(&self) -> Vec<&str> {
        match &self.place {
            Place::Here(engine) => engine.model().unexplained().collect(),
            Place::There(_) => Vec::new(),
        }
    }

    pub(crate) fn at(place: Place) -> Model {
        Model { place, prefixes: None }
    }

    /// The model with another beside it, on which traces of a session can run: values flow between the two. Both must be in
    /// this process: a service runs a program on one model, and refuses traces of another.
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
        match (&self.place, &model.place) {
            (Place::Here(own), Place::Here(other)) => {
                let engine = own.share().with_model(name, other.model().clone());
                Model { place: Place::Here(Arc::new(engine)), prefixes: self.prefixes.clone() }
            }
            // A trace on the other is refused when it is checked.
            _ => self.clone(),
        }
    }

    /// The model with a cache of prefixes, of so many bytes at most ([`PREFIX_CACHE_BYTES`](crate::PREFIX_CACHE_BYTES) is a good
    /// number): keys and values, and the residual stream, of prompts that ran, for later runs of the same. Who tries one thing after
    /// another on one prompt pays for the prompt once, and results are the same bit for bit. A model at a service has its account's.
    ///
    /// ```
    /// use pellucid::{Model, PREFIX_CACHE_BYTES, s};
    ///
    /// # fn main() -> pellucid::Result<()> {
    /// let model = Model::bundled()?.with_prefix_cache(PREFIX_CACHE_BYTES);
    /// let run = |scale: f64| {
    ///     let trace = model.trace();
    ///     let prompt = trace.invoke("The Eiffel Tower is in the city of");
    ///     prompt.layer(1).edit_output(|h| h.index_put(s![.., -1], h.index(s![.., -1]) * scale));
    ///     prompt.logits().index(s![.., -1]).save("logits");
    ///     trace.run()
    /// };
    /// assert_eq!(run(0.5)?.report().cached_tokens, 0);
    /// assert_eq!((run(2.0)?.report().cached_tokens, run(2.0)?.report().tokens), (9, 1));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn with_prefix_cache(&self, bytes: u64) -> Model {
        Model { place: self.place.clone(), prefixes: Some(Arc::new(PrefixCache::new(bytes))) }
    }

    /// Those options, with the model's own cache where they have none.
    fn with_own_cache<'o>(&self, options: &'o RunOptions) -> Cow<'o, RunOptions> {
        match (&self.prefixes, &options.prefixes) {
            (Some(own), None) => Cow::Owned(RunOptions { prefixes: Some(own.clone()), ..options.clone() }),
            _ => Cow::Borrowed(options),
        }
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

    /// The engine of a model in this process.
    fn engine(&self, what: &'static str, hint: &'static str) -> Result<&Engine> {
        match &self.place {
            Place::Here(engine) => Ok(engine),
            Place::There(_) => Err(Error::NotHere { model: self.name().to_owned(), what, hint }),
        }
    }

    /// The engine of a model in this process that has its weights.
    fn loaded(&self) -> Result<&Engine> {
        let engine = self.engine(CHECKED, RUN_PROGRAM)?;
        if engine.models_are_loaded() {
            Ok(engine)
        } else {
            Err(Error::Outline { model: self.name().to_owned() })
        }
    }

    pub(crate) fn inner(&self, what: &'static str, hint: &'static str) -> Result<&pellucid_models::Model> {
        Ok(self.engine(what, hint)?.model())
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
        match &self.place {
            Place::Here(engine) => engine.model().spec(),
            Place::There(remote) => &remote.spec,
        }
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

    /// Its tokenizer, of a model in this process.
    ///
    /// # Errors
    /// [`Error::NoTokenizer`] where the model came without one; [`Error::NotHere`] of a model at a service, whose
    /// [`Model::encode`] and [`Model::decode`] there are all the same.
    pub fn tokenizer(&self) -> Result<&Tokenizer> {
        let model =
            self.inner("its tokenizer is", "`encode`, `decode` and `token` of the model ask the service")?;
        model.tokenizer().ok_or_else(|| Error::NoTokenizer { model: self.name().to_owned() })
    }

    /// The token ids of a prompt, with the special tokens that the tokenizer adds by default.
    ///
    /// # Errors
    /// [`Error::NoTokenizer`] where the model came without one.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        self.encode_with(text, true)
    }

    /// [`Model::encode`], with or without the special tokens that the tokenizer adds by default.
    ///
    /// # Errors
    /// [`Error::NoTokenizer`] where the model came without one.
    pub fn encode_with(&self, text: &str, special_tokens: bool) -> Result<Vec<u32>> {
        if let Place::There(remote) = &self.place {
            return remote.encode(text, special_tokens, false);
        }
        Ok(self.tokenizer()?.encode(text, special_tokens)?)
    }

    /// The token ids of a user's turn in the model's chat template, up to where its answer begins.
    ///
    /// # Errors
    /// [`Error::NoChatTemplate`] where the model came without one.
    pub fn encode_chat(&self, text: &str) -> Result<Vec<u32>> {
        if let Place::There(remote) = &self.place {
            return remote.encode(text, false, true);
        }
        let template = self.inner("", "")?.chat_template();
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
        if let Place::There(remote) = &self.place {
            return remote.decode(tokens);
        }
        Ok(self.tokenizer()?.decode(tokens, false)?)
    }

    /// The one token that a text is: `model.token(" Paris")`, with its leading space.
    ///
    /// # Errors
    /// [`Error::NotOneToken`] where it is several, or none.
    pub fn token(&self, text: &str) -> Result<u32> {
        let tokens = self.encode_with(text, false)?;
        match tokens.as_slice() {
            [token] => Ok(*token),
            tokens => {
                let spaced = format!(" {}", text.trim_start());
                Err(Error::NotOneToken { text: text.to_owned(), count: tokens.len(), spaced })
            }
        }
    }

    /// Checks a program against the model: everything that can be known before anything runs. A model at a service is asked for
    /// nothing: texts are tokenised only there, so that their lengths are not known yet, nor what depends on them.
    ///
    /// # Errors
    /// [`Error::Faults`]: everything that is wrong with it.
    pub fn check(&self, program: Program) -> Result<CheckedProgram> {
        match &self.place {
            Place::Here(engine) => Ok(engine.check(program)?),
            Place::There(remote) => remote.check(program),
        }
    }

    /// The model, whose runs at a service are told to this listener. A model in this process has nothing to tell.
    #[must_use]
    pub fn telling(&self, on_update: OnUpdate) -> Model {
        match &self.place {
            Place::Here(_) => self.clone(),
            Place::There(remote) => Model::at(Place::There(Arc::new(remote.telling(on_update)))),
        }
    }

    /// Whether it is at a service.
    pub fn is_remote(&self) -> bool {
        matches!(self.place, Place::There(_))
    }

    /// Checks a program and runs it, here or at the model's service.
    ///
    /// # Errors
    /// [`Error::Faults`]: everything that is wrong with it; [`Error::Run`] where an operation fails on its values, or a bound
    /// is reached; [`Error::Remote`] where the service cannot be reached, or refuses.
    pub fn run_program(&self, program: Program, options: &RunOptions) -> Result<Results> {
        match &self.place {
            Place::Here(_) => self.run(&self.check(program)?, options),
            Place::There(remote) => remote.run(&program, options),
        }
    }

    /// Checks a program, here or at the model's service, and says what it would compute where, and at what price. Nothing runs.
    ///
    /// # Errors
    /// [`Error::Faults`]: everything that is wrong with it; [`Error::Remote`].
    pub fn explain_program(&self, program: Program) -> Result<Explanation> {
        match &self.place {
            Place::Here(_) => self.explain(&self.check(program)?),
            Place::There(remote) => remote.explain(&program),
        }
    }

    /// Checks a program, runs it, and says what each of its passes took beside what was estimated: the same plan as
    /// [`Model::explain_program`] shows, with times.
    ///
    /// ```
    /// use pellucid::{Model, Program, RunOptions};
    ///
    /// # fn main() -> pellucid::Result<()> {
    /// let text = br#"{ "pellucid": 1, "body": [{ "op": "trace", "invokes": [{ "tokens": [[1, 2, 3]] }], "body": [
    ///     { "op": "get", "name": "h", "hook": "layers.0.output" }, { "op": "save", "name": "s", "value": "h" }] }] }"#;
    /// let (plan, results) = Model::bundled()?.analyze_program(Program::from_json(text)?, &RunOptions::default())?;
    /// assert_eq!(plan.passes.len(), results.report().passes);
    /// assert!(plan.passes[0].measured_ms.is_some_and(|ms| ms > 0.0));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of [`Model::run_program`]; [`Error::NotHere`] of a model at a service, where others ride in the same passes.
    pub fn analyze_program(&self, program: Program, options: &RunOptions) -> Result<(Explanation, Results)> {
        let hint = "its results' report tells its own share of each pass";
        self.engine("a run is analysed where nobody else rides in its passes, and the model is", hint)?;
        let (explanation, results) =
            self.loaded()?.analyze(&self.check(program)?, &self.with_own_cache(options))?;
        Ok((explanation, Results::new(results)))
    }

    /// The types of the values of a node, by its name, of a program that may be written only in part: shapes and number
    /// types before anything runs. Of a node that stands for many, as in a sweep, those of the first.
    ///
    /// ```
    /// use pellucid::{Model, Program};
    ///
    /// # fn main() -> pellucid::Result<()> {
    /// let model = Model::bundled()?;
    /// let text = br#"{ "pellucid": 1, "body": [{ "op": "trace", "invokes": [{ "tokens": [[1, 2, 3]] }], "body": [
    ///     { "op": "get", "name": "h", "hook": "layers.0.output" }] }] }"#; // nothing is saved yet
    /// let types = model.types_of(Program::from_json(text)?, "h")?;
    /// assert_eq!(types[0].sizes(), Some(vec![1, 3, 128]));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Faults`]: what is wrong with the program, where that leaves the node without types.
    pub fn types_of(&self, program: Program, node: &str) -> Result<Vec<TensorType>> {
        match &self.place {
            Place::Here(engine) => Ok(engine.types_of(program, node)?),
            Place::There(remote) => remote.types_of(program, node),
        }
    }

    /// What a checked program would compute where, and at what price. Nothing runs.
    ///
    /// # Errors
    /// [`Error::NotHere`] of a model at a service: see [`Model::explain_program`].
    pub fn explain(&self, program: &CheckedProgram) -> Result<Explanation> {
        let engine = self.engine(CHECKED, "give the program itself to `explain_program`")?;
        Ok(engine.explain_with(program, &self.with_own_cache(&RunOptions::default()))?)
    }

    /// Runs a checked program.
    ///
    /// # Errors
    /// [`Error::Run`] where an operation fails on its values, or a bound is reached; [`Error::NotHere`] of a model at a
    /// service: see [`Model::run_program`].
    pub fn run(&self, program: &CheckedProgram, options: &RunOptions) -> Result<Results> {
        let options = self.with_own_cache(options);
        Ok(Results::new(self.loaded()?.run_keeping(program, &options)?))
    }

    /// Runs a checked program by the simple interpreter, one invoke at a time and nothing planned: the judge of
    /// [`Model::run`], with the same results bit for bit.
    ///
    /// # Errors
    /// Those of [`Model::run`].
    pub fn run_naive(&self, program: &CheckedProgram) -> Result<Results> {
        self.run_naive_with(program, &RunOptions::default())
    }

    /// [`Model::run_naive`], bounded: it can be cancelled, has its seconds, and tells what it logs. Its memory is not watched
    /// (see [`Model::fits`]), and other listeners hear nothing.
    ///
    /// # Errors
    /// Those of [`Model::run`].
    pub fn run_naive_with(&self, program: &CheckedProgram, options: &RunOptions) -> Result<Results> {
        Ok(Results::new(self.loaded()?.run_naive_keeping(program, options)?))
    }

    /// Whether a checked program needs, by its price, no more than so many bytes at once beside the model. The price is an upper
    /// estimate: asked before a run, it keeps a program that is too large from taking the process with it.
    /// [`available_memory`](crate::available_memory) says what there is.
    ///
    /// # Errors
    /// [`Error::TooLarge`].
    pub fn fits(&self, program: &CheckedProgram, memory_bytes: u64) -> Result<()> {
        let needed = program.price.peak_bytes;
        if needed > memory_bytes {
            return Err(Error::TooLarge { needed, allowed: memory_bytes });
        }
        Ok(())
    }

    /// Runs several programs in the same passes. Each result is bit for bit what it would be alone, each failure its own.
    pub fn run_together(&self, programs: &[(&CheckedProgram, &RunOptions)]) -> Vec<Result<Results>> {
        match self.loaded() {
            Ok(engine) => {
                let own = programs.iter().map(|(program, options)| (*program, self.with_own_cache(options)));
                let own: Vec<_> = own.collect();
                let own: Vec<_> = own.iter().map(|(program, options)| (*program, options.as_ref())).collect();
                let outcomes = engine.run_together_keeping(&own);
                outcomes.into_iter().map(|outcome| Ok(Results::new(outcome?))).collect()
            }
            // A service packs what is sent to it by itself; an outline runs nothing.
            Err(_) => programs.iter().map(|(program, options)| self.run(program, options)).collect(),
        }
    }
}

const CHECKED: &str = "a program that was checked runs where it was checked, and it is";
const RUN_PROGRAM: &str = "give the program itself to `run_program`";
