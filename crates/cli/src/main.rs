//! The command `pellucid`.
fn main() {}
