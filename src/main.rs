//! The `prepull` binary.
fn main() {}
