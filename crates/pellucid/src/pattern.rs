//! Patterns of hook points.

/// Hook points by pattern: `*` stands for any one part of a path, `**` for any number of them, `layers[0:12:2]` and
/// `layers[0,5]` for some layers. Standard names and Hugging Face's are both matched.
///
/// ```
/// use pellucid::{Model, Pattern};
///
/// # fn main() -> pellucid::Result<()> {
/// let model = Model::bundled()?;
/// let trace = model.trace();
/// let prompt = trace.invoke("The capital of France is");
/// let streams = prompt.get_all(Pattern::new("layers.*.output").except(["layers.0.output"]));
/// streams.save("streams"); // [layers - 1, prompts, length, hidden]
/// let layers = model.spec().sizes.layers as usize;
/// assert_eq!(trace.run()?["streams"].shape()[0], layers - 1);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    pub(crate) pattern: String,
    pub(crate) except: Vec<String>,
}

impl Pattern {
    /// All hook points that match.
    pub fn new(pattern: impl Into<String>) -> Pattern {
        Pattern { pattern: pattern.into(), except: Vec::new() }
    }

    /// Without those that match one of these patterns.
    #[must_use]
    pub fn except<T: Into<String>>(mut self, patterns: impl IntoIterator<Item = T>) -> Pattern {
        self.except.extend(patterns.into_iter().map(Into::into));
        self
    }
}

impl From<&str> for Pattern {
    fn from(pattern: &str) -> Pattern {
        Pattern::new(pattern)
    }
}

impl From<String> for Pattern {
    fn from(pattern: String) -> Pattern {
        Pattern::new(pattern)
    }
}
