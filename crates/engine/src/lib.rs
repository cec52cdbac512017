//! Pellucid: engine.
