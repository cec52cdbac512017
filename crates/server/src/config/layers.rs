//! File, environment and flags, laid over each other.

use toml::{Table, Value};

use super::limits::NONE;
use super::{Config, ConfigError};

/// The type of a setting's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A text.
    Text,
    /// A whole number.
    Whole,
    /// A number.
    Number,
    /// `true` or `false`.
    Switch,
    /// A whole number, or `none`.
    WholeOrNone,
    /// A number, or `none`.
    NumberOrNone,
    /// Names with commas between them, or `none`.
    Names,
}

/// A setting that is one value.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Section and name: `server.listen`.
    pub path: &'static str,
    /// Its type.
    pub kind: Kind,
}

impl Setting {
    /// Its environment variable: `PELLUCID_SERVER_LISTEN`.
    pub fn variable(&self) -> String {
        format!("{PREFIX}{}", self.path.replace('.', "_").to_ascii_uppercase())
    }

    fn value(&self, from: &str, text: &str) -> Result<Value, ConfigError> {
        let wrong = |what: &str| ConfigError::Syntax {
            from: from.into(),
            message: format!("`{text}` is not {what}"),
        };
        let may_be_none = matches!(self.kind, Kind::WholeOrNone | Kind::NumberOrNone | Kind::Names);
        if may_be_none && text == NONE {
            return Ok(Value::String(text.to_owned()));
        }
        match self.kind {
            Kind::Text => Ok(Value::String(text.to_owned())),
            Kind::Whole => text.parse().map(Value::Integer).map_err(|_| wrong("a whole number")),
            Kind::Number => text.parse().map(Value::Float).map_err(|_| wrong("a number")),
            Kind::WholeOrNone => {
                text.parse().map(Value::Integer).map_err(|_| wrong("a whole number, or `none`"))
            }
            Kind::NumberOrNone => text.parse().map(Value::Float).map_err(|_| wrong("a number, or `none`")),
            Kind::Names => {
                let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
                Ok(Value::Array(names.map(|name| Value::String(name.to_owned())).collect()))
            }
            Kind::Switch => text.parse().map(Value::Boolean).map_err(|_| wrong("`true` or `false`")),
        }
    }
}

/// What our environment variables begin with.
const PREFIX: &str = "PELLUCID_";
/// Sections: a variable that begins with one of these and is no setting is a mistake.
const SECTIONS: [&str; 8] =
    ["SERVER_", "STORE_", "RETENTION_", "ENGINE_", "ADMISSION_", "LOG_", "TRACE_", "LIMITS_"];

macro_rules! settings {
    ($($path:literal $kind:ident,)*) => {
        /// Every setting that is one value.
        pub const SETTINGS: &[Setting] = &[$(Setting { path: $path, kind: Kind::$kind }),*];
    };
}

settings! {
    "server.listen" Text,
    "server.open" Switch,
    "server.data" Text,
    "server.certificate" Text,
    "server.private_key" Text,
    "server.connections" Whole,
    "server.connections_per_address" Whole,
    "server.header_seconds" Number,
    "server.idle_seconds" Number,
    "server.drain_seconds" Number,
    "store.durability" Text,
    "retention.result_hours" Number,
    "retention.job_days" Number,
    "retention.kept_jobs" Whole,
    "retention.audit_days" Number,
    "engine.delay_ms" Number,
    "engine.pass_tokens" Whole,
    "engine.heavy_threads" Whole,
    "engine.jobs" Whole,
    "engine.packing" Switch,
    "engine.value_bytes" Whole,
    "engine.prefix_bytes" Whole,
    "engine.weight_bytes" Whole,
    "engine.idle_seconds" Number,
    "admission.request_bytes" Whole,
    "admission.receiving_bytes" Whole,
    "admission.queued_jobs" Whole,
    "admission.waiting_bytes" Whole,
    "admission.event_bytes" Whole,
    "log.level" Text,
    "log.format" Text,
    "trace.endpoint" Text,
    "trace.sample" Number,
    "limits.models" Names,
    "limits.weights_readable" Switch,
    "limits.generation" Switch,
    "limits.training" Switch,
    "limits.edits" Switch,
    "limits.requests_per_minute" WholeOrNone,
    "limits.concurrent_jobs" WholeOrNone,
    "limits.queued_jobs" WholeOrNone,
    "limits.milliseconds_per_minute" NumberOrNone,
    "limits.milliseconds_per_day" NumberOrNone,
    "limits.job_milliseconds" NumberOrNone,
    "limits.peak_bytes" WholeOrNone,
    "limits.result_bytes" WholeOrNone,
    "limits.stored_bytes" WholeOrNone,
    "limits.request_bytes" WholeOrNone,
}

/// Layers of a configuration: each goes before those that came before it.
#[derive(Clone, Debug, Default)]
pub struct Layers {
    table: Table,
    from: String,
}

impl Layers {
    /// A file's text over it.
    ///
    /// # Errors
    /// [`ConfigError::Syntax`]: where it is no TOML, or no configuration.
    pub fn file(mut self, name: &str, text: &str) -> Result<Layers, ConfigError> {
        let syntax = |error: toml::de::Error| ConfigError::Syntax {
            from: name.to_owned(),
            message: error.to_string(),
        };
        // Read as a whole first: its messages show the line.
        toml::from_str::<Config>(text).map_err(syntax)?;
        let table: Table = toml::from_str(text).map_err(syntax)?;
        // The type of limits passes over what it does not know, as clients must; here that would be a limit less.
        let given = table.get("limits").and_then(Value::as_table).into_iter().flat_map(Table::keys);
        let names = super::limit_names();
        if let Some(unknown) = given.into_iter().find(|given| !names.contains(given)) {
            let hint = pellucid_graph::suggest::did_you_mean(unknown, names.iter().map(String::as_str));
            let message =
                format!("there is no limit `{unknown}`; {}", hint.unwrap_or_else(|| names.join(", ")));
            return Err(ConfigError::Syntax { from: name.to_owned(), message });
        }
        lay(&mut self.table, table);
        name.clone_into(&mut self.from);
        Ok(self)
    }

    /// The settings among environment variables over it.
    ///
    /// # Errors
    /// [`ConfigError::Syntax`], which names the variable.
    pub fn environment<'a>(
        mut self,
        variables: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Layers, ConfigError> {
        for (name, text) in variables {
            let Some(own) = name.strip_prefix(PREFIX) else { continue };
            match SETTINGS.iter().find(|setting| setting.variable() == name) {
                Some(setting) => {
                    insert(&mut self.table, setting.path, setting.value(name, text)?);
                    self.can_be_read(name)?;
                }
                None if SECTIONS.iter().any(|section| own.starts_with(section)) => {
                    let all: Vec<String> = SETTINGS.iter().map(Setting::variable).collect();
                    let hint = pellucid_graph::suggest::did_you_mean(name, all.iter().map(String::as_str));
                    let message = no_such_setting(hint);
                    return Err(ConfigError::Syntax { from: name.to_owned(), message });
                }
                None => {}
            }
        }
        Ok(self)
    }

    /// One setting over it, by its path.
    ///
    /// # Errors
    /// [`ConfigError::Syntax`]: where there is no such setting, or its value is of a wrong type.
    pub fn set(mut self, path: &str, text: &str) -> Result<Layers, ConfigError> {
        let Some(setting) = SETTINGS.iter().find(|setting| setting.path == path) else {
            let hint =
                pellucid_graph::suggest::did_you_mean(path, SETTINGS.iter().map(|setting| setting.path));
            let message = no_such_setting(hint);
            return Err(ConfigError::Syntax { from: path.to_owned(), message });
        };
        insert(&mut self.table, setting.path, setting.value(path, text)?);
        self.can_be_read(path)?;
        Ok(self)
    }

    /// Whether what was given last is of its type; what came before it was.
    fn can_be_read(&self, from: &str) -> Result<(), ConfigError> {
        let read: Result<Config, _> = self.table.clone().try_into();
        let syntax = |error: toml::de::Error| ConfigError::Syntax {
            from: from.to_owned(),
            message: error.message().to_owned(),
        };
        read.map(|_| ()).map_err(syntax)
    }

    /// What comes of all layers.
    ///
    /// # Errors
    /// [`ConfigError`]: everything that is wrong with it.
    pub fn config(self) -> Result<Config, ConfigError> {
        let syntax = |error: toml::de::Error| ConfigError::Syntax {
            from: self.from.clone(),
            message: error.to_string(),
        };
        let config: Config = self.table.try_into().map_err(syntax)?;
        config.completed()
    }
}

fn no_such_setting(hint: Option<String>) -> String {
    let hint = hint.unwrap_or_else(|| "`pellucid config example` shows all".to_owned());
    format!("there is no such setting; {hint}")
}

fn insert(table: &mut Table, path: &str, value: Value) {
    if let Some((section, name)) = path.split_once('.') {
        let entry = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
        if let Value::Table(section) = entry {
            section.insert(name.to_owned(), value);
        }
    }
}

/// Lays a table over another, section by section.
fn lay(under: &mut Table, over: Table) {
    for (name, value) in over {
        match (under.get_mut(&name), value) {
            (Some(Value::Table(under)), Value::Table(over)) => lay(under, over),
            (_, value) => {
                under.insert(name, value);
            }
        }
    }
}
