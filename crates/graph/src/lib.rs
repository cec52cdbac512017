//! Pellucid: graph.
