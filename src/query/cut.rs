//! Which nodes stay when a tree has more than its budget: the heaviest, parents before children.

/// A line through a list of weights: everything heavier stays, and the first few of those on the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cut {
    line: u64,
    on_line: usize,
}

impl Cut {
    /// The cut that leaves `budget` weights; `None` when all fit.
    pub(super) fn new(weights: &[u64], budget: usize) -> Option<Self> {
        if weights.len() <= budget {
            return None;
        }
        if budget == 0 {
            return Some(Self { line: u64::MAX, on_line: 0 });
        }
        let mut sorted = weights.to_vec();
        let (heavier, line, _) = sorted.select_nth_unstable_by(budget - 1, |a, b| b.cmp(a));
        let line = *line;
        let on_line = budget - heavier.iter().filter(|weight| **weight > line).count();
        Some(Self { line, on_line })
    }

    /// Whether the next weight stays. Weights are asked in one fixed order; with parents in front of their children
    /// (which never weigh more), a parent stays whenever one of its children does.
    pub(super) fn keeps(&mut self, weight: u64) -> bool {
        if weight > self.line {
            return true;
        }
        let room = weight == self.line && self.on_line > 0;
        self.on_line -= usize::from(room);
        room
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(weights: &[u64], budget: usize) -> Vec<usize> {
        let mut cut = Cut::new(weights, budget);
        (0..weights.len()).filter(|i| cut.as_mut().is_none_or(|cut| cut.keeps(weights[*i]))).collect()
    }

    #[test]
    fn the_heaviest_stay_and_ties_go_to_the_first() {
        assert_eq!(kept(&[9, 5, 5, 5, 1], 3), [0, 1, 2]);
        assert_eq!(kept(&[1, 2, 3], 3), [0, 1, 2]);
        assert_eq!(kept(&[1, 2, 3], 1), [2]);
        assert_eq!(kept(&[1, 1, 1], 0), [0usize; 0]);
        assert_eq!(kept(&[7, 7, 7], 2), [0, 1]);
    }
}
