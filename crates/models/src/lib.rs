//! Pellucid: models.
