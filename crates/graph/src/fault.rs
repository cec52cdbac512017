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
            write!(formatter, "{}: ", quote(node))?;
        }
        escape(&self.message, true, formatter)?;
        if let Some(source) = &self.source {
            formatter.write_str("\n  --> ")?;
            escape(&source.file, false, formatter)?;
            write!(formatter, ":{}", source.line)?;
            if let Some(text) = &source.text {
                formatter.write_str("\n    | ")?;
                escape(text.trim(), false, formatter)?;
            }
        }
        if let Some(place) = &self.place {
            formatter.write_str("\n  at ")?;
            escape(if place.is_empty() { "the top" } else { place }, false, formatter)?;
        }
        if let Some(hint) = &self.hint {
            formatter.write_str("\n  hint: ")?;
            escape(hint, true, formatter)?;
        }
        Ok(())
    }
}

/// A stranger's text as it may stand in a message: between backticks, shortened, with control characters escaped.
pub fn quote(text: &str) -> String {
    const SHOWN: usize = 60;
    let mut quoted = String::from("`");
    // Writing to a string cannot fail.
    let _ = escape(&text.chars().take(SHOWN).collect::<String>(), false, &mut quoted);
    quoted.push_str(if text.chars().nth(SHOWN).is_some() { "…`" } else { "`" });
    quoted
}

/// Writes a text that may hold a stranger's words, and may go to a terminal: control characters and those that turn the
/// direction of writing are escaped.
fn escape(text: &str, line_breaks: bool, to: &mut impl fmt::Write) -> fmt::Result {
    for character in text.chars() {
        let turns = matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if (character.is_control() && !(line_breaks && character == '\n')) || turns {
            write!(to, "{}", character.escape_unicode())?;
        } else {
            to.write_char(character)?;
        }
    }
    Ok(())
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
    fn what_a_stranger_wrote_cannot_speak_to_the_terminal() {
        assert_eq!(quote("a\u{1b}[2Jb"), "`a\\u{1b}[2Jb`");
        assert_eq!(quote("\u{202e}evil"), "`\\u{202e}evil`");
        assert_eq!(quote(&"x".repeat(1000)).chars().count(), 63);
        let source = SourceLocation { file: "\u{1b}c".into(), line: 1, text: Some("\u{7}\u{8}".into()) };
        let fault = Fault::new("\u{1b}]0;").at_node("\n", Some(source)).at_place("/\r").with_hint("\u{9b}");
        assert!(!fault.to_string().chars().any(|character| character.is_control() && character != '\n'));
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
