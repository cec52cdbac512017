//! The demonstration: activation patching on the bundled model, and its two pictures.

pub(crate) mod experiment;
pub(crate) mod page;
pub(crate) mod terminal;
