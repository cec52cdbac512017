//! Why an operation could not be evaluated.

/// Why an operation could not be evaluated on these values.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct OperationError {
    /// What is wrong, with the shapes, types or numbers at fault.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

impl OperationError {
    /// An error without a hint.
    pub fn new(message: impl Into<String>) -> Self {
        OperationError { message: message.into(), hint: None }
    }

    /// The error with a hint.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// The storage refuses only what our own checks let through by mistake; its words are better than none.
impl From<candle_core::Error> for OperationError {
    fn from(error: candle_core::Error) -> Self {
        OperationError::new(error.to_string())
    }
}

/// A rule of the language, asked again when all sizes are known.
impl From<pellucid_graph::rules::RuleError> for OperationError {
    fn from(error: pellucid_graph::rules::RuleError) -> Self {
        OperationError { message: error.message, hint: error.hint }
    }
}

impl OperationError {
    /// The same as a fault of the node that met it.
    pub(crate) fn at(&self, node: &pellucid_graph::Node) -> pellucid_graph::fault::Fault {
        let mut message = self.message.clone();
        if !node.coordinates().is_empty() {
            let cell: Vec<String> = node.coordinates().iter().map(u64::to_string).collect();
            message.push_str(&format!(" (in cell {})", cell.join(", ")));
        }
        let fault = pellucid_graph::fault::Fault::new(message).at_node(node.label(), node.source.clone());
        match &self.hint {
            Some(hint) => fault.with_hint(hint),
            None => fault,
        }
    }
}
