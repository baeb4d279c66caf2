//! Log lines as `key=value` pairs, which people and Elasticsearch both read.

use std::fmt;
use std::time::SystemTime;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::{FmtContext, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

/// Spelling of the level key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogStyle {
    /// `time=… level=info msg=…`: agents.
    Agent,
    /// `time=… log.level=info msg=…`: servers.
    Server,
}

/// Starts logging to standard error (agents, all-in-one) or standard output (servers). Call once.
///
/// `EVERFLAME_LOG` takes a filter such as `debug` or `everflame::store=debug`.
pub fn init(style: LogStyle, verbose: bool) {
    let level = if verbose { "debug" } else { "info" };
    let quiet = "h2=warn,hyper=warn,tonic=warn,tower=warn";
    let filter = EnvFilter::try_from_env("EVERFLAME_LOG")
        .unwrap_or_else(|_| EnvFilter::new(format!("{level},{quiet},libbpf_rs=warn")));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).event_format(KeyValue { style });
    // A second initialisation can only come from tests in one process; the first one stays.
    let _ = match style {
        LogStyle::Server => builder.with_writer(std::io::stdout).try_init(),
        LogStyle::Agent => builder.with_writer(std::io::stderr).try_init(),
    };
}

struct KeyValue {
    style: LogStyle,
}

impl<S, N> FormatEvent<S, N> for KeyValue
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut out: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let (key, level) = match self.style {
            LogStyle::Agent => ("level", event.metadata().level()),
            LogStyle::Server => ("log.level", event.metadata().level()),
        };
        let mut fields = Fields::default();
        event.record(&mut fields);
        let time = humantime::format_rfc3339_millis(SystemTime::now());
        write!(out, "time={time} {key}={} msg=", level_name(*level))?;
        quoted(&mut out, &fields.message)?;
        out.write_str(&fields.rest)?;
        if let Some(scope) = context.event_scope() {
            for span in scope.from_root() {
                if let Some(fields) = span.extensions().get::<FormattedFields<N>>()
                    && !fields.is_empty()
                {
                    write!(out, " {fields}")?;
                }
            }
        }
        out.write_char('\n')
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    rest: String,
}

impl Fields {
    fn add(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.message.push_str(value);
        } else {
            self.rest.push(' ');
            self.rest.push_str(field.name());
            self.rest.push('=');
            // Writing to a String cannot fail.
            let _ = quoted(&mut self.rest, value);
        }
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, &format!("{value:?}"));
    }
}

fn level_name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

/// The value bare when it is one plain word, else in quotes with escapes.
fn quoted(out: &mut impl fmt::Write, value: &str) -> fmt::Result {
    let plain = |c: char| c.is_ascii_graphic() && !"\"'\\=".contains(c);
    if !value.is_empty() && value.chars().all(plain) {
        return out.write_str(value);
    }
    out.write_char('"')?;
    for c in value.chars() {
        match c {
            '"' | '\\' => write!(out, "\\{c}")?,
            '\n' => out.write_str("\\n")?,
            c if c.is_control() => write!(out, "\\u{{{:x}}}", c as u32)?,
            c => out.write_char(c)?,
        }
    }
    out.write_char('"')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_with_blanks_or_quotes_are_quoted() {
        let text = |value| {
            let mut out = String::new();
            quoted(&mut out, value).unwrap();
            out
        };
        assert_eq!(text("word"), "word");
        assert_eq!(text(""), "\"\"");
        assert_eq!(text("two words"), "\"two words\"");
        assert_eq!(text("a\"b\n\u{1b}[0m"), "\"a\\\"b\\n\\u{1b}[0m\"");
    }
}
