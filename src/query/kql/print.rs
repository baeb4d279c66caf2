//! A filter tree as KQL that parses to the same tree.

use std::fmt::Write as _;

use crate::model::{Filter, Pattern};

use super::lexer::is_special;

/// Writes the filter as KQL. Everything is `*`, nothing is `not *`.
#[must_use]
pub fn print(filter: &Filter) -> String {
    let mut text = String::new();
    write(&mut text, filter, Place::Top);
    text
}

/// What stands around a part, which decides about parentheses.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    Top,
    InOr,
    InAnd,
    InNot,
}

fn write(text: &mut String, filter: &Filter, place: Place) {
    match filter {
        Filter::All => text.push('*'),
        Filter::Match(dimension, pattern) => {
            let _ = write!(text, "{}: ", dimension.field());
            write_value(text, pattern);
        }
        Filter::Not(part) => match &**part {
            Filter::Match(dimension, pattern) if *pattern == Pattern::exact("") => {
                let _ = write!(text, "{}: *", dimension.field());
            }
            part => {
                text.push_str("not ");
                write(text, part, Place::InNot);
            }
        },
        Filter::And(parts) => {
            let in_parens = matches!(place, Place::InAnd | Place::InNot);
            write_joined(text, parts, " and ", Place::InAnd, in_parens, "*");
        }
        Filter::Or(parts) => write_joined(text, parts, " or ", Place::InOr, place != Place::Top, "not *"),
    }
}

/// Parts with `joint` between them, or `empty` for none.
fn write_joined(
    text: &mut String,
    parts: &[Filter],
    joint: &str,
    inside: Place,
    in_parens: bool,
    empty: &str,
) {
    let in_parens = in_parens && !parts.is_empty();
    if in_parens {
        text.push('(');
    }
    for (i, part) in parts.iter().enumerate() {
        text.push_str(if i == 0 { "" } else { joint });
        write(text, part, inside);
    }
    if parts.is_empty() {
        text.push_str(empty);
    }
    if in_parens {
        text.push(')');
    }
}

fn write_value(text: &mut String, pattern: &Pattern) {
    if let [] | [_] = pattern.pieces.as_slice() {
        text.push('"');
        for c in pattern.pieces.first().map_or("", |only| &**only).chars() {
            match c {
                '"' | '\\' => text.extend(['\\', c]),
                '\n' => text.push_str("\\n"),
                '\r' => text.push_str("\\r"),
                '\t' => text.push_str("\\t"),
                c => text.push(c),
            }
        }
        text.push('"');
        return;
    }
    for (i, piece) in pattern.pieces.iter().enumerate() {
        if i > 0 {
            text.push('*');
        }
        for c in piece.chars() {
            if is_special(c) || matches!(c, '\\' | '*' | '\'') {
                text.push('\\');
            }
            text.push(c);
        }
    }
}
