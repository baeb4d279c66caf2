//! A shape of documents as a line of text, kept beside the disk queue.

use super::super::{Generation, Shape};

/// The line.
pub(super) fn text(shape: Shape) -> String {
    let generation = match shape.generation {
        Generation::Classic => "classic",
        Generation::Otel => "otel",
    };
    format!("{generation} lookup_streams={} sampled_streams={}", shape.lookup_streams, shape.sampled_streams)
}

/// Inverse of [`text`]; `None` when the line is anything else.
pub(super) fn parse(line: &str) -> Option<Shape> {
    for generation in [Generation::Classic, Generation::Otel] {
        for (lookup_streams, sampled_streams) in [(false, false), (false, true), (true, false), (true, true)]
        {
            let shape = Shape { generation, lookup_streams, sampled_streams };
            if text(shape) == line.trim() {
                return Some(shape);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_as_it_was_written() {
        for generation in [Generation::Classic, Generation::Otel] {
            let shape = Shape::of(generation);
            assert_eq!(parse(&format!("{}\n", text(shape))), Some(shape));
        }
        assert_eq!(parse("nonsense"), None);
    }
}
