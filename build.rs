//! Builds the BPF skeletons into `OUT_DIR`; nothing else.

fn main() {}
