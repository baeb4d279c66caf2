//! The known word nearest to a misspelt one, for hints.

use crate::model::Dimension;

/// The candidate with the smallest edit distance to `word`, if it is near enough to be meant: at most one edit per
/// three characters, never fewer than one. Ties go to the first candidate.
pub fn nearest<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    // A word longer than any name is nobody's misspelling; this also bounds the work on hostile input.
    let word: Vec<char> = word.chars().take(65).flat_map(char::to_lowercase).collect();
    if word.is_empty() || word.len() > 64 {
        return None;
    }
    let allowed = (word.len() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (distance(&word, candidate), candidate))
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, _)| *distance <= allowed)
        .map(|(_, candidate)| candidate)
}

/// The field name or alias nearest to `word`.
#[must_use]
pub fn field(word: &str) -> Option<&'static str> {
    nearest(
        word,
        Dimension::ALL
            .into_iter()
            .flat_map(|d| std::iter::once(d.field()).chain(d.aliases().iter().copied())),
    )
}

/// Edits (insert, delete, replace, swap of neighbours) that turn one word into the other.
fn distance(word: &[char], candidate: &str) -> usize {
    let other: Vec<char> = candidate.chars().flat_map(char::to_lowercase).collect();
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in word.iter().enumerate() {
        let mut row = Vec::with_capacity(other.len() + 1);
        row.push(i + 1);
        for (j, b) in other.iter().enumerate() {
            let mut best = (last[j] + usize::from(a != b)).min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *a == other[j - 1] && word[i - 1] == *b {
                best = best.min(before[j - 1] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_are_found_and_far_ones_are_not() {
        for (word, expected) in [
            ("proces", Some("process")),
            ("porcess", Some("process")),
            ("Thraed", Some("thread")),
            ("hostname", Some("host.name")),
            ("process.exectuable.name", Some("process.executable.name")),
            ("colour", None),
            ("", None),
        ] {
            assert_eq!(field(word), expected, "{word}");
        }
        assert_eq!(field(&"x".repeat(1 << 20)), None);
    }
}
