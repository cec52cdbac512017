//! What is wrong with a program, and where: the one form in which the wire and the checker report.

use std::fmt;

use crate::limits;
use crate::program::SourceLocation;

/// One thing that is wrong with a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The name of the node at fault; none: the program as a whole.
    pub node: Option<String>,
    /// Where in the program's text, as a JSON pointer such as `/body/0/body/3/index`; none where there is no text.
    pub place: Option<String>,
    /// Where the node's author wrote it, if the author's client said so.
    pub source: Option<SourceLocation>,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Fault {
    /// A fault that says only what is wrong; where it is and what to do are added by the other methods.
    pub fn new(message: impl Into<String>) -> Fault {
        Fault { node: None, place: None, source: None, message: message.into(), hint: None }
    }

    /// The fault with the node it is about.
    #[must_use]
    pub fn at_node(mut self, name: impl Into<String>, source: Option<SourceLocation>) -> Fault {
        self.node = Some(name.into());
        self.source = source;
        self
    }

    /// The fault with its place in the program's text.
    #[must_use]
    pub fn at_place(mut self, pointer: impl Into<String>) -> Fault {
        self.place = Some(pointer.into());
        self
    }

    /// The fault with what to do about it.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Fault {
        self.hint = Some(hint.into());
        self
    }
}

/// One line that says what, then a line each for the author's own line, the place in the text and the hint.
impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(node) = &self.node {
            write!(formatter, "`{node}`: ")?;
        }
        formatter.write_str(&self.message)?;
        if let Some(source) = &self.source {
            write!(formatter, "\n  --> {}:{}", source.file, source.line)?;
            if let Some(text) = &source.text {
                write!(formatter, "\n    | {}", text.trim())?;
            }
        }
        if let Some(place) = &self.place {
            write!(formatter, "\n  at {}", if place.is_empty() { "the top" } else { place })?;
        }
        if let Some(hint) = &self.hint {
            write!(formatter, "\n  hint: {hint}")?;
        }
        Ok(())
    }
}

/// Everything that is wrong with a program, in the order in which it was found: at most [`limits::FAULTS`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults(pub Vec<Fault>);

impl Faults {
    /// Adds a fault, unless there are as many as are reported for one program.
    pub fn push(&mut self, fault: Fault) {
        if !self.is_full() {
            self.0.push(fault);
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether there are as many as are reported for one program, so that looking further is of no use.
    pub fn is_full(&self) -> bool {
        self.0.len() >= limits::FAULTS
    }

    /// `value` if there is no fault, else the faults.
    ///
    /// # Errors
    /// The faults themselves.
    pub fn or<T>(self, value: T) -> Result<T, Faults> {
        if self.is_empty() { Ok(value) } else { Err(self) }
    }
}

impl From<Fault> for Faults {
    fn from(fault: Fault) -> Self {
        Faults(vec![fault])
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, fault) in self.0.iter().enumerate() {
            if place > 0 {
                formatter.write_str("\n\n")?;
            }
            fault.fmt(formatter)?;
        }
        if self.is_full() {
            write!(formatter, "\n\nThere may be more: reporting stops at {} faults.", limits::FAULTS)?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_says_what_where_and_what_to_do() {
        let source =
            SourceLocation { file: "ioi.py".into(), line: 12, text: Some("  h = x.output\n".into()) };
        let full = Fault::new("no such hook point")
            .at_node("h", Some(source))
            .at_place("/body/0")
            .with_hint("try `output`");
        let faults = Faults(vec![full, Fault::new("no traces")]);
        insta::assert_snapshot!(faults, @r"
        `h`: no such hook point
          --> ioi.py:12
            | h = x.output
          at /body/0
          hint: try `output`

        no traces
        ");
    }

    #[test]
    fn faults_stop_at_the_limit_and_say_so() {
        let mut faults = Faults::default();
        for _ in 0..limits::FAULTS + 10 {
            faults.push(Fault::new("x"));
        }
        assert_eq!(faults.0.len(), limits::FAULTS);
        assert!(faults.to_string().ends_with("reporting stops at 256 faults."));
    }
}
