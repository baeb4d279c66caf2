//! What a person reads when the program has started.

use std::fmt::Write as _;

use crate::store::StoreStatus;

/// Lines of label and text.
#[derive(Debug, Default)]
pub(super) struct Summary(Vec<(&'static str, String)>);

impl Summary {
    /// Adds one line.
    pub(super) fn line(&mut self, label: &'static str, text: impl Into<String>) -> &mut Self {
        self.0.push((label, text.into()));
        self
    }

    /// Adds the store's line.
    pub(super) fn store(&mut self, status: &StoreStatus) -> &mut Self {
        let bytes = status.event_bytes + status.dictionary_bytes;
        self.line(
            "store",
            format!(
                "{} · {} · {} samples",
                status.description,
                show_bytes(bytes),
                group_digits(status.samples)
            ),
        )
    }

    /// Prints to standard output; a closed pipe is no reason to end.
    #[allow(clippy::print_stdout, reason = "the summary is what the person asked for")]
    pub(super) fn print(&self) {
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout().lock(), "{}", self.text());
    }

    fn text(&self) -> String {
        let width = self.0.iter().map(|(label, _)| label.len()).max().unwrap_or(0);
        let mut out = format!("everflame {}", env!("CARGO_PKG_VERSION"));
        for (label, text) in &self.0 {
            let mut lines = text.lines();
            let _ = write!(out, "\n  {label:<width$}  {}", lines.next().unwrap_or_default());
            for line in lines {
                let _ = write!(out, "\n  {:<width$}  {line}", "");
            }
        }
        out
    }
}

/// `12.3 MB`, powers of 1000 as disks are sold.
pub(super) fn show_bytes(bytes: u64) -> String {
    for (scale, unit) in [(1e9, "GB"), (1e6, "MB"), (1e3, "kB")] {
        if bytes as f64 >= scale {
            return format!("{:.1} {unit}", bytes as f64 / scale);
        }
    }
    format!("{bytes} bytes")
}

/// `1,284,311`.
pub(super) fn group_digits(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_line_up_and_further_lines_are_indented() {
        let mut summary = Summary::default();
        summary.line("page", "http://127.0.0.1:8250").line("collector", "127.0.0.1:8260\nsecond");
        let text = summary.text();
        assert!(
            text.contains(
                "\n  page       http://127.0.0.1:8250\n  collector  127.0.0.1:8260\n             second"
            ),
            "{text}"
        );
    }

    #[test]
    fn digits_are_grouped() {
        assert_eq!(group_digits(0), "0");
        assert_eq!(group_digits(999), "999");
        assert_eq!(group_digits(1_284_311), "1,284,311");
        assert_eq!(show_bytes(12_345_678), "12.3 MB");
    }
}
