//! The registry: which models there are, which are in memory, loading on request, giving up who is idle.

mod entry;
mod room;

use std::sync::{Arc, Mutex};
use std::time::Instant;

use pellucid_client::api::{Problem, ProblemKind};
use pellucid_engine::Engine;
use pellucid_graph::suggest::closest;
use pellucid_models::{Model, ModelOptions};
use tokio::sync::mpsc;

use crate::config::{EngineConfig, ModelConfig};
use crate::schedule::house::{House, Report};

pub use entry::{Entry, Held, Outline};
pub(crate) use entry::{UNOPENED, model_options, source_of};
pub use room::{Haste, Turn};

use entry::{State, lock};
use room::Line;

/// Names that are proposed for one that is not known.
const NEAREST: usize = 3;

/// The models that there are.
pub struct Registry {
    entries: Vec<Arc<Entry>>,
    engine: EngineConfig,
    reports: mpsc::UnboundedSender<Report>,
    /// Held while it is looked for room, never while somebody waits for it: who fits does not wait for one that does not.
    memory: tokio::sync::Mutex<()>,
    line: Mutex<Line>,
}

impl Registry {
    /// Those of the configuration; none is in memory. What their engines report goes to `reports`.
    pub fn new(
        models: &[ModelConfig],
        engine: &EngineConfig,
        reports: mpsc::UnboundedSender<Report>,
    ) -> Registry {
        Registry {
            entries: models.iter().cloned().map(Entry::new).map(Arc::new).collect(),
            engine: engine.clone(),
            reports,
            memory: tokio::sync::Mutex::new(()),
            line: Mutex::default(),
        }
    }

    /// All of them, in the configuration's order.
    pub fn entries(&self) -> &[Arc<Entry>] {
        &self.entries
    }

    /// The one of that id.
    pub fn get(&self, id: &str) -> Option<&Arc<Entry>> {
        self.entries.iter().find(|entry| entry.id() == id)
    }

    /// The one that was asked for, of those that may be used; none was: the default.
    ///
    /// # Errors
    /// 404 with the nearest ids. One that may not be used is as one that is not there.
    pub fn find(
        &self,
        id: Option<&str>,
        may_use: impl Fn(&str) -> bool,
    ) -> Result<&Arc<Entry>, Box<Problem>> {
        let mut usable = self.entries.iter().filter(|entry| may_use(entry.id()));
        let found = match id {
            Some(id) => usable.find(|entry| entry.id() == id),
            None => usable.find(|entry| entry.config.default),
        };
        found.ok_or_else(|| {
            let ids: Vec<&str> =
                self.entries.iter().map(|entry| entry.id()).filter(|id| may_use(id)).collect();
            let (detail, nearest) = match id {
                Some(id) => {
                    let shown = pellucid_graph::fault::quote(id);
                    (
                        format!("There is no model {shown} here, or this account may not use it."),
                        nearest(id, &ids),
                    )
                }
                None => ("No model was named, and there is no default here.".to_owned(), Vec::new()),
            };
            let mut problem = Problem::new(ProblemKind::UnknownModel, detail);
            if nearest.is_empty() && !ids.is_empty() {
                let all: Vec<String> = ids.iter().take(8).map(|id| format!("`{id}`")).collect();
                problem.hint = Some(format!("there is {}", all.join(", ")));
            }
            problem.nearest = nearest;
            Box::new(problem)
        })
    }

    /// The engine thread of a model that is held; loads it where it is not in memory, as soon as it is its turn and there is room.
    ///
    /// # Errors
    /// Why it cannot be loaded.
    pub async fn load(&self, held: &Held, turn: &Turn<'_>) -> Result<Arc<House>, String> {
        let entry = held.entry();
        let _one = entry.loading.lock().await;
        if let Some(house) = entry.house() {
            return Ok(house);
        }
        let outline = entry.outline_at_last().await.map_err(|problem| problem.detail.unwrap_or_default())?;
        *lock(&entry.state) = State::Loading(Arc::default(), Arc::new(outline.weight_bytes.into()));
        let loaded = self.load_into_memory(entry, turn, &outline).await;
        if let Err(message) = &loaded {
            tracing::error!(model = entry.id(), message, "the model cannot be loaded");
            *lock(&entry.state) = State::Failed;
        }
        loaded
    }

    async fn load_into_memory(
        &self,
        entry: &Arc<Entry>,
        turn: &Turn<'_>,
        outline: &Outline,
    ) -> Result<Arc<House>, String> {
        let _room = self.make_room(entry, outline.weight_bytes, turn).await?;
        let started = Instant::now();
        let one = entry.clone();
        let model = tokio::task::spawn_blocking(move || -> Result<Model, String> {
            let options = ModelOptions { progress: Some(one.loads()), ..one.options() };
            Model::open(&one.source()?, &options).map_err(|error| error.to_string())
        });
        let model = model.await.unwrap_or_else(|_| Err("loading it failed".into()))?;
        let bytes = model.weight_bytes() as u64;
        let engine = Engine::new(Arc::new(model));
        let house = House::start(entry.id(), engine, self.engine.serves(), self.reports.clone());
        let house = Arc::new(house.map_err(|error| error.to_string())?);
        *lock(&entry.loaded) = Instant::now();
        *lock(&entry.state) = State::Hot(house.clone(), bytes);
        // That it has ended at its start may have been reported before this.
        entry.bury();
        tracing::info!(
            model = entry.id(),
            bytes,
            seconds = started.elapsed().as_secs_f64(),
            "the model is loaded"
        );
        Ok(house)
    }

    /// An engine thread of that model has ended by itself: where it has no other since, the next job loads it anew.
    pub fn lost(&self, id: &str) {
        if let Some(entry) = self.get(id) {
            entry.bury();
        }
    }

    /// Ends all engine threads, once what is in them has ended.
    pub async fn close(&self) {
        for entry in &self.entries {
            if let Some(house) = entry.house() {
                let _ = tokio::task::spawn_blocking(move || house.close()).await;
            }
        }
    }
}

/// The ids nearest to one that is not known.
fn nearest(id: &str, ids: &[&str]) -> Vec<String> {
    let mut left: Vec<&str> = ids.to_vec();
    let mut found = Vec::new();
    while found.len() < NEAREST {
        // With and without the owner.
        let short = |text: &str| text.rsplit('/').next().unwrap_or_default().to_ascii_lowercase();
        let lower = id.to_ascii_lowercase();
        let by_short = || left.iter().copied().find(|known| short(known) == short(&lower));
        let near = closest(id, left.iter().copied()).or_else(by_short);
        let Some(near) = near.map(str::to_owned) else { break };
        left.retain(|known| *known != near);
        found.push(near);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::room::ROOM;
    use super::*;
    use crate::config::{BUNDLED, WeightType};

    fn registry() -> Registry {
        let models = ["openai-community/gpt2", "EleutherAI/pythia-70m", "bundled"].map(|id| ModelConfig {
            id: id.into(),
            source: None,
            dtype: WeightType::F32,
            revision: None,
            pinned: false,
            default: id == "bundled",
            strict: false,
        });
        Registry::new(&models, &EngineConfig::default(), mpsc::unbounded_channel().0)
    }

    /// Models that are the bundled one under several names, and room for so many of them. Those called `half` take half as much. What
    /// a model holds in memory is a little more than its weights.
    async fn laboratory(names: &[&str], room: f64, pinned: &[&str]) -> Arc<Registry> {
        let models: Vec<ModelConfig> = names
            .iter()
            .map(|id| ModelConfig {
                id: (*id).into(),
                source: Some(BUNDLED.into()),
                dtype: if *id == "half" { WeightType::Bf16 } else { WeightType::F32 },
                revision: None,
                pinned: pinned.contains(id),
                default: false,
                strict: false,
            })
            .collect();
        let probe = Arc::new(Entry::new(models[0].clone()));
        let of_one = probe.outline().await.unwrap().weight_bytes;
        let weight_bytes = (of_one as f64 * room) as u64;
        let engine = EngineConfig { weight_bytes, idle_seconds: 0.0, ..EngineConfig::default() };
        Arc::new(Registry::new(&models, &engine, mpsc::unbounded_channel().0))
    }

    fn hot(registry: &Registry) -> Vec<&str> {
        registry.entries().iter().filter(|entry| entry.house().is_some()).map(|entry| entry.id()).collect()
    }

    const SOME_TIME: &Turn<'static> = &|| Some(Haste::None);

    async fn used(registry: &Registry, id: &str) {
        registry.load(&registry.get(id).unwrap().hold(), SOME_TIME).await.unwrap();
    }

    /// One that is being loaded meanwhile.
    fn waits(
        registry: &Arc<Registry>,
        entry: &Arc<Entry>,
        haste: Haste,
    ) -> tokio::task::JoinHandle<Result<(), String>> {
        let (registry, held) = (registry.clone(), entry.hold());
        tokio::spawn(async move { registry.load(&held, &move || Some(haste)).await.map(|_| ()) })
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn who_is_idle_may_stay_a_while_but_not_where_all_wait_for_another() {
        let mut registry = laboratory(&["a", "b"], 1.5, &[]).await;
        Arc::get_mut(&mut registry).unwrap().engine.idle_seconds = 3600.0;
        let (a, b) = (registry.get("a").unwrap().clone(), registry.get("b").unwrap().clone());
        used(&registry, "a").await;
        let patient = waits(&registry, &b, Haste::None);
        tokio::time::sleep(ROOM * 4).await;
        assert!(!patient.is_finished() && hot(&registry) == ["a"]);
        // As it is given up: what it waited with is forgotten too.
        patient.abort();
        let _ = patient.await;
        let soon = |waits| tokio::time::timeout(ROOM * 80, waits);
        soon(waits(&registry, &b, Haste::All)).await.unwrap().unwrap().unwrap();
        assert_eq!(hot(&registry), ["b"]);
        soon(waits(&registry, &a, Haste::All)).await.unwrap().unwrap().unwrap();
        assert_eq!(hot(&registry), ["a"]);
        registry.close().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn who_was_used_least_recently_is_given_up_first() {
        let registry = laboratory(&["a", "b", "c", "d"], 2.5, &[]).await;
        for id in ["a", "b", "a", "c"] {
            used(&registry, id).await;
        }
        assert_eq!(hot(&registry), ["a", "c"]);
        used(&registry, "d").await;
        assert_eq!(hot(&registry), ["c", "d"]);
        registry.close().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn nobody_is_given_up_while_in_use() {
        let registry = laboratory(&["a", "b"], 1.5, &[]).await;
        let (a, b) = (registry.get("a").unwrap().clone(), registry.get("b").unwrap().clone());
        let held = a.hold();
        let house = registry.load(&held, SOME_TIME).await.unwrap();
        let waits = waits(&registry, &b, Haste::All);
        tokio::time::sleep(ROOM * 4).await;
        assert!(!waits.is_finished() && hot(&registry) == ["a"]);
        assert!(matches!(*lock(&b.state), State::Loading(..)));
        // Others of whoever uses it get the same.
        assert!(Arc::ptr_eq(&registry.load(&a.hold(), SOME_TIME).await.unwrap(), &house));
        drop(held);
        waits.await.unwrap().unwrap();
        assert_eq!(hot(&registry), ["b"]);
        registry.close().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn who_fits_does_not_wait_for_one_that_does_not() {
        let registry = laboratory(&["a", "b", "half"], 1.7, &[]).await;
        let (a, b) = (registry.get("a").unwrap().clone(), registry.get("b").unwrap().clone());
        let held = a.hold();
        registry.load(&held, SOME_TIME).await.unwrap();
        let waits = waits(&registry, &b, Haste::None);
        tokio::time::sleep(ROOM).await;
        used(&registry, "half").await;
        // Nor is it given up for one for which that makes no room.
        tokio::time::sleep(ROOM * 2).await;
        assert!(!waits.is_finished());
        assert_eq!(hot(&registry), ["a", "half"]);
        // What is loaded is never more than there is room for.
        drop(held);
        waits.await.unwrap().unwrap();
        assert!(registry.bytes(|_| true) <= registry.engine.weight_bytes, "{:?}", hot(&registry));
        registry.close().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn who_is_in_steady_use_makes_way_for_who_has_waited_longest() {
        let mut registry = laboratory(&["a", "b", "c"], 1.5, &[]).await;
        Arc::get_mut(&mut registry).unwrap().engine.idle_seconds = ROOM.as_secs_f64() * 4.0;
        let of = |id: &str| registry.get(id).unwrap().clone();
        let (a, b, c) = (of("a"), of("b"), of("c"));
        let held = a.hold();
        registry.load(&held, SOME_TIME).await.unwrap();
        let first = waits(&registry, &b, Haste::None);
        tokio::time::sleep(ROOM / 2).await;
        assert!(!a.makes_way());
        let second = waits(&registry, &c, Haste::None);
        let soon = tokio::time::Instant::now() + ROOM * 80;
        while !a.makes_way() && tokio::time::Instant::now() < soon {
            tokio::time::sleep(ROOM / 10).await;
        }
        assert!(a.makes_way(), "it is in use, and stays for ever");
        // What runs on it ends first.
        tokio::time::sleep(ROOM * 2).await;
        assert!(hot(&registry) == ["a"]);
        drop(held);
        tokio::time::timeout(ROOM * 80, first).await.unwrap().unwrap().unwrap();
        assert!(hot(&registry) == ["b"] && !a.makes_way() && !second.is_finished());
        // That one stays for a while too, then it is the other's turn, not that of who comes later.
        let later = waits(&registry, &a, Haste::None);
        tokio::time::timeout(ROOM * 80, second).await.unwrap().unwrap().unwrap();
        assert!(hot(&registry) == ["c"] && !later.is_finished());
        tokio::time::timeout(ROOM * 80, later).await.unwrap().unwrap().unwrap();
        assert!([&a, &b, &c].iter().all(|entry| !entry.makes_way()));
        registry.close().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn nobody_makes_way_for_one_whose_turn_it_is_not() {
        let registry = laboratory(&["a", "b", "c"], 1.5, &[]).await;
        let (a, b, c) = (registry.get("a").unwrap(), registry.get("b").unwrap(), registry.get("c").unwrap());
        let held = a.hold();
        registry.load(&held, SOME_TIME).await.unwrap();
        let (own, none) = (registry.clone(), b.hold());
        let never = tokio::spawn(async move { own.load(&none, &|| None).await.map(|_| ()) });
        tokio::time::sleep(ROOM * 4).await;
        assert!(!a.makes_way());
        let other = waits(&registry, c, Haste::None);
        drop(held);
        tokio::time::timeout(ROOM * 80, other).await.unwrap().unwrap().unwrap();
        assert!(hot(&registry) == ["c"] && !never.is_finished());
        never.abort();
        registry.close().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn many_who_wait_for_a_model_share_one_loading() {
        let registry = laboratory(&["a"], 1.5, &[]).await;
        let entry = registry.get("a").unwrap().clone();
        let load = || {
            let (registry, entry) = (registry.clone(), entry.clone());
            tokio::spawn(async move { registry.load(&entry.hold(), SOME_TIME).await })
        };
        let waiting: Vec<_> = (0..30).map(|_| load()).collect();
        let mut houses = Vec::new();
        for one in waiting {
            houses.push(one.await.unwrap().unwrap());
        }
        assert!(houses.iter().all(|house| Arc::ptr_eq(house, &houses[0])));
        registry.close().await;
    }

    #[cfg(unix)]
    #[tokio::test(flavor = "multi_thread")]
    async fn a_model_that_takes_long_to_open_is_loaded_though_requests_do_not_wait_for_it() {
        let folder = tempfile::tempdir().unwrap();
        for file in std::fs::read_dir(pellucid::bundled_folder().unwrap()).unwrap() {
            let file = file.unwrap();
            std::os::unix::fs::symlink(file.path(), folder.path().join(file.file_name())).unwrap();
        }
        // A file that is read when the model is opened, of which nothing comes for a while.
        let slow = folder.path().join("tokenizer_config.json");
        let content = std::fs::read(&slow).unwrap_or_else(|_| b"{}".into());
        let _ = std::fs::remove_file(&slow);
        assert!(std::process::Command::new("mkfifo").arg(&slow).status().unwrap().success());
        let source = folder.path().to_str().unwrap().to_owned();
        let config = ModelConfig { source: Some(source), ..registry().entries[2].config.clone() };
        let mut registry = Registry::new(&[config], &EngineConfig::default(), mpsc::unbounded_channel().0);
        let patience = ROOM;
        Arc::get_mut(&mut registry.entries[0]).unwrap().patience = patience;
        let registry = Arc::new(registry);
        let entry = registry.entries[0].clone();
        let waits = waits(&registry, &entry, Haste::None);
        let refused = entry.outline().await.err().unwrap();
        assert!(
            refused.detail.as_ref().is_some_and(|why| why.contains("is being downloaded")),
            "{refused:?}"
        );
        tokio::time::sleep(patience * 2).await;
        assert!(!waits.is_finished(), "it was given up");
        // It comes: whoever opens the file after this finds it whole.
        let comes = tokio::task::spawn_blocking(move || {
            let mut pipe = std::fs::OpenOptions::new().write(true).open(&slow).unwrap();
            let whole = slow.with_extension("whole");
            std::fs::write(&whole, &content).unwrap();
            std::fs::rename(&whole, &slow).unwrap();
            std::io::Write::write_all(&mut pipe, &content).unwrap();
        });
        comes.await.unwrap();
        waits.await.unwrap().unwrap();
        assert!(entry.outline().await.is_ok() && entry.house().is_some());
        registry.close().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn pinned_models_stay_and_who_finds_no_room_is_told() {
        let registry = laboratory(&["a", "b"], 1.5, &["a"]).await;
        used(&registry, "a").await;
        let refused =
            registry.load(&registry.get("b").unwrap().hold(), &|| Some(Haste::All)).await.err().unwrap();
        assert_eq!(refused, "pinned models leave no room for it");
        assert_eq!(hot(&registry), ["a"]);
        registry.close().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_model_whose_thread_has_ended_is_loaded_anew_and_a_late_report_takes_no_other_away() {
        let registry = laboratory(&["a"], 1.5, &[]).await;
        let entry = registry.get("a").unwrap().clone();
        used(&registry, "a").await;
        let house = entry.house().unwrap();
        // Reported of one before it.
        registry.lost("a");
        assert!(entry.house().is_some_and(|now| Arc::ptr_eq(&now, &house)), "it works, and is taken away");
        house.close();
        let (reports, mut reported) = mpsc::unbounded_channel();
        let dead = House::spawn("a", reports, |_| std::panic::resume_unwind(Box::new("at its start")));
        reported.recv().await.unwrap();
        *lock(&entry.state) = State::Hot(Arc::new(dead.unwrap()), 1);
        // Reported before it was known as the model's.
        assert!(entry.house().is_none(), "jobs go to one that has ended");
        used(&registry, "a").await;
        assert!(entry.house().is_some_and(|house| !house.is_dead()));
        registry.close().await;
    }

    #[test]
    fn names_that_are_not_known_are_refused_with_the_nearest() {
        let registry = registry();
        let problem = |id: &str| registry.find(Some(id), |_| true).err().unwrap();
        assert_eq!(problem("openai-comunity/gpt2").nearest, ["openai-community/gpt2"]);
        assert_eq!(problem("gpt2").nearest, ["openai-community/gpt2"]);
        assert_eq!(problem("bundle").nearest, ["bundled"]);
        assert_eq!(problem("llama").nearest, [""; 0]);
        assert!(problem("llama").hint.unwrap().contains("`bundled`"));
        assert_eq!(registry.find(None, |_| true).unwrap().id(), "bundled");
        // What may not be used is not proposed either.
        let hidden = registry.find(Some("bundle"), |id| id != "bundled").err().unwrap();
        assert!(hidden.nearest.is_empty() && !hidden.hint.unwrap().contains("bundled"));
        assert!(registry.find(None, |id| id != "bundled").is_err());
    }
}
