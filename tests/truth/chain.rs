//! Call chains as words, and stacks against them.
//!
//! A chain is a line of function names, leaf first. `~` stands for one or more frames that are not the program's own
//! (libraries, start code), `name*7` for seven in a row, `name…` for every symbol that begins so, `␣` for a space. A stack may begin
//! anywhere in a chain, for each of its functions can be the leaf, with foreign frames on top of it; from there on it must be
//! the chain, frame by frame, to its end.

use std::collections::HashSet;

use crate::row::Chains;

/// Number of a word; [`FOREIGN`] is `~`.
type Word = u16;
const FOREIGN: Word = 0;

/// Chains ready to compare.
#[derive(Debug)]
pub(crate) struct Matcher {
    /// Own names (and whether only their beginning counts); word = index + 1.
    words: Vec<(String, bool)>,
    paths: Vec<Vec<Word>>,
    interrupts: Vec<Vec<Word>>,
}

/// One frame of a stack: names that it goes by (aliases, raw and demangled), or the place where frames were left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// A frame.
    Frame(Vec<String>),
    /// More frames than an agent keeps.
    Gap,
}

impl Matcher {
    /// Reads the chains of a row.
    pub(crate) fn new(chains: &Chains) -> Self {
        let mut matcher = Self { words: Vec::new(), paths: Vec::new(), interrupts: Vec::new() };
        let below = if chains.below.is_empty() { &[""][..] } else { chains.below };
        for path in chains.paths {
            for end in below {
                let path = matcher.read(&format!("{path} {end}"));
                matcher.paths.push(path);
            }
        }
        matcher.interrupts = chains.interrupts.iter().map(|line| matcher.read(line)).collect();
        matcher
    }

    fn read(&mut self, line: &str) -> Vec<Word> {
        let mut path = Vec::new();
        for text in line.split_ascii_whitespace() {
            let (name, count) = text
                .rsplit_once('*')
                .and_then(|(name, count)| Some((name, count.parse().ok()?)))
                .unwrap_or((text, 1));
            let word = self.word(name);
            path.extend(std::iter::repeat_n(word, count));
        }
        path
    }

    fn word(&mut self, name: &str) -> Word {
        if name == "~" {
            return FOREIGN;
        }
        let name = name.replace('␣', " ");
        let (name, open) = name.strip_suffix('…').map_or((name.as_str(), false), |name| (name, true));
        let known = self.words.iter().position(|(found, also)| found == name && *also == open);
        let index = known.unwrap_or_else(|| {
            self.words.push((name.to_owned(), open));
            self.words.len() - 1
        });
        index as Word + 1
    }

    fn word_of(&self, names: &[String]) -> Word {
        let is = |(word, open): &(String, bool), name: &String| {
            name.strip_prefix(word.as_str()).is_some_and(|rest| *open || rest.is_empty() || is_copy(rest))
        };
        let found = self.words.iter().position(|word| names.iter().any(|name| is(word, name)));
        found.map_or(FOREIGN, |index| index as Word + 1)
    }

    /// Whether a stack, leaf first, is one of the chains. `None` when none of its frames is the program's own.
    pub(crate) fn is_right(&self, stack: &[Part]) -> Option<bool> {
        let mut pieces = vec![Vec::new()];
        for part in stack {
            match part {
                Part::Gap => pieces.push(Vec::new()),
                Part::Frame(names) => {
                    let word = self.word_of(names);
                    let piece = pieces.last_mut().expect("one piece at least");
                    // Foreign frames in a row are one.
                    if word != FOREIGN || piece.last() != Some(&FOREIGN) {
                        piece.push(word);
                    }
                }
            }
        }
        let own: HashSet<Word> = pieces.iter().flatten().copied().filter(|word| *word != FOREIGN).collect();
        match &pieces[..] {
            _ if own.is_empty() => None,
            [whole] => Some(self.is_end(whole)),
            [inner, outer] => Some(self.is_with_gap(inner, outer)),
            _ => Some(false),
        }
    }

    /// Whether this is the end of a chain, or one that interrupted another.
    fn is_end(&self, stack: &[Word]) -> bool {
        let stack = stack.strip_prefix(&[FOREIGN]).unwrap_or(stack);
        if self.paths.iter().any(|path| path.ends_with(stack)) {
            return true;
        }
        let Some(own) = stack.iter().position(|word| *word == FOREIGN) else { return false };
        self.interrupts.iter().any(|handler| handler.ends_with(&stack[..own])) && self.is_end(&stack[own..])
    }

    /// Whether both ends fit one chain that is longer than they are together.
    fn is_with_gap(&self, inner: &[Word], outer: &[Word]) -> bool {
        let inner = inner.strip_prefix(&[FOREIGN]).unwrap_or(inner);
        self.paths.iter().any(|path| {
            let rest = path.strip_suffix(outer).unwrap_or_default();
            rest.windows(inner.len().max(1)).any(|window| window == inner)
        })
    }
}

/// What C and C++ compilers add to the names of parts and copies of a function.
fn is_copy(rest: &str) -> bool {
    ["cold", "part", "constprop", "isra", "lto_priv", "llvm", "actor", "resume", "destroy"]
        .iter()
        .any(|word| rest.strip_prefix('.').is_some_and(|rest| rest.starts_with(word)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stack(text: &str) -> Vec<Part> {
        let part = |name: &str| if name == "|" { Part::Gap } else { Part::Frame(vec![name.to_owned()]) };
        text.split_ascii_whitespace().map(part).collect()
    }

    fn check(chains: &Chains, text: &str, expected: Option<bool>) {
        assert_eq!(Matcher::new(chains).is_right(&stack(text)), expected, "{text}");
    }

    #[test]
    fn a_stack_may_begin_anywhere_and_must_end_at_the_end() {
        let chains =
            Chains {
                paths: &["leaf middle", "leaf other…"], below: &["main ~ _start"], ..Chains::default()
            };
        check(&chains, "leaf middle main libc libc _start", Some(true));
        check(&chains, "vdso libc middle main libc _start", Some(true));
        check(&chains, "leaf.part.0 middle.cold main libc _start", Some(true));
        check(&chains, "leaf otherwise main libc _start", Some(true));
        check(&chains, "_start", Some(true));
        check(&chains, "libc libc", None);
        // A frame is missing, doubled, in the wrong place, or foreign.
        check(&chains, "leaf main libc _start", Some(false));
        check(&chains, "leaf middle middle main libc _start", Some(false));
        check(&chains, "middle leaf main libc _start", Some(false));
        check(&chains, "leaf libc middle main libc _start", Some(false));
        check(&chains, "leaf middle main _start", Some(false));
        check(&chains, "leaf middle main", Some(false));
        check(&chains, "leaf middled main libc _start", Some(false));
    }

    #[test]
    fn counts_repeats_also_where_frames_are_left_out() {
        let chains = Chains { paths: &["leaf down*6"], below: &["main"], ..Chains::default() };
        check(&chains, "leaf down down down down down down main", Some(true));
        check(&chains, "down down main", Some(true));
        check(&chains, "leaf down down down down down main", Some(false));
        check(&chains, "leaf down | down main", Some(true));
        check(&chains, "down down | down down main", Some(true));
        check(&chains, "leaf down leaf | down main", Some(false));
        check(&chains, "down down down down | down down down main", Some(false));
    }

    #[test]
    fn handlers_stand_on_any_part() {
        let chains = Chains { paths: &["leaf"], below: &["main"], interrupts: &["work handler"] };
        check(&chains, "work handler restore leaf main", Some(true));
        check(&chains, "libc handler restore main", Some(true));
        check(&chains, "work handler restore libc main", Some(true));
        check(&chains, "work handler restore work handler restore leaf main", Some(true));
        check(&chains, "work restore leaf main", Some(false));
        check(&chains, "work handler leaf main", Some(false));
        check(&chains, "work handler restore leaf", Some(false));
    }
}
