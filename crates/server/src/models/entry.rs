//! One model: opened without its weights, loaded, how fast it runs here.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use pellucid_client::api::{ModelEntry, ModelState, Problem, ProblemKind};
use pellucid_engine::{Engine, Usage};
use pellucid_models::{Model, ModelOptions, Precision, ProgressListener};
use sha2::{Digest, Sha256};
use tokio::sync::{Notify, watch};

use crate::config::{BUNDLED, ModelConfig, WeightType};
use crate::schedule::house::House;

/// How long a request waits for a model's outline, which of one on a hub must be downloaded first.
const OUTLINE: Duration = Duration::from_secs(30);
/// How long a model that could not be opened is not tried again: who asks for it meanwhile is refused at once.
const AGAIN: Duration = Duration::from_secs(10);

/// A weight of four bytes is multiplied and added once for each token.
const OF_WEIGHT_BYTES: u64 = 2;

/// What is said of a model that cannot be opened or loaded.
pub(crate) const UNOPENED: &str = "it cannot be opened; whoever runs the service finds the reason in its log";

/// A model without its weights: what is needed to tokenise and to check programs.
pub struct Outline {
    /// Checks and plans; cannot run.
    pub engine: Engine,
    /// What the model publishes, as JSON.
    pub spec: Bytes,
    /// Its `ETag`, with quotation marks.
    pub etag: String,
    /// Bytes of its weights in memory, estimated.
    pub weight_bytes: u64,
}

impl Outline {
    /// The model.
    pub fn model(&self) -> &Model {
        self.engine.model()
    }
}

pub(super) enum State {
    Cold,
    /// Bytes done and in all.
    Loading(Arc<AtomicU64>, Arc<AtomicU64>),
    Hot(Arc<House>, u64),
    Failed,
}

/// How opening a model goes.
#[derive(Default)]
enum Opening {
    #[default]
    NotBegun,
    /// Until what it is told by is closed.
    Begun(watch::Receiver<()>),
    Failed(Instant),
}

/// A model that there is.
pub struct Entry {
    /// What the configuration says of it.
    pub config: ModelConfig,
    outline: OnceLock<Arc<Outline>>,
    opening: Mutex<Opening>,
    /// How long a request waits for its outline.
    pub(super) patience: Duration,
    pub(super) state: Mutex<State>,
    /// Bytes of the room that is kept for it while it is loaded.
    pub(super) reserved: AtomicU64,
    /// Held while it is loaded: one loading for many who wait.
    pub(super) loading: tokio::sync::Mutex<()>,
    /// Who holds it: it is not given up meanwhile.
    pub(super) users: AtomicUsize,
    pub(super) last_used: Mutex<Instant>,
    /// When it came into memory.
    pub(super) loaded: Mutex<Instant>,
    /// Another waits for its room.
    pub(super) makes_way: AtomicBool,
    pace: Mutex<Pace>,
    /// Rung when there is something to do for whoever hands jobs to it.
    pub bell: Notify,
}

/// How fast a model runs here, learnt from what it did: a job is priced at so much for each floating-point operation of its passes, and
/// so much for each of its nodes, however little that computes. Operations of its own take the same time on every model.
#[derive(Clone, Copy)]
struct Pace {
    milliseconds_per_flop: f64,
    milliseconds_per_node: f64,
}

impl Default for Pace {
    /// Twenty thousand million operations a second, and three microseconds for a node, until it is known better.
    fn default() -> Pace {
        Pace { milliseconds_per_flop: Self::OF_OWN_FLOP, milliseconds_per_node: 3e-3 }
    }
}

impl Pace {
    /// What every job takes, however small.
    const LEAST: f64 = 0.05;
    /// The part of a model that is a good one.
    const GOOD_PART: u64 = 4;
    /// How much the newest job counts.
    const NEWEST: f64 = 0.05;
    /// A node takes from one to thirty microseconds, and a second has from a hundred million to a million million operations: whatever jobs
    /// there were.
    const OF_NODE: (f64, f64) = (1e-3, 3e-2);
    const OF_FLOP: (f64, f64) = (1e3 / 1e12, 1e3 / 1e8);
    /// What operations of nodes are counted in (`graph::rules::weight`).
    const OF_OWN_FLOP: f64 = 1e3 / 20e9;

    fn milliseconds(self, flops: u64, own_flops: u64, nodes: u64) -> f64 {
        let (of_flops, of_nodes) = self.parts(flops.saturating_sub(own_flops), nodes);
        Self::LEAST + of_flops + own_flops as f64 * Self::OF_OWN_FLOP + of_nodes
    }

    fn parts(self, flops: u64, nodes: u64) -> (f64, f64) {
        (flops as f64 * self.milliseconds_per_flop, nodes as f64 * self.milliseconds_per_node)
    }

    /// A job tells of what it has done, not of what it was priced at: what stopped early was never run. Of operations only those of
    /// passes tell, which are the model's own. What the job took less time for than for the other, by what is known, tells nothing.
    ///
    /// What a pass takes besides its operations is much of one that ends early: only who has walked through a good part of the model tells
    /// of operations. `whole`: those of a token that walks through all of it, about.
    fn learn(&mut self, usage: &Usage, whole: u64) {
        let (of_flops, of_nodes) = self.parts(usage.pass_flops, usage.nodes);
        if of_flops >= of_nodes && usage.pass_flops < usage.tokens.saturating_mul(whole / Self::GOOD_PART) {
            return;
        }
        let (rate, count, took, bounds) = if of_flops >= of_nodes {
            (&mut self.milliseconds_per_flop, usage.pass_flops, usage.pass_ms, Self::OF_FLOP)
        } else {
            (&mut self.milliseconds_per_node, usage.nodes, usage.nodes_ms, Self::OF_NODE)
        };
        if count > 0 && took > Self::LEAST {
            // By factors: a job that took four times as long counts as much as one that took a quarter.
            let seen = (took / count as f64).clamp(*rate / 4.0, *rate * 4.0);
            *rate = (*rate * (seen / *rate).powf(Self::NEWEST)).clamp(bounds.0, bounds.1);
        }
    }
}

/// A model that is kept in memory, once it is there, as long as this lives.
pub struct Held(Arc<Entry>);

impl Held {
    /// Which.
    pub fn entry(&self) -> &Arc<Entry> {
        &self.0
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        *lock(&self.0.last_used) = Instant::now();
        self.0.users.fetch_sub(1, Ordering::SeqCst);
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Entry {
    pub(crate) fn new(config: ModelConfig) -> Entry {
        Entry {
            config,
            outline: OnceLock::new(),
            opening: Mutex::default(),
            patience: OUTLINE,
            state: Mutex::new(State::Cold),
            reserved: AtomicU64::new(0),
            loading: tokio::sync::Mutex::new(()),
            users: AtomicUsize::new(0),
            last_used: Mutex::new(Instant::now()),
            loaded: Mutex::new(Instant::now()),
            makes_way: AtomicBool::new(false),
            pace: Mutex::default(),
            bell: Notify::new(),
        }
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.config.id
    }

    pub(super) fn options(&self) -> ModelOptions {
        model_options(&self.config)
    }

    pub(super) fn source(&self) -> Result<String, String> {
        source_of(&self.config)
    }

    /// The model without its weights; one opening for many who wait. Of one that must be downloaded first a request waits only for a
    /// while; one that could not be opened just now is not tried again for every request.
    ///
    /// # Errors
    /// 503, where it cannot be opened, or not yet.
    pub async fn outline(self: &Arc<Self>) -> Result<Arc<Outline>, Box<Problem>> {
        if matches!(&*lock(&self.opening), Opening::Failed(at) if at.elapsed() < AGAIN) {
            return Err(self.unavailable(UNOPENED, None));
        }
        let opening = tokio::time::timeout(self.patience, self.outline_at_last()).await;
        opening.unwrap_or_else(|_| Err(self.unavailable("it is being downloaded", Some(10.0))))
    }

    /// The same, however long it takes, and tried again where it failed: for whoever has a job for it, and counts how often.
    ///
    /// # Errors
    /// 503, where it cannot be opened.
    pub(super) async fn outline_at_last(self: &Arc<Self>) -> Result<Arc<Outline>, Box<Problem>> {
        let mut begun = {
            let mut opening = lock(&self.opening);
            if let Some(outline) = self.opened() {
                return Ok(outline);
            }
            match &*opening {
                // One that has ended without a word has panicked.
                Opening::Begun(begun) if begun.has_changed().is_ok() => begun.clone(),
                _ => {
                    let (ends, begun) = watch::channel(());
                    *opening = Opening::Begun(begun.clone());
                    let entry = self.clone();
                    // A task of its own: it goes on when the request gives up.
                    tokio::spawn(async move {
                        let opened = entry.open().await;
                        let mut opening = lock(&entry.opening);
                        *opening = match opened {
                            Ok(outline) => {
                                let _ = entry.outline.set(outline);
                                Opening::NotBegun
                            }
                            Err(_) => Opening::Failed(Instant::now()),
                        };
                        drop(ends);
                    });
                    begun
                }
            }
        };
        let _ = begun.changed().await;
        self.opened().ok_or_else(|| self.unavailable(UNOPENED, None))
    }

    /// The model without its weights, if it is open already.
    pub fn opened(&self) -> Option<Arc<Outline>> {
        self.outline.get().cloned()
    }

    /// What strangers are told names no path and no address: the log does.
    fn unavailable(&self, message: &str, retry: Option<f64>) -> Box<Problem> {
        let detail = format!("The model `{}` cannot be used now: {message}", self.id());
        let mut problem = Problem::new(ProblemKind::ModelUnavailable, detail);
        problem.retry_after_s = retry.or(Some(60.0));
        Box::new(problem)
    }

    async fn open(self: &Arc<Self>) -> Result<Arc<Outline>, String> {
        let entry = self.clone();
        let opened = tokio::task::spawn_blocking(move || -> Result<Arc<Outline>, String> {
            // Of one on a hub all is downloaded, which may take long.
            let options = ModelOptions { progress: Some(entry.loads()), ..entry.options() };
            let model = Model::outline(&entry.source()?, &options).map_err(|error| error.to_string())?;
            let spec = serde_json::to_vec(model.spec()).map_err(|error| error.to_string())?;
            let digest = data_encoding::HEXLOWER.encode(&Sha256::digest(&spec));
            let weight_bytes = model.expected_weight_bytes();
            let engine = Engine::new(Arc::new(model));
            Ok(Arc::new(Outline { engine, spec: spec.into(), etag: format!("\"{digest}\""), weight_bytes }))
        });
        let opened = opened.await.unwrap_or_else(|_| Err("opening it failed".into()));
        *lock(&self.state) = match &opened {
            Ok(_) => State::Cold,
            Err(message) => {
                tracing::error!(model = self.id(), message, "the model cannot be opened");
                State::Failed
            }
        };
        opened
    }

    /// It is being loaded from the moment on at which what comes back is first told of progress.
    pub(super) fn loads(self: &Arc<Self>) -> ProgressListener {
        let (entry, told) = (self.clone(), OnceLock::new());
        Arc::new(move |progress| {
            let (done, total) = told.get_or_init(|| {
                let (done, total) = <(Arc<AtomicU64>, Arc<AtomicU64>)>::default();
                *lock(&entry.state) = State::Loading(done.clone(), total.clone());
                (done, total)
            });
            done.store(progress.done, Ordering::Relaxed);
            total.store(progress.total.unwrap_or(0), Ordering::Relaxed);
        })
    }

    /// What a program of that price takes here, in milliseconds.
    pub fn milliseconds(&self, price: &pellucid_graph::check::Price) -> f64 {
        lock(&self.pace).milliseconds(price.flops, price.own_flops, price.nodes)
    }

    /// Learns from what a program has done, and what that took.
    pub fn learn(&self, usage: &Usage) {
        let whole = self.opened().map_or(0, |outline| outline.weight_bytes / OF_WEIGHT_BYTES);
        lock(&self.pace).learn(usage, whole);
    }

    /// Keeps it in memory, once it is there, until what comes back is dropped. Held is what has begun, and what is about to;
    /// never what only waits: one job that waits may have to wait until another's model is loaded, for which there may be no
    /// room beside this one.
    pub fn hold(self: &Arc<Self>) -> Held {
        self.users.fetch_add(1, Ordering::SeqCst);
        Held(self.clone())
    }

    /// Whether anything holds it.
    pub fn is_held(&self) -> bool {
        self.users.load(Ordering::SeqCst) > 0
    }

    /// Whether another has waited long for its room: until that has it, no new jobs begin on this one, but for those that run alone.
    pub fn makes_way(&self) -> bool {
        self.makes_way.load(Ordering::SeqCst)
    }

    /// Another engine thread for it, as a test has one.
    #[cfg(test)]
    pub(crate) fn inhabit(&self, house: House) {
        *lock(&self.state) = State::Hot(Arc::new(house), 1);
    }

    /// Its engine thread, where it is in memory; one that has ended by a panic is none.
    pub fn house(&self) -> Option<Arc<House>> {
        match &*lock(&self.state) {
            State::Hot(house, _) if !house.is_dead() => Some(house.clone()),
            _ => None,
        }
    }

    /// Where its engine thread has ended by a panic, it is not in memory any more. Another that was started since stays.
    pub(super) fn bury(&self) {
        let mut state = lock(&self.state);
        if matches!(&*state, State::Hot(house, _) if house.is_dead()) {
            *state = State::Cold;
        }
    }

    /// Bytes that it takes of the room for all models.
    pub(super) fn bytes(&self) -> u64 {
        match &*lock(&self.state) {
            State::Hot(_, bytes) => *bytes,
            _ => self.reserved.load(Ordering::SeqCst),
        }
    }

    /// The model, in short.
    pub fn summary(&self) -> ModelEntry {
        let outline = self.outline.get();
        let spec = outline.map(|outline| outline.model().spec());
        let (state, progress, bytes, error) = match &*lock(&self.state) {
            State::Cold => (ModelState::Cold, None, None, None),
            State::Loading(done, total) => {
                let (done, total) = (done.load(Ordering::Relaxed), total.load(Ordering::Relaxed));
                let part = if total > 0 { done as f64 / total as f64 } else { 0.0 };
                (ModelState::Loading, Some(part), None, None)
            }
            State::Hot(_, bytes) => (ModelState::Hot, None, Some(*bytes), None),
            State::Failed => (ModelState::Failed, None, None, Some(UNOPENED.to_owned())),
        };
        ModelEntry {
            id: self.id().to_owned(),
            name: spec.map_or_else(|| self.id().to_owned(), |spec| spec.name.clone()),
            state,
            progress,
            pinned: self.config.pinned,
            default: self.config.default,
            family: spec.map(|spec| spec.family.clone()),
            layers: spec.map(|spec| spec.sizes.layers),
            hidden: spec.map(|spec| spec.sizes.hidden),
            parameters_bytes: bytes.or(outline.map(|outline| outline.weight_bytes)),
            capabilities: spec.map(|spec| spec.capabilities.clone()),
            error,
        }
    }
}

/// How a model is opened.
pub(crate) fn model_options(model: &ModelConfig) -> ModelOptions {
    ModelOptions {
        precision: match model.dtype {
            WeightType::F32 => Precision::F32,
            WeightType::Bf16 => Precision::Bf16,
            WeightType::Quantised => Precision::Quantised,
        },
        revision: model.revision.clone(),
        progress: None,
    }
}

/// Where a model comes from.
pub(crate) fn source_of(model: &ModelConfig) -> Result<String, String> {
    match model.source() {
        BUNDLED => {
            let folder = pellucid::bundled_folder().map_err(|error| error.to_string())?;
            Ok(folder.to_string_lossy().into_owned())
        }
        source => Ok(source.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_model_that_could_not_be_opened_is_not_tried_again_for_every_request() {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("model");
        let config = format!("id = 'm'\nsource = '{}'", source.display());
        let entry = Arc::new(Entry::new(toml::from_str(&config).unwrap()));
        assert!(entry.outline().await.is_err());
        // From here on it could be opened.
        std::fs::create_dir(&source).unwrap();
        for file in std::fs::read_dir(pellucid::bundled_folder().unwrap()).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), source.join(file.file_name())).unwrap();
        }
        assert!(entry.outline().await.is_err());
        let earlier = Instant::now().checked_sub(AGAIN).unwrap();
        *lock(&entry.opening) = Opening::Failed(earlier);
        assert!(entry.outline().await.is_ok());
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn many_who_gave_up_waiting_for_a_model_leave_one_opening_behind() {
        let folder = tempfile::tempdir().unwrap();
        for file in std::fs::read_dir(pellucid::bundled_folder().unwrap()).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), folder.path().join(file.file_name())).unwrap();
        }
        // A file of which nothing comes.
        let slow = folder.path().join("tokenizer_config.json");
        let _ = std::fs::remove_file(&slow);
        assert!(std::process::Command::new("mkfifo").arg(&slow).status().unwrap().success());
        let config = format!("id = 'm'\nsource = '{}'", folder.path().display());
        let mut entry = Entry::new(toml::from_str(&config).unwrap());
        entry.patience = Duration::from_millis(1);
        let entry = Arc::new(entry);
        for _ in 0..20 {
            assert!(entry.outline().await.is_err());
        }
        assert!(Arc::strong_count(&entry) < 10, "{} wait", Arc::strong_count(&entry));
        // It comes, so that nothing waits beyond the test: whoever opens the file after this finds it whole.
        let comes = tokio::task::spawn_blocking(move || {
            let mut pipe = std::fs::OpenOptions::new().write(true).open(&slow).unwrap();
            let whole = slow.with_extension("whole");
            std::fs::write(&whole, "{}").unwrap();
            std::fs::rename(&whole, &slow).unwrap();
            std::io::Write::write_all(&mut pipe, b"{}").unwrap();
        });
        comes.await.unwrap();
    }

    #[test]
    fn the_pace_is_learnt_and_no_single_job_turns_it() {
        let mut pace = Pace { milliseconds_per_flop: 1e-6, milliseconds_per_node: 2e-3 };
        pace.learn(&passes(1_000_000, 1e9), 0);
        assert!(pace.milliseconds_per_flop < 1.2e-6);
        for _ in 0..500 {
            pace.learn(&passes(1_000_000, 5.0), 0);
        }
        assert!((pace.milliseconds(1_000_000, 0, 0) - 5.05).abs() < 0.05);
    }

    /// Passes of so many operations, which took so long.
    fn passes(flops: u64, milliseconds: f64) -> Usage {
        let (pass_flops, pass_ms) = (flops, milliseconds);
        Usage { flops, measured_ms: milliseconds, pass_flops, pass_ms, nodes: 3, ..Usage::default() }
    }

    /// So many small nodes, which took so long.
    fn small_nodes(nodes: u64, milliseconds: f64) -> Usage {
        Usage { measured_ms: milliseconds, nodes, nodes_ms: milliseconds, ..Usage::default() }
    }

    #[test]
    fn what_stops_early_or_computes_of_its_own_leaves_the_price_of_a_pass_where_it_was() {
        // Twenty thousand million operations a second: a forward pass of 60 tokens.
        let mut pace = Pace::default();
        let forward = 100_000_000;
        let before = pace.milliseconds(forward, 0, 3);
        // Priced at a hundred steps of 20 tokens each, they run one.
        for _ in 0..300 {
            pace.learn(&passes(forward / 3, 5.0 / 3.0), 0);
        }
        let after = pace.milliseconds(forward, 0, 3);
        assert!((after / before - 1.0).abs() < 0.05, "{before} ms are {after} ms");
        // Copies of much, and nodes just too small to be long: they say nothing of passes, and little of nodes.
        for _ in 0..300 {
            let own = Usage { flops: 1 << 29, measured_ms: 2_000.0, ..passes(1_000, 0.1) };
            pace.learn(&own, 0);
            pace.learn(&Usage { nodes_ms: 4_000.0, measured_ms: 4_000.0, ..small_nodes(1_000, 0.0) }, 0);
        }
        let after = pace.milliseconds(forward, 0, 3);
        assert!(after < 2.0 * before && after > before / 2.0, "{before} ms are {after} ms");
        assert!(pace.milliseconds(0, 0, 1_000) <= Pace::LEAST + 1_000.0 * Pace::OF_NODE.1);
    }

    #[test]
    fn operations_of_a_programs_own_cost_the_same_on_a_quick_model() {
        let mut pace = Pace::default();
        for _ in 0..500 {
            pace.learn(&passes(1_000_000_000, 5.0), 0);
        }
        let (own, of_passes) =
            (pace.milliseconds(20_000_000, 20_000_000, 0), pace.milliseconds(20_000_000, 0, 0));
        assert!((own - Pace::LEAST - 1.0).abs() < 1e-9 && of_passes < 0.2, "{own} ms, {of_passes} ms");
    }

    #[test]
    fn what_nodes_take_is_learnt_from_jobs_of_many_and_is_never_nothing() {
        let mut pace = Pace::default();
        // Two hundred thousand additions of one number each.
        let known = pace.milliseconds(200_000, 0, 200_000);
        assert!(known > 400.0, "{known}");
        for _ in 0..500 {
            pace.learn(&small_nodes(200_000, 1_000.0), 0);
            pace.learn(&passes(1_000_000_000, 60.0), 0);
        }
        assert!((pace.milliseconds(200_000, 0, 200_000) / 1_000.0 - 1.0).abs() < 0.02);
        assert!((pace.milliseconds(1_000_000_000, 0, 100) / 60.0 - 1.0).abs() < 0.02);
        for _ in 0..500 {
            pace.learn(&small_nodes(200_000, 0.06), 0);
            pace.learn(&passes(1_000_000_000, 0.06), 0);
        }
        assert!(pace.milliseconds(0, 0, 200_000) >= 200.0);
        assert!(pace.milliseconds(1_000_000_000, 0, 0) > 0.9);
    }

    #[test]
    fn as_many_quick_jobs_as_slow_ones_leave_the_price_where_it_was() {
        let mut pace = Pace::default();
        let before = pace.milliseconds(1_000_000_000, 0, 3);
        for _ in 0..200 {
            pace.learn(&passes(1_000_000_000, 500.0), 0);
            pace.learn(&passes(1_000_000_000, 5.0), 0);
        }
        let after = pace.milliseconds(1_000_000_000, 0, 3);
        assert!((after / before - 1.0).abs() < 0.1, "{before} ms are {after} ms");
    }

    #[test]
    fn who_leaves_a_model_near_its_beginning_tells_nothing_of_it() {
        let (whole, mut pace) = (200_000_000, Pace::default());
        let before = pace.milliseconds(whole, 0, 3);
        for _ in 0..400 {
            // One token, which ends after the first attention: almost all of the time is the pass's own.
            pace.learn(&Usage { tokens: 1, ..passes(whole / 24, 5.0) }, whole);
        }
        assert_eq!(pace.milliseconds(whole, 0, 3), before);
        pace.learn(&Usage { tokens: 1, ..passes(whole, 20.0) }, whole);
        assert!(pace.milliseconds(whole, 0, 3) > before, "who walks through it does");
    }
}
