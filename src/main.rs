//! Entry of every role.

fn main() {}
