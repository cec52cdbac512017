//! Pellucid: pellucid.
