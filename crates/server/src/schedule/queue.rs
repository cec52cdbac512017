//! Weighted fair queueing over priced cost, by account: who has been given least goes first.
//!
//! Start-time fair queueing (Goyal, Vin, Cheng 1996). Each account has a *start tag*: the virtual time at which its next job
//! would begin if every account were served all the time, at the rate of its weight. The job with the least tag goes next,
//! and virtual time is the tag of the job that went last. An account that comes new begins at virtual time, so its first job
//! goes before any that a flood has queued up.

use std::collections::{BTreeMap, HashMap};

use pellucid_client::api::{Priority, QueuePlace};

/// A job that waits.
#[derive(Clone, Debug, PartialEq)]
pub struct Waiting {
    /// Its id.
    pub job: String,
    /// Whose it is.
    pub account: String,
    /// The account's share, relative to others'.
    pub weight: f64,
    /// Jobs that the account may have begun at once.
    pub concurrent: Option<u64>,
    /// Among the account's own.
    pub priority: Priority,
    /// What it costs, in milliseconds.
    pub cost: f64,
    /// Bytes that it holds at once, by its price, and its program.
    pub bytes: u64,
    /// What it may take.
    pub bounds: Bounds,
    /// Floating-point operations, by its price.
    pub flops: u64,
    /// Nodes that run, by its price.
    pub nodes: u64,
    /// When it was submitted, in milliseconds since 1970.
    pub since_ms: u64,
    /// When it is too late, the same.
    pub deadline_ms: Option<u64>,
    /// It takes more than a pass: known once it is chosen.
    pub is_long: bool,
}

/// What a job may take, as its account's limits say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes held at once; none: what the whole service may.
    pub peak_bytes: Option<u64>,
    /// Bytes of its result.
    pub result_bytes: Option<u64>,
}

/// Whether a job can go now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// It can.
    Goes,
    /// None of its account can; others may.
    AccountWaits,
    /// It finds no room until jobs end that take more than a pass: short ones that find theirs go before it, and do not delay it.
    WaitsForLong,
    /// None can.
    AllWait,
}

/// A job's place among those of its account: by priority, then as they came.
type Place = (std::cmp::Reverse<Priority>, u64);

#[derive(Default)]
struct Line {
    /// The start tag of its next job.
    tag: f64,
    jobs: BTreeMap<Place, Waiting>,
}

/// The jobs that wait for one model.
#[derive(Default)]
pub struct FairQueue {
    lines: HashMap<String, Line>,
    places: HashMap<String, (String, Place)>,
    virtual_time: f64,
    sequence: u64,
    cost: f64,
}

impl FairQueue {
    /// Adds a job behind those of its account with its priority.
    pub fn push(&mut self, waiting: Waiting) {
        self.sequence += 1;
        let place = (std::cmp::Reverse(waiting.priority), self.sequence);
        self.places.insert(waiting.job.clone(), (waiting.account.clone(), place));
        self.cost += waiting.cost;
        let virtual_time = self.virtual_time;
        let line = self.lines.entry(waiting.account.clone()).or_default();
        if line.jobs.is_empty() {
            line.tag = line.tag.max(virtual_time);
        }
        line.jobs.insert(place, waiting);
    }

    /// Takes a job out.
    pub fn remove(&mut self, job: &str) -> Option<Waiting> {
        let (account, place) = self.places.remove(job)?;
        let waiting = self.lines.get_mut(&account)?.jobs.remove(&place)?;
        self.cost -= waiting.cost;
        Some(waiting)
    }

    /// The job that goes next, of those that `fit`.
    pub fn pick(&mut self, mut fit: impl FnMut(&Waiting) -> Fit) -> Option<Waiting> {
        let mut order: Vec<(f64, u64, &String)> = self
            .lines
            .iter()
            .filter_map(|(account, line)| Some((line.tag, line.jobs.keys().next()?.1, account)))
            .collect();
        order.sort_by(|one, other| one.0.total_cmp(&other.0).then(one.1.cmp(&other.1)));
        let mut chosen = None;
        for (_, _, account) in order {
            let head = self.lines.get(account).and_then(|line| line.jobs.values().next());
            match head.map(&mut fit) {
                Some(Fit::Goes) => {
                    chosen = Some(account.clone());
                    break;
                }
                Some(Fit::AllWait) => break,
                Some(Fit::AccountWaits | Fit::WaitsForLong) | None => {}
            }
        }
        let line = self.lines.get_mut(&chosen?)?;
        let (_, waiting) = line.jobs.pop_first()?;
        self.virtual_time = self.virtual_time.max(line.tag);
        line.tag += waiting.cost / waiting.weight;
        self.places.remove(&waiting.job);
        self.cost -= waiting.cost;
        self.forget_idle();
        Some(waiting)
    }

    /// Corrects what an account was charged: `difference` is what a job took, in milliseconds, less what it was priced at.
    pub fn charge(&mut self, account: &str, weight: f64, difference: f64) {
        if let Some(line) = self.lines.get_mut(account) {
            line.tag += difference / weight;
        }
    }

    /// Jobs that would go before a job as things stand, and what these cost.
    pub fn place(&self, job: &str) -> Option<QueuePlace> {
        let (account, place) = self.places.get(job)?;
        self.places_until(account, *place).pop().map(|(_, place)| place)
    }

    /// The same of every job of an account.
    pub fn places(&self, account: &str) -> Vec<(&str, QueuePlace)> {
        self.places_until(account, (std::cmp::Reverse(Priority::Low), u64::MAX))
    }

    /// The places of an account's jobs up to one, in the order in which they go: one walk over what goes before the last.
    fn places_until(&self, account: &str, last: Place) -> Vec<(&str, QueuePlace)> {
        let Some(own) = self.lines.get(account) else { return Vec::new() };
        // A sum of nothing is -0.0, which nobody wants to read.
        let (mut found, mut tags, mut ahead) = (Vec::new(), Vec::new(), 0.0);
        for (position, waiting) in own.jobs.range(..=last).map(|(_, waiting)| waiting).enumerate() {
            tags.push(own.tag + ahead / waiting.weight);
            let place = QueuePlace { position: position as u64, ahead_milliseconds: ahead };
            found.push((waiting.job.as_str(), place));
            ahead += waiting.cost;
        }
        // Of others' jobs: how many go before each of these and after the one before it, and what they cost.
        let mut between = vec![(0_u64, 0.0); found.len()];
        for line in self.lines.iter().filter(|(name, _)| *name != account).map(|(_, line)| line) {
            let (mut theirs, mut next) = (line.tag, 0);
            for waiting in line.jobs.values() {
                next += tags.iter().skip(next).take_while(|&&tag| tag <= theirs).count();
                let Some((jobs, cost)) = between.get_mut(next) else { break };
                *jobs += 1;
                *cost += waiting.cost;
                theirs += waiting.cost / waiting.weight;
            }
        }
        let (mut jobs, mut cost) = (0, 0.0);
        for ((_, place), before) in found.iter_mut().zip(between) {
            jobs += before.0;
            cost += before.1;
            place.position += jobs;
            place.ahead_milliseconds += cost;
        }
        found
    }

    /// Jobs whose time is over at `now_ms`, taken out.
    pub fn overdue(&mut self, now_ms: u64) -> Vec<Waiting> {
        let over = |waiting: &&Waiting| waiting.deadline_ms.is_some_and(|deadline| deadline <= now_ms);
        let jobs: Vec<String> = self
            .lines
            .values()
            .flat_map(|line| line.jobs.values())
            .filter(over)
            .map(|waiting| waiting.job.clone())
            .collect();
        jobs.iter().filter_map(|job| self.remove(job)).collect()
    }

    /// Whether a job is in it.
    pub fn contains(&self, job: &str) -> bool {
        self.places.contains_key(job)
    }

    /// Jobs.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// What all cost, in milliseconds.
    pub fn cost(&self) -> f64 {
        self.cost.max(0.0)
    }

    /// Jobs of an account.
    pub fn of_account(&self, account: &str) -> usize {
        self.lines.get(account).map_or(0, |line| line.jobs.len())
    }

    /// Accounts that wait.
    pub fn accounts(&self) -> impl Iterator<Item = &String> {
        self.lines.iter().filter(|(_, line)| !line.jobs.is_empty()).map(|(account, _)| account)
    }

    /// An account without jobs whose tag is past is as one that comes new.
    fn forget_idle(&mut self) {
        let virtual_time = self.virtual_time;
        self.lines.retain(|_, line| !line.jobs.is_empty() || line.tag > virtual_time);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A job that waits, without bounds.
    pub fn waiting(job: &str, account: &str, cost: f64) -> Waiting {
        Waiting {
            job: job.into(),
            account: account.into(),
            weight: 1.0,
            concurrent: None,
            priority: Priority::Normal,
            cost,
            bytes: 0,
            bounds: Bounds::default(),
            flops: 0,
            nodes: 0,
            since_ms: 0,
            deadline_ms: None,
            is_long: false,
        }
    }

    fn all(queue: &mut FairQueue) -> Vec<String> {
        std::iter::from_fn(|| queue.pick(|_| Fit::Goes)).map(|waiting| waiting.job).collect()
    }

    #[test]
    fn a_flood_delays_another_by_one_job() {
        let mut queue = FairQueue::default();
        (0..1000).for_each(|number| queue.push(waiting(&format!("flood{number}"), "a", 5.0)));
        for _ in 0..10 {
            queue.pick(|_| Fit::Goes);
        }
        queue.push(waiting("one", "b", 5.0));
        let place = queue.place("one").unwrap();
        assert_eq!((place.position, place.ahead_milliseconds.to_bits()), (0, 0));
        assert_eq!(queue.pick(|_| Fit::Goes).unwrap().job, "one");
        assert_eq!(queue.pick(|_| Fit::Goes).unwrap().job, "flood10");
        assert_eq!(queue.len(), 989);
        assert_eq!(queue.cost(), 989.0 * 5.0);
    }

    #[test]
    fn shares_follow_cost_and_weight() {
        let mut queue = FairQueue::default();
        for number in 0..300 {
            queue.push(waiting(&format!("cheap{number}"), "a", 1.0));
            queue.push(waiting(&format!("dear{number}"), "b", 10.0));
            queue.push(Waiting { weight: 2.0, ..waiting(&format!("heavy{number}"), "c", 1.0) });
        }
        let first: Vec<String> = all(&mut queue).into_iter().take(320).collect();
        let count = |name: &str| first.iter().filter(|job| job.starts_with(name)).count() as f64;
        assert!((count("cheap") / count("dear") - 10.0).abs() < 1.0, "{} {}", count("cheap"), count("dear"));
        assert!((count("heavy") / count("cheap") - 2.0).abs() < 0.2);
    }

    #[test]
    fn priorities_hold_within_an_account_only() {
        let mut queue = FairQueue::default();
        queue.push(Waiting { priority: Priority::Low, ..waiting("low", "a", 1.0) });
        queue.push(waiting("normal", "a", 1.0));
        queue.push(Waiting { priority: Priority::High, ..waiting("high", "a", 1.0) });
        queue.push(waiting("other", "b", 1.0));
        assert_eq!(all(&mut queue), ["high", "other", "normal", "low"]);
    }

    #[test]
    fn who_waits_for_its_own_limit_holds_up_nobody() {
        let mut queue = FairQueue::default();
        queue.push(waiting("a1", "a", 1.0));
        queue.push(waiting("b1", "b", 1.0));
        let fit = |waiting: &Waiting| if waiting.account == "a" { Fit::AccountWaits } else { Fit::Goes };
        assert_eq!(queue.pick(fit).unwrap().job, "b1");
        assert_eq!(queue.pick(fit), None);
        assert_eq!(queue.pick(|_| Fit::AllWait), None);
        assert_eq!(queue.len(), 1);
    }

    #[test]
    fn what_a_job_took_beyond_its_price_is_charged() {
        let mut queue = FairQueue::default();
        (0..3).for_each(|number| queue.push(waiting(&format!("a{number}"), "a", 1.0)));
        (0..3).for_each(|number| queue.push(waiting(&format!("b{number}"), "b", 1.0)));
        assert_eq!(queue.pick(|_| Fit::Goes).unwrap().job, "a0");
        queue.charge("a", 1.0, 5.0);
        assert_eq!(all(&mut queue), ["b0", "b1", "b2", "a1", "a2"]);
    }

    #[test]
    fn jobs_whose_time_is_over_are_found() {
        let mut queue = FairQueue::default();
        queue.push(Waiting { deadline_ms: Some(10), ..waiting("soon", "a", 1.0) });
        queue.push(Waiting { deadline_ms: Some(20), ..waiting("late", "a", 1.0) });
        queue.push(waiting("never", "a", 1.0));
        let jobs: Vec<String> = queue.overdue(10).into_iter().map(|waiting| waiting.job).collect();
        assert_eq!(jobs, ["soon"]);
        assert_eq!((queue.len(), queue.remove("soon")), (2, None));
    }

    proptest! {
        /// Whatever comes and goes: nothing is lost or doubled, and a place foretells the order.
        #[test]
        fn every_job_goes_once_and_its_place_is_true(
            jobs in proptest::collection::vec((0..4_usize, 1..20_u32, 0..3_u8), 1..60),
            removed in proptest::collection::vec(0..60_usize, 0..10),
        ) {
            let mut queue = FairQueue::default();
            for (number, &(account, cost, priority)) in jobs.iter().enumerate() {
                let priority = [Priority::Low, Priority::Normal, Priority::High][usize::from(priority)];
                queue.push(Waiting { priority, ..waiting(&number.to_string(), &account.to_string(), f64::from(cost)) });
            }
            let mut left: Vec<String> = (0..jobs.len()).map(|number| number.to_string()).collect();
            for number in removed {
                let job = number.to_string();
                prop_assert_eq!(queue.remove(&job).is_some(), left.contains(&job));
                left.retain(|known| *known != job);
            }
            let places: HashMap<String, u64> =
                left.iter().map(|job| (job.clone(), queue.place(job).unwrap().position)).collect();
            for account in 0..4 {
                for (job, place) in queue.places(&account.to_string()) {
                    prop_assert_eq!(Some(place), queue.place(job));
                }
            }
            let order = all(&mut queue);
            let mut sorted = order.clone();
            sorted.sort();
            left.sort();
            prop_assert_eq!(sorted, left);
            for (position, job) in order.iter().enumerate() {
                // Ties between accounts may fall either way.
                prop_assert!(places[job] <= position as u64 && places[job] + 4 > position as u64, "{}", job);
            }
            prop_assert!(queue.is_empty() && queue.cost() == 0.0);
        }
    }
}
