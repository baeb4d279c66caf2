//! The table that is the contract, as Markdown.

use crate::measure::Measured;

/// Reasons shown of each row.
const REASONS: usize = 3;

/// The whole table.
pub(crate) fn whole(rows: &[Measured]) -> String {
    let mut lines = vec![
        "| Program | Samples | Complete | Right (stacks compared) | Reasons of the rest |".to_owned(),
        "|---|---|---|---|---|".to_owned(),
    ];
    lines.extend(rows.iter().map(line));
    lines.join("\n")
}

/// One row.
pub(crate) fn line(row: &Measured) -> String {
    if let Some(why) = &row.not_run {
        return format!("| {} | – | – | – | cannot run: {} |", row.name, cell(why));
    }
    let right = row
        .right_share()
        .map_or_else(|| "–".to_owned(), |share| format!("{:.2} % ({})", share * 100.0, row.compared));
    let mut reasons: Vec<String> =
        row.reasons.iter().take(REASONS).map(|(text, count)| format!("{count} × {}", cell(text))).collect();
    if row.reasons.len() > REASONS {
        let more: u64 = row.reasons[REASONS..].iter().map(|(_, count)| count).sum();
        reasons.push(format!("{more} × others"));
    }
    format!(
        "| {}{} | {} | {:.2} % | {right} | {} |",
        row.name,
        if row.meets_the_aims() { "" } else { " **(misses)**" },
        row.samples,
        row.complete_share() * 100.0,
        reasons.join("; ")
    )
}

fn cell(text: &str) -> String {
    text.replace('|', "/").replace('\n', " ")
}
