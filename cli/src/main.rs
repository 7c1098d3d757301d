//! The osbc command.
fn main() {}
