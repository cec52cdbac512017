//! What a configuration must be beyond its types.

use std::collections::HashSet;

use super::{BUNDLED, Config, ConfigError, ModelConfig, WeightType, limit_faults};

/// The largest number of seconds, hours, days or milliseconds: more than anybody lives.
const LONGEST: f64 = 1e8;
/// The most connections: more than a machine has ports.
const MOST_CONNECTIONS: usize = 1 << 20;
/// The most threads for heavy operations.
const MOST_THREADS: usize = 1024;

impl Config {
    /// The configuration with what follows of itself.
    ///
    /// # Errors
    /// [`ConfigError::Values`]: every value that cannot be.
    pub(super) fn completed(mut self) -> Result<Config, ConfigError> {
        if self.models.is_empty() {
            self.models.push(ModelConfig {
                id: BUNDLED.into(),
                source: None,
                dtype: WeightType::F32,
                revision: None,
                pinned: true,
                default: true,
                strict: false,
            });
        }
        let faults = self.faults();
        if !faults.is_empty() {
            return Err(ConfigError::Values(faults));
        }
        if self.models.iter().all(|model| !model.default)
            && let [only] = self.models.as_mut_slice()
        {
            only.default = true;
        }
        Ok(self)
    }

    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut fault = |wrong: bool, message: &str| {
            if wrong {
                faults.push(message.to_owned());
            }
        };
        let (server, engine, admission) = (&self.server, &self.engine, &self.admission);
        fault(
            server.open && !server.listen.ip().is_loopback(),
            "server.open: without keys it listens on loopback only, 127.0.0.1 or [::1]; make keys with `pellucid keys create`",
        );
        fault(
            server.certificate.is_some() != server.private_key.is_some(),
            "server.certificate and server.private_key: one needs the other",
        );
        fault(!(0.0..=1.0).contains(&self.trace.sample), "trace.sample is from 0 to 1");
        fault(
            self.trace.endpoint.as_ref().is_some_and(|at| !is_collector(at)),
            "trace.endpoint is the address of a collector, such as `http://127.0.0.1:4318`",
        );
        let positive = [
            ("server.header_seconds", server.header_seconds),
            ("server.idle_seconds", server.idle_seconds),
            ("retention.result_hours", self.retention.result_hours),
            ("retention.job_days", self.retention.job_days),
            ("retention.audit_days", self.retention.audit_days),
            ("engine.delay_ms", engine.delay_ms),
        ];
        for (name, value) in positive {
            fault(!(value > 0.0 && value.is_finite()), &format!("{name} must be above 0"));
            fault(value.is_finite() && value > LONGEST, &format!("{name} is at most {LONGEST}"));
        }
        for (name, value) in
            [("server.drain_seconds", server.drain_seconds), ("engine.idle_seconds", engine.idle_seconds)]
        {
            fault(!(value >= 0.0 && value.is_finite()), &format!("{name} must be 0 or above"));
            fault(value.is_finite() && value > LONGEST, &format!("{name} is at most {LONGEST}"));
        }
        let counts = [
            ("server.connections", server.connections as u64),
            ("server.connections_per_address", server.connections_per_address as u64),
            ("retention.kept_jobs", u64::from(self.retention.kept_jobs)),
            ("engine.pass_tokens", engine.pass_tokens),
            ("engine.jobs", engine.jobs as u64),
            ("engine.value_bytes", engine.value_bytes),
            ("engine.weight_bytes", engine.weight_bytes),
            ("admission.request_bytes", admission.request_bytes),
            ("admission.queued_jobs", admission.queued_jobs as u64),
            ("admission.event_bytes", admission.event_bytes as u64),
        ];
        for (name, value) in counts {
            fault(value == 0, &format!("{name} must be above 0"));
        }
        let most = [
            ("server.connections", server.connections, MOST_CONNECTIONS),
            ("server.connections_per_address", server.connections_per_address, MOST_CONNECTIONS),
            ("engine.heavy_threads", engine.heavy_threads, MOST_THREADS),
        ];
        for (name, value, most) in most {
            fault(value > most, &format!("{name} is at most {most}"));
        }
        fault(
            admission.receiving_bytes < admission.request_bytes,
            "admission.receiving_bytes must be at least admission.request_bytes",
        );
        fault(
            !["error", "warn", "info", "debug", "trace"].contains(&self.log.level.as_str()),
            "log.level must be `error`, `warn`, `info`, `debug` or `trace`",
        );
        fault(
            self.models.iter().filter(|model| model.default).count() > 1,
            "model: only one can be the default",
        );
        fault(server.data.as_os_str().is_empty(), "server.data is the path of a folder");
        for (_, message) in limit_faults(&self.limits.0, &self.models) {
            fault(true, &message);
        }
        let mut known = HashSet::new();
        for model in &self.models {
            fault(
                !is_model_id(&model.id),
                &format!(
                    "model `{}`: an id is `name` or `owner/name`, of letters, digits, `-`, `_` and `.`",
                    model.id
                ),
            );
            fault(!known.insert(&model.id), &format!("model `{}` is there twice", model.id));
        }
        faults
    }
}

/// Whether a text can be a collector's address.
fn is_collector(text: &str) -> bool {
    let Ok(address) = text.parse::<axum::http::Uri>() else { return false };
    matches!(address.scheme_str(), Some("http" | "https"))
        && address.host().is_some_and(|host| !host.is_empty())
}

/// Whether a text can be a model's id; nothing else is ever looked for.
pub fn is_model_id(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let is_part = |part: &str| {
        !part.is_empty() && part.bytes().all(allowed) && !part.starts_with('.') && !part.contains("..")
    };
    text.len() <= 128 && text.split('/').count() <= 2 && text.split('/').all(is_part)
}

/// Whether a text can be an account's name.
pub fn is_account_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'@');
    (1..=64).contains(&text.len()) && text.bytes().all(allowed)
}
