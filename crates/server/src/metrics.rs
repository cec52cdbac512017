//! What is measured, under Prometheus' names.

use pellucid_client::api::ProblemKind;
use pellucid_engine::{PassReport, PrefixCounts};
use prometheus::{
    Counter, CounterVec, Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, Opts, Registry,
    TextEncoder,
};

use crate::prefixes::Prefixes;

/// What is measured.
pub struct Metrics {
    registry: Registry,
    requests: CounterVec,
    request_seconds: Histogram,
    jobs: CounterVec,
    errors: CounterVec,
    problems: CounterVec,
    queued: Gauge,
    queued_seconds: Gauge,
    running: Gauge,
    wait_seconds: Histogram,
    job_seconds: Histogram,
    passes: CounterVec,
    pass_seconds: HistogramVec,
    pass_rows: HistogramVec,
    pass_tokens: HistogramVec,
    pass_accounts: HistogramVec,
    flops: CounterVec,
    store_failures: Counter,
    weight_bytes: GaugeVec,
    held_bytes: GaugeVec,
    reserved_bytes: GaugeVec,
    prefix_bytes: Gauge,
    prefix_most_bytes: Gauge,
    prefix_tokens: Counter,
    prefix_hits: Counter,
    prefix_misses: Counter,
    prefix_evictions: Counter,
    connections: Gauge,
    resident_bytes: Option<Gauge>,
    threads: Option<Gauge>,
}

/// What the system says of this process: bytes in memory, and threads. Elsewhere than on Linux it is not known.
fn process() -> Option<(f64, f64)> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let figure = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<f64>().ok()
    };
    Some((figure("VmRSS:")? * 1024.0, figure("Threads:")?))
}

impl Default for Metrics {
    fn default() -> Self {
        let registry = Registry::new();
        macro_rules! metric {
            ($made:expr) => {{
                // Names and labels are constants of this file: a test makes them all.
                #[allow(clippy::expect_used, reason = "a constant of this file")]
                let metric = $made.expect("the metric's name is right");
                #[allow(clippy::expect_used, reason = "a constant of this file")]
                registry.register(Box::new(metric.clone())).expect("the metric is there once");
                metric
            }};
        }
        let counter =
            |name: &str, help: &str, labels: &[&str]| CounterVec::new(Opts::new(name, help), labels);
        let by_model = |name: &str, help: &str, buckets: &[f64]| {
            HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), &["model"])
        };
        let seconds = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0];
        let counts = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 1024.0, 4096.0, 16384.0];
        let histogram = |name: &str, help: &str| {
            Histogram::with_opts(HistogramOpts::new(name, help).buckets(seconds.to_vec()))
        };
        let metrics = Metrics {
            requests: metric!(counter(
                "pellucid_http_requests_total",
                "Requests, by route and status.",
                &["route", "status"]
            )),
            request_seconds: metric!(histogram(
                "pellucid_http_request_seconds",
                "How long requests took, to the answer's head."
            )),
            jobs: metric!(counter("pellucid_jobs_ended_total", "Jobs that ended, by state.", &["state"])),
            errors: metric!(counter("pellucid_job_errors_total", "Jobs that failed, by kind.", &["kind"])),
            problems: metric!(counter(
                "pellucid_http_problems_total",
                "Requests that were answered with a problem, by kind.",
                &["kind"]
            )),
            queued: metric!(Gauge::new("pellucid_queue_jobs", "Jobs that wait.")),
            queued_seconds: metric!(Gauge::new(
                "pellucid_queue_seconds",
                "What the jobs that wait take, estimated."
            )),
            running: metric!(Gauge::new("pellucid_running_jobs", "Jobs that run.")),
            wait_seconds: metric!(histogram(
                "pellucid_queue_wait_seconds",
                "From a job's submission to the beginning of its run."
            )),
            job_seconds: metric!(histogram("pellucid_job_seconds", "From a job's submission to its end.")),
            passes: metric!(counter("pellucid_passes_total", "Passes through a model.", &["model"])),
            pass_seconds: metric!(by_model("pellucid_pass_seconds", "How long passes took.", &seconds)),
            pass_rows: metric!(by_model("pellucid_pass_rows", "Rows of a pass.", &counts)),
            pass_tokens: metric!(by_model("pellucid_pass_tokens", "Tokens of a pass.", &counts)),
            pass_accounts: metric!(by_model("pellucid_pass_accounts", "Accounts in a pass.", &counts)),
            flops: metric!(counter(
                "pellucid_flops_total",
                "Floating-point operations of passes, estimated.",
                &["model"]
            )),
            store_failures: metric!(Counter::new(
                "pellucid_store_failures_total",
                "Times that the store or the files failed."
            )),
            weight_bytes: metric!(GaugeVec::new(
                Opts::new("pellucid_model_weight_bytes", "Bytes of weights in memory."),
                &["model"]
            )),
            held_bytes: metric!(GaugeVec::new(
                Opts::new("pellucid_engine_held_bytes", "Bytes of values that running jobs hold."),
                &["model"]
            )),
            reserved_bytes: metric!(GaugeVec::new(
                Opts::new(
                    "pellucid_engine_reserved_bytes",
                    "Bytes that running jobs may hold by their prices, with the caches of their generations."
                ),
                &["model"]
            )),
            prefix_bytes: metric!(Gauge::new(
                "pellucid_prefix_cache_bytes",
                "Bytes of accounts' caches of prefixes."
            )),
            prefix_most_bytes: metric!(Gauge::new(
                "pellucid_prefix_cache_limit_bytes",
                "Bytes that accounts' caches of prefixes may have together."
            )),
            prefix_hits: metric!(Counter::new(
                "pellucid_prefix_cache_hits_total",
                "Prompts that began with one in their account's cache."
            )),
            prefix_misses: metric!(Counter::new(
                "pellucid_prefix_cache_misses_total",
                "Prompts of which nothing was in their account's cache."
            )),
            prefix_evictions: metric!(Counter::new(
                "pellucid_prefix_cache_evictions_total",
                "Prompts that made room for others in accounts' caches."
            )),
            prefix_tokens: metric!(Counter::new(
                "pellucid_prefix_cache_tokens_total",
                "Tokens that were not computed, because their keys and values were in their account's cache."
            )),
            connections: metric!(Gauge::new("pellucid_connections", "Connections that are open.")),
            // Where it is not known there is no such metric, and none that says 0.
            resident_bytes: process().map(|_| {
                metric!(Gauge::new(
                    "process_resident_memory_bytes",
                    "Bytes of the process that are in memory."
                ))
            }),
            threads: process().map(|_| metric!(Gauge::new("process_threads", "Threads of the process."))),
            registry,
        };
        // Every kind is there from the start: what has not happened is seen not to have.
        for kind in ProblemKind::ALL {
            metrics.errors.with_label_values(&[kind.name()]);
            metrics.problems.with_label_values(&[kind.name()]);
        }
        metrics
    }
}

impl Metrics {
    /// A request was answered.
    pub fn request(&self, route: &str, status: u16, seconds: f64) {
        self.requests.with_label_values(&[route, &status.to_string()]).inc();
        self.request_seconds.observe(seconds);
    }

    /// A job has ended, for that reason if it failed.
    pub fn ended(&self, state: &str, problem: Option<&str>) {
        self.jobs.with_label_values(&[state]).inc();
        if let Some(kind) = problem {
            self.errors.with_label_values(&[kind]).inc();
        }
    }

    /// A request was answered with a problem.
    pub fn problem(&self, kind: &ProblemKind) {
        // A kind that is not known would be a name of somebody's choice.
        if ProblemKind::ALL.contains(kind) {
            self.problems.with_label_values(&[kind.name()]).inc();
        }
    }

    /// How long a job waited until its run began.
    pub fn waited(&self, seconds: f64) {
        self.wait_seconds.observe(seconds);
    }

    /// How long a job took from its submission to its end.
    pub fn took(&self, seconds: f64) {
        self.job_seconds.observe(seconds);
    }

    /// A pass has ended.
    pub fn passed(&self, model: &str, report: &PassReport, accounts: usize) {
        self.passes.with_label_values(&[model]).inc();
        self.pass_seconds.with_label_values(&[model]).observe(report.measured_ms / 1000.0);
        self.pass_rows.with_label_values(&[model]).observe(report.rows as f64);
        self.pass_tokens.with_label_values(&[model]).observe(report.tokens as f64);
        self.pass_accounts.with_label_values(&[model]).observe(accounts as f64);
        self.flops.with_label_values(&[model]).inc_by(report.flops as f64);
    }

    /// The store or the files failed.
    pub fn store_failed(&self) {
        self.store_failures.inc();
    }

    /// How much waits and runs now.
    pub fn now(&self, queued: usize, queued_seconds: f64, running: usize) {
        self.queued.set(queued as f64);
        self.queued_seconds.set(queued_seconds);
        self.running.set(running as f64);
    }

    /// A model's bytes in memory: of its weights; that its jobs hold, and may hold.
    pub fn memory(&self, model: &str, weights: u64, (held, reserved): (u64, u64)) {
        self.weight_bytes.with_label_values(&[model]).set(weights as f64);
        self.held_bytes.with_label_values(&[model]).set(held as f64);
        self.reserved_bytes.with_label_values(&[model]).set(reserved as f64);
    }

    /// Accounts' caches of prefixes, all together.
    pub fn prefixes(&self, prefixes: &Prefixes) {
        self.prefix_bytes.set(prefixes.bytes() as f64);
        self.prefix_most_bytes.set(prefixes.most_bytes() as f64);
        let PrefixCounts { hits, tokens, misses, evictions } = prefixes.counts();
        let counted = [
            (&self.prefix_hits, hits),
            (&self.prefix_tokens, tokens),
            (&self.prefix_misses, misses),
            (&self.prefix_evictions, evictions),
        ];
        for (counter, all) in counted {
            // Whoever is told at the same time has counted the rest already.
            let more = all as f64 - counter.get();
            if more > 0.0 {
                counter.inc_by(more);
            }
        }
    }

    /// A connection was opened or closed.
    pub fn connection(&self, change: f64) {
        self.connections.add(change);
    }

    /// All of it in Prometheus' text form.
    pub fn text(&self) -> String {
        if let (Some((resident, threads)), Some(bytes), Some(count)) =
            (process(), &self.resident_bytes, &self.threads)
        {
            bytes.set(resident);
            count.set(threads);
        }
        let mut text = Vec::new();
        // Writing to memory does not fail.
        let _ = TextEncoder::new().encode(&self.registry.gather(), &mut text);
        String::from_utf8(text).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_their_units_and_every_metric_its_help() {
        let metrics = Metrics::default();
        metrics.request("/v1/jobs", 202, 0.001);
        metrics.ended("failed", Some("poisoned"));
        metrics.problem(&ProblemKind::TooLarge);
        metrics.prefixes(&Prefixes::new(1 << 20));
        let text = metrics.text();
        assert!(text.contains("pellucid_prefix_cache_limit_bytes 1048576\n"), "{text}");
        assert!(text.contains("pellucid_prefix_cache_evictions_total 0\n"), "{text}");
        assert!(text.contains(r#"pellucid_http_requests_total{route="/v1/jobs",status="202"} 1"#), "{text}");
        assert!(text.contains(r#"pellucid_job_errors_total{kind="poisoned"} 1"#));
        assert!(text.contains(r#"pellucid_http_problems_total{kind="too-large"} 1"#));
        assert!(text.contains(r#"pellucid_http_problems_total{kind="forbidden"} 0"#));
        let figure = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.map(|figure| figure.trim().parse::<f64>().unwrap())
        };
        if cfg!(target_os = "linux") {
            assert!(figure("process_resident_memory_bytes ").unwrap() > 1e6, "{text}");
            assert!(figure("process_threads ").unwrap() >= 1.0, "{text}");
        }
        let named = text.lines().filter(|line| line.starts_with("# TYPE")).count();
        assert_eq!(text.lines().filter(|line| line.starts_with("# HELP")).count(), named);
    }
}
