//! What a new account may use, as a configuration gives it: a limit that is not named is as it is by default, and `"none"`
//! takes it away.

use pellucid_client::api::Limits;
use pellucid_graph::suggest::did_you_mean;
use serde::de::{Deserialize, Deserializer, Error};
use serde::ser::{Error as _, Serialize, Serializer};
use toml::{Table, Value};

use super::{AccountLimits, ModelConfig};

/// What stands for no limit.
pub(super) const NONE: &str = "none";

impl<'de> Deserialize<'de> for AccountLimits {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let given = Table::deserialize(deserializer)?;
        let mut limits = Table::try_from(AccountLimits::default().0).map_err(D::Error::custom)?;
        for (name, value) in given {
            if value.as_str() != Some(NONE) {
                limits.insert(name, value);
            } else if limits.get(&name).is_some_and(Value::is_bool) {
                return Err(D::Error::custom(format!("the limit `{name}` is `true` or `false`")));
            } else {
                limits.remove(&name);
            }
        }
        let limits = Limits::deserialize(Value::Table(limits));
        Ok(AccountLimits(limits.map_err(|error| D::Error::custom(format!("limits: {}", error.message())))?))
    }
}

impl Serialize for AccountLimits {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut limits = Table::try_from(&self.0).map_err(S::Error::custom)?;
        for name in limit_names() {
            limits.entry(name).or_insert_with(|| NONE.into());
        }
        limits.serialize(serializer)
    }
}

/// The names of all limits.
pub fn limit_names() -> Vec<String> {
    let schema = schemars::schema_for!(Limits).to_value();
    let names = schema["properties"].as_object().into_iter().flat_map(serde_json::Map::keys);
    names.cloned().collect()
}

/// Which limits cannot be as they are, and why.
pub fn limit_faults(limits: &Limits, models: &[ModelConfig]) -> Vec<(&'static str, String)> {
    let mut faults = Vec::new();
    let times = [
        ("milliseconds_per_minute", limits.milliseconds_per_minute),
        ("milliseconds_per_day", limits.milliseconds_per_day),
        ("job_milliseconds", limits.job_milliseconds),
    ];
    for (name, value) in times {
        if value.is_some_and(|value| !(value >= 0.0 && value.is_finite())) {
            faults.push((name, format!("limits.{name} must be 0 or above, or `{NONE}`")));
        }
    }
    if limits.concurrent_jobs == Some(0) {
        let message = format!(
            "limits.concurrent_jobs must be above 0, or `{NONE}`: who may run nothing has `queued_jobs` of 0"
        );
        faults.push(("concurrent_jobs", message));
    }
    let known = || models.iter().map(|model| model.id.as_str());
    for id in limits.models.iter().flatten() {
        if !known().any(|known| known == id) {
            let hint = did_you_mean(id, known());
            let hint = hint.unwrap_or_else(|| format!("there is {}", known().collect::<Vec<_>>().join(", ")));
            faults.push(("models", format!("limits.models: there is no model `{id}`; {hint}")));
        }
    }
    faults
}
