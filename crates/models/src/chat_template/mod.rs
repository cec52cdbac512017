//! Chat templates: how a conversation becomes the text that an instructed model was trained on. The templates are
//! Jinja, published with the model, and are run here with what transformers gives them.

mod python;

use std::path::Path;
use std::time::SystemTime;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, ErrorKind, Value as Jinja, context};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::tokenizer::{SpecialTokens, read_if_there, read_json};
use crate::{Error, Result};

/// The steps that a template may take, so that none can hold up who runs it. A long conversation takes some thousands.
const FUEL: u64 = 5_000_000;
/// The longest template that is read, in bytes.
const MAXIMUM_TEMPLATE_BYTES: usize = 1 << 20;

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks: `system`, `user`, `assistant`, as the template knows them.
    pub role: String,
    /// What is said.
    pub content: String,
}

impl Message {
    /// A turn of the user's.
    pub fn user(content: impl Into<String>) -> Self {
        Self { role: "user".to_owned(), content: content.into() }
    }
}

/// A model's chat template.
///
/// ```
/// use pellucid_models::chat_template::{ChatTemplate, Message};
/// use pellucid_models::tokenizer::SpecialTokens;
///
/// let source = "{% for message in messages %}[{{ message.role }}] {{ message.content }}\n{% endfor %}\
///               {% if add_generation_prompt %}[assistant] {% endif %}";
/// let template = ChatTemplate::new(source, &SpecialTokens::default());
/// assert_eq!(template.apply(&[Message::user("Hello")], true)?, "[user] Hello\n[assistant] ");
/// # Ok::<(), pellucid_models::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct ChatTemplate {
    source: String,
    special: SpecialTokens,
    now: Option<SystemTime>,
}

/// The template's name in its environment, which shows in messages.
const NAME: &str = "chat template";

impl ChatTemplate {
    /// A template from its Jinja text, which is read when it is first applied: a model whose template cannot be read is
    /// still a model. Special tokens are there for it as `bos_token`, `eos_token`, …
    #[must_use]
    pub fn new(source: &str, special: &SpecialTokens) -> Self {
        Self { source: source.to_owned(), special: special.clone(), now: None }
    }

    /// The template of a Hugging Face folder, from `chat_template.jinja` or else `tokenizer_config.json`; `None` where
    /// there is none.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn from_folder(folder: impl AsRef<Path>, special: &SpecialTokens) -> Result<Option<Self>> {
        let folder = folder.as_ref();
        let path = folder.join("chat_template.jinja");
        if let Some(source) = read_if_there(&path)? {
            let source = String::from_utf8(source).map_err(|error| Error::malformed(path, "Jinja", error))?;
            return Ok(Some(Self::new(&source, special)));
        }
        let config = read_json(&folder.join("tokenizer_config.json"))?.unwrap_or_default();
        Ok(template_of(&config).map(|source| Self::new(source, special)))
    }

    /// The template's Jinja text.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The same template at a fixed time, for those that write the date. Without it, the date is that of the clock, in
    /// UTC.
    #[must_use]
    pub fn at(mut self, now: SystemTime) -> Self {
        self.now = Some(now);
        self
    }

    /// The text of a conversation; with `add_generation_prompt`, up to where the model's answer begins. The special
    /// tokens are in the text: it is to be encoded without adding any.
    ///
    /// # Errors
    /// [`Error::ChatTemplate`] when the text is not a template, or refuses the conversation, with what it says.
    pub fn apply(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String> {
        let messages = serde_json::to_value(messages)
            .map_err(|error| Error::ChatTemplate { reason: error.to_string() })?;
        self.apply_with(&messages, add_generation_prompt, &Value::Null)
    }

    /// [`ChatTemplate::apply`] for messages of any form that the template knows, and with further variables: an object
    /// such as `{"tools": […], "enable_thinking": false}`.
    ///
    /// # Errors
    /// As [`ChatTemplate::apply`].
    pub fn apply_with(
        &self,
        messages: &Value,
        add_generation_prompt: bool,
        variables: &Value,
    ) -> Result<String> {
        let mut all = serde_json::Map::new();
        for (name, token) in self.special.named() {
            all.insert(name.to_owned(), token.into());
        }
        all.insert("tools".to_owned(), Value::Null);
        all.insert("documents".to_owned(), Value::Null);
        all.extend(
            variables.as_object().into_iter().flatten().map(|(name, value)| (name.clone(), value.clone())),
        );
        all.insert("messages".to_owned(), messages.clone());
        all.insert("add_generation_prompt".to_owned(), add_generation_prompt.into());
        let now = self.now.unwrap_or_else(SystemTime::now);
        let strftime_now = Jinja::from_function(move |format: String| python::strftime(&format, now));
        let environment = self.environment()?;
        let template = environment.get_template(NAME).map_err(template_error)?;
        template.render(context! { strftime_now, ..Jinja::from(Serde(&all)) }).map_err(template_error)
    }

    fn environment(&self) -> Result<Environment<'static>> {
        if self.source.len() > MAXIMUM_TEMPLATE_BYTES {
            let reason = format!("it is longer than {MAXIMUM_TEMPLATE_BYTES} bytes");
            return Err(Error::ChatTemplate { reason });
        }
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(template_error)?);
        environment.set_fuel(Some(FUEL));
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_filter("tojson", python::tojson);
        environment.add_function("raise_exception", |message: String| -> Result<String, minijinja::Error> {
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
        });
        let source = without_generation_marks(&self.source);
        environment.add_template_owned(NAME, source).map_err(template_error)?;
        Ok(environment)
    }
}

/// The template in a `tokenizer_config.json`: a text, or the one called `default` of a list of several.
fn template_of(config: &Value) -> Option<&str> {
    let template = config.get("chat_template")?;
    template.as_str().or_else(|| {
        let named = template.as_array()?.iter().find(|named| named["name"] == "default")?;
        named["template"].as_str()
    })
}

/// `{% generation %}` and `{% endgeneration %}`, which mark the model's own turns for training and print nothing, are
/// made a condition that holds.
fn without_generation_marks(source: &str) -> String {
    let mut text = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let Some(length) = rest[start..].find("%}") else { break };
        let (tag, after) = rest[start..].split_at(length + 2);
        text.push_str(&rest[..start]);
        let word = tag[2..length].trim_matches(|c: char| c.is_whitespace() || matches!(c, '-' | '+'));
        match word {
            "generation" => text.push_str(&tag.replace(word, "if true")),
            "endgeneration" => text.push_str(&tag.replace(word, "endif")),
            _ => text.push_str(tag),
        }
        rest = after;
    }
    text.push_str(rest);
    text
}

#[allow(clippy::needless_pass_by_value)] // for `map_err`
fn template_error(error: minijinja::Error) -> Error {
    let place = error.line().map_or_else(String::new, |line| format!(" (line {line})"));
    let reason = match error.kind() {
        ErrorKind::OutOfFuel => format!("it takes more than {FUEL} steps{place}"),
        kind => match error.detail() {
            Some(detail) => format!("{detail}{place}"),
            None => format!("{kind}{place}"),
        },
    };
    Error::ChatTemplate { reason }
}

#[cfg(test)]
mod tests {
    use super::without_generation_marks;

    #[test]
    fn generation_marks_become_conditions() {
        let source = "a{%- generation -%}b{% if x %}c{%endif%}{% endgeneration %}d {% open";
        let expected = "a{%- if true -%}b{% if x %}c{%endif%}{% endif %}d {% open";
        assert_eq!(without_generation_marks(source), expected);
    }
}
