//! Filters as people write them: trees, messages, round trips.

use proptest::prelude::*;

use super::*;
use crate::model::{Dimension, Filter, Pattern};

fn is(dimension: Dimension, text: &str) -> Filter {
    Filter::Match(dimension, Pattern { pieces: text.split('*').map(Into::into).collect() })
}

fn check(text: &str, expected: &Filter) {
    assert_eq!(parse(text).as_ref(), Ok(expected), "{text}");
}

#[test]
fn blank_text_and_a_star_are_everything() {
    check("", &Filter::All);
    check("  \n", &Filter::All);
    check("*", &Filter::All);
}

#[test]
fn values_are_words_quoted_text_or_patterns() {
    check("process: nginx", &is(Dimension::Executable, "nginx"));
    check("process:nginx", &is(Dimension::Executable, "nginx"));
    check("process.executable.name : nginx", &is(Dimension::Executable, "nginx"));
    check("thread: w*", &is(Dimension::ThreadName, "w*"));
    check("thread: a**b*", &is(Dimension::ThreadName, "a*b*"));
    check(
        r#"thread: "a \"b\" \\ \u00e9\n""#,
        &Filter::Match(Dimension::ThreadName, Pattern::exact("a \"b\" \\ é\n")),
    );
    check(r#"thread: "w*""#, &Filter::Match(Dimension::ThreadName, Pattern::exact("w*")));
    check(r"thread: w\*\ x", &Filter::Match(Dimension::ThreadName, Pattern::exact("w* x")));
    check(r"thread: \and", &is(Dimension::ThreadName, "and"));
    check("thread: \"\"", &is(Dimension::ThreadName, ""));
    check("pid: 007", &is(Dimension::Pid, "7"));
    check("tid: 12*", &is(Dimension::Tid, "12*"));
    check("container: *", &Filter::Not(Box::new(is(Dimension::ContainerName, ""))));
}

#[test]
fn not_binds_tighter_than_and_and_tighter_than_or() {
    let (a, b, c) = (is(Dimension::Executable, "a"), is(Dimension::ThreadName, "b"), is(Dimension::Pid, "3"));
    let not_a = Filter::Not(Box::new(a.clone()));
    check(
        "NOT process: a And thread: b oR pid: 3",
        &Filter::Or(vec![Filter::And(vec![not_a, b.clone()]), c.clone()]),
    );
    check("process: a and (thread: b or pid: 3)", &Filter::And(vec![a, Filter::Or(vec![b, c])]));
}

#[test]
fn one_field_takes_a_parenthesis_of_values() {
    let (a, b) = (is(Dimension::HostName, "a"), is(Dimension::HostName, "b c"));
    check(r#"host: (a or "b c")"#, &Filter::Or(vec![a.clone(), b.clone()]));
    check(r#"host: (a and not "b c")"#, &Filter::And(vec![a, Filter::Not(Box::new(b))]));
}

#[test]
fn errors_name_place_expectation_finding_and_cure() {
    for (text, position, message, hint) in [
        ("process:", 8, "expected a value after \"process:\", found end of text", "write process: nginx"),
        ("nginx", 0, "expected a field, found \"nginx\"", "write process: nginx or thread: nginx"),
        ("proces: nginx", 0, "expected a field, found \"proces\"", "did you mean process?"),
        ("colour: red", 0, "expected a field, found \"colour\"", "GET /api/v1/fields lists all fields"),
        ("process=nginx", 0, "expected a field, found \"process=nginx\"", "write process: nginx"),
        (
            "\"nginx\"",
            0,
            "expected a field, found \"nginx\"",
            "write process: \"nginx\" or thread: \"nginx\"",
        ),
        (
            "process: a b",
            11,
            "expected \"and\", \"or\" or the end, found \"b\"",
            "put a value with spaces in quotes: process: \"two words\"",
        ),
        (
            "process: a thread: b",
            11,
            "expected \"and\", \"or\" or the end, found \"thread\"",
            "join two conditions with and, or",
        ),
        (
            "container.id: a:b",
            15,
            "expected \"and\", \"or\" or the end, found \":\"",
            "put a value with a colon in quotes",
        ),
        (
            "process: \"a",
            9,
            "expected a closing quote, found end of text",
            "a quote inside the text is written \\\"",
        ),
        (
            "pid > 5",
            4,
            "expected \":\" behind a field, found \">\"",
            "ranges are not supported; list the values: pid: (1 or 2)",
        ),
        (
            "pid: abc",
            5,
            "expected a number from 0 to 4294967295 after \"pid:\", found \"abc\"",
            "write pid: 1234",
        ),
        ("process: 'a'", 9, "expected text in double quotes, found \"'\"", "write \"…\" instead of '…'"),
        (
            "process: a)",
            10,
            "expected \"and\", \"or\" or the end, found \")\"",
            "remove it or open it with \"(\"",
        ),
        ("é and", 0, "expected a field, found \"é\"", "write process: é or thread: é"),
    ] {
        let error = parse(text).unwrap_err();
        assert_eq!(
            (error.position, error.to_string().as_str(), error.hint.as_deref()),
            (position, message, Some(hint)),
            "{text}"
        );
    }
    assert_eq!(
        parse("(process: a").unwrap_err().to_string(),
        "expected a closing parenthesis, found end of text"
    );
    assert_eq!(parse("process: é and").unwrap_err().position, 14);
}

#[test]
fn length_and_depth_are_limited() {
    let long = format!("process: {}", "a".repeat(1 << 20));
    assert_eq!(parse(&long).unwrap_err().position, MAX_CHARS);
    let deep = format!("{}pid: 1{}", "(".repeat(4000), ")".repeat(4000));
    assert!(parse(&deep).unwrap_err().expected.contains("levels"));
    assert!(parse(&format!("{} pid: 1", "not ".repeat(2000))).is_err());
    assert!(parse(&format!("{} pid: 1", "not ".repeat(MAX_DEPTH))).is_ok());
}

/// Trees that the parser can give: joints have at least two parts, patterns no empty middle.
fn filters() -> impl Strategy<Value = Filter> {
    let dimensions = prop::sample::select(Dimension::ALL.to_vec());
    let piece = prop_oneof![
        any::<String>(),
        "[a-z*:\"\\\\(){}<>' \n\t]{1,6}",
        Just("and".to_owned()),
        Just("not".into())
    ];
    let pieces = prop::collection::vec(piece.prop_filter("empty", |p| !p.is_empty()), 1..4);
    let value = (pieces, any::<bool>(), any::<bool>());
    let leaf = (dimensions, value).prop_map(|(dimension, (mut pieces, open_start, open_end))| {
        if matches!(dimension, Dimension::Pid | Dimension::Tid) {
            return is(dimension, "12");
        }
        if open_start {
            pieces.insert(0, String::new());
        }
        if open_end {
            pieces.push(String::new());
        }
        Filter::Match(dimension, Pattern { pieces: pieces.iter().map(|p| p.as_str().into()).collect() })
    });
    let leaf = prop_oneof![8 => leaf, 1 => Just(Filter::All)];
    leaf.prop_recursive(5, 40, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 2..4).prop_map(Filter::And),
            prop::collection::vec(inner.clone(), 2..4).prop_map(Filter::Or),
            inner.prop_map(|part| Filter::Not(Box::new(part))),
        ]
    })
}

proptest! {
    #[test]
    fn printed_filters_parse_to_themselves(filter in filters()) {
        let text = print(&filter);
        prop_assume!(text.chars().count() <= MAX_CHARS);
        prop_assert_eq!(parse(&text), Ok(filter), "{}", text);
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in any::<String>(), soup in "[a-z :()\"\\\\*<>{}']{0,60}( and | or | not |process:){0,5}") {
        for text in [&text, &soup] {
            if let Err(error) = parse(text) {
                prop_assert!(error.position <= text.chars().count());
            }
        }
    }
}
