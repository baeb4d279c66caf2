//! Identities of functions and of flame graph nodes as Elasticsearch numbers them, so that links and saved links agree.
//!
//! They are hashes in the manner of Java's `Objects.hash`: start with 1, then for each part 31 × hash + hash of the part,
//! in 32 bits with wraparound; a text's own hash is the same over its UTF-16 units, started with 0.

/// Hash of a text, `String.hashCode`.
fn text_hash(text: &str) -> i32 {
    text.encode_utf16().fold(0i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)))
}

/// Part of an identity.
#[derive(Clone, Copy, Debug)]
pub enum Part<'a> {
    /// A text.
    Text(&'a str),
    /// A number.
    Number(i32),
}

/// Hash over some parts, `Objects.hash`.
#[must_use]
pub fn hash(parts: &[Part<'_>]) -> i32 {
    parts.iter().fold(1i32, |hash, part| {
        let part = match part {
            Part::Text(text) => text_hash(text),
            Part::Number(number) => *number,
        };
        hash.wrapping_mul(31).wrapping_add(part)
    })
}

/// What identifies a function among all others and a node among its siblings.
#[must_use]
pub fn function(file_id: &str, address_or_line: i32, executable: &str, source: &str, name: &str) -> i32 {
    use Part::{Number, Text};
    if name.is_empty() {
        return hash(&[Text(file_id), Number(address_or_line)]);
    }
    if source.is_empty() {
        return hash(&[Text(file_id), Text(name)]);
    }
    hash(&[Text(executable), Text(name), Text(last_two(source))])
}

/// The last two components of a path; the whole of it when it has no more.
fn last_two(path: &str) -> &str {
    let mut slashes = path.rmatch_indices('/').map(|(at, _)| at);
    match (slashes.next(), slashes.next()) {
        (Some(_), Some(before)) => &path[before + 1..],
        _ => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_numbered_as_elsewhere() {
        const FILE: &str = "YA3K_koRAADyvzjEk_X7kg";
        for (executable, source, name, expected) in [
            ("", "", "", 1_664_075_902),
            ("", "", "main", 1_667_419_592),
            ("libc.so.6", "/build/glibc/malloc/malloc.c", "malloc", 1_757_316_655),
            ("", "app.py", "main", -1_307_433_284),
        ] {
            assert_eq!(function(FILE, 111, executable, source, name), expected, "{name} in {source}");
        }
    }

    #[test]
    fn levels_above_the_frames_are_numbered_as_elsewhere() {
        assert_eq!(hash(&[Part::Text("kernel"), Part::Number(0x101)]), -821_149_659);
        assert_eq!(hash(&[Part::Text(""), Part::Number(0x101)]), 1218);
        assert_eq!(hash(&[Part::Text("bash"), Part::Number(0x102)]), 93_509_743);
    }

    #[test]
    fn two_components_of_a_path_count() {
        for (path, expected) in [
            ("a.c", "a.c"),
            ("/a.c", "/a.c"),
            ("x/a.c", "x/a.c"),
            ("/x/a.c", "x/a.c"),
            ("/usr/src/x/a.c", "x/a.c"),
        ] {
            assert_eq!(last_two(path), expected, "{path}");
        }
    }
}
