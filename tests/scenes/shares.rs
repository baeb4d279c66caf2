//! A flame graph as it came from the API, and the questions that truth asks of it.

use serde_json::Value;

/// Columns of an answer, with names looked up.
pub(crate) struct Graph {
    pub(crate) samples: u64,
    pub(crate) complete: u64,
    parent: Vec<usize>,
    own: Vec<u64>,
    names: Vec<String>,
}

fn column<T>(value: &Value, read: impl Fn(&Value) -> Option<T>) -> Vec<T> {
    value
        .as_array()
        .expect("a column")
        .iter()
        .map(|v| read(v).expect("a value of the column's type"))
        .collect()
}

impl Graph {
    /// Reads an answer of `/api/v1/flamegraph`.
    pub(crate) fn new(answer: &Value) -> Self {
        let strings = column(&answer["strings"], |v| v.as_str().map(str::to_owned));
        let function_names = column(&answer["functions"]["name"], Value::as_u64);
        let nodes = &answer["nodes"];
        Self {
            samples: answer["samples"].as_u64().expect("samples"),
            complete: answer["complete"].as_u64().expect("complete"),
            parent: column(&nodes["parent"], |v| v.as_u64().map(|v| v as usize)),
            own: column(&nodes["self"], Value::as_u64),
            names: column(&nodes["function"], Value::as_u64)
                .into_iter()
                .map(|f| strings[function_names[f as usize] as usize].clone())
                .collect(),
        }
    }

    /// Names from the outermost frame to `node`, without the root and the `by` level.
    fn path(&self, mut node: usize) -> Vec<&str> {
        let mut path = Vec::new();
        while node != 0 {
            path.push(self.names[node].as_str());
            node = self.parent[node];
        }
        path.pop();
        path.reverse();
        path
    }

    /// Every stack with its samples.
    pub(crate) fn stacks(&self) -> impl Iterator<Item = (Vec<&str>, u64)> {
        self.own.iter().enumerate().filter(|(_, own)| **own > 0).map(|(node, own)| (self.path(node), *own))
    }

    /// Samples whose stack passes through `chain` in this order without anything between.
    pub(crate) fn through(&self, chain: &[&str]) -> u64 {
        self.stacks()
            .filter(|(path, _)| path.windows(chain.len()).any(|w| w == chain))
            .map(|(_, own)| own)
            .sum()
    }

    /// The largest stacks, for messages.
    pub(crate) fn largest(&self, count: usize) -> String {
        let mut stacks: Vec<_> = self.stacks().collect();
        stacks.sort_by_key(|(_, own)| std::cmp::Reverse(*own));
        let lines: Vec<String> =
            stacks.iter().take(count).map(|(path, own)| format!("{own:>6}  {}", path.join(" > "))).collect();
        lines.join("\n")
    }
}

/// Standard deviations between `hits` of `samples` and a true share. Below 2.58 it lies inside the 99 % interval; a
/// right profiler is outside once in a hundred times, so a test fails at [`TOO_FAR`] only.
pub(crate) fn deviation(hits: u64, samples: u64, share: f64) -> f64 {
    let n = samples as f64;
    (hits as f64 - n * share).abs() / (n * share * (1.0 - share)).sqrt()
}

/// Chance of a right profiler to be beyond: 1 in 16,000.
pub(crate) const TOO_FAR: f64 = 4.0;
