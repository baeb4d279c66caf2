//! Tokens to a filter tree, by recursive descent with a depth limit.

use crate::model::{Dimension, Filter, Pattern};
use crate::query::nearest;

use super::lexer::{Kind, Token, short, tokens};
use super::{KqlError, MAX_DEPTH};

/// Parses a filter. Blank text and `*` are [`Filter::All`].
///
/// # Errors
/// The first place where the text goes wrong, with what was expected there.
pub fn parse(text: &str) -> Result<Filter, KqlError> {
    let tokens = tokens(text)?;
    let mut parser = Parser { tokens, at: 0, depth: 0 };
    if parser.peek().kind == Kind::End {
        return Ok(Filter::All);
    }
    let filter = parser.either(None)?;
    match parser.peek().kind {
        Kind::End => Ok(filter),
        _ => Err(parser.unexpected_behind_term()),
    }
}

struct Parser {
    /// Ends with [`Kind::End`], which is never stepped over.
    tokens: Vec<Token>,
    at: usize,
    depth: usize,
}

/// The field in front of a value list: what it means and how it was written.
#[derive(Clone, Copy)]
struct Field<'t> {
    dimension: Dimension,
    name: &'t str,
}

impl Parser {
    fn peek(&self) -> &Token {
        &self.tokens[self.at]
    }

    fn next(&mut self) -> Token {
        let token = self.tokens[self.at].clone();
        if token.kind != Kind::End {
            self.at += 1;
        }
        token
    }

    fn take(&mut self, kind: &Kind) -> bool {
        let found = self.peek().kind == *kind;
        if found {
            self.at += 1;
        }
        found
    }

    fn enter(&mut self) -> Result<(), KqlError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(KqlError {
                position: self.peek().position,
                expected: format!("at most {MAX_DEPTH} levels of parentheses and \"not\""),
                found: "more".into(),
                hint: None,
            });
        }
        Ok(())
    }

    /// Parts joined by `or`.
    fn either(&mut self, field: Option<Field<'_>>) -> Result<Filter, KqlError> {
        let mut parts = vec![self.both(field)?];
        while self.take(&Kind::Or) {
            parts.push(self.both(field)?);
        }
        Ok(one_or(parts, Filter::Or))
    }

    /// Parts joined by `and`.
    fn both(&mut self, field: Option<Field<'_>>) -> Result<Filter, KqlError> {
        let mut parts = vec![self.negation(field)?];
        while self.take(&Kind::And) {
            parts.push(self.negation(field)?);
        }
        Ok(one_or(parts, Filter::And))
    }

    fn negation(&mut self, field: Option<Field<'_>>) -> Result<Filter, KqlError> {
        if !self.take(&Kind::Not) {
            return self.atom(field);
        }
        self.enter()?;
        let part = self.negation(field)?;
        self.depth -= 1;
        Ok(Filter::Not(Box::new(part)))
    }

    /// A parenthesis, a value of `field`, or a field with its values.
    fn atom(&mut self, field: Option<Field<'_>>) -> Result<Filter, KqlError> {
        let token = self.next();
        match (&token.kind, field) {
            (Kind::Open, _) => {
                self.enter()?;
                let inner = self.either(field)?;
                self.close(&token)?;
                self.depth -= 1;
                Ok(inner)
            }
            (Kind::Quoted(text), Some(field)) => value(field, &token, std::slice::from_ref(text), true),
            (Kind::Word(pieces), Some(field)) => value(field, &token, pieces, false),
            (_, Some(field)) => Err(KqlError {
                position: token.position,
                expected: format!("a value after \"{}:\"", field.name),
                found: token.found(),
                hint: Some(format!("write {}: {}", field.name, example(field.dimension))),
            }),
            (Kind::Word(pieces), None) => self.term(&token, pieces),
            (Kind::Quoted(text), None) => {
                let hint = if self.peek().kind == Kind::Colon {
                    "write the field without quotes".into()
                } else {
                    format!("write process: \"{}\" or thread: \"{0}\"", short(text))
                };
                Err(KqlError { hint: Some(hint), ..expected_field(&token) })
            }
            _ => Err(KqlError { hint: Some("write process: nginx".into()), ..expected_field(&token) }),
        }
    }

    fn close(&mut self, open: &Token) -> Result<(), KqlError> {
        if self.take(&Kind::Close) {
            return Ok(());
        }
        if self.peek().kind == Kind::End {
            return Err(KqlError {
                position: open.position,
                expected: "a closing parenthesis".into(),
                found: "end of text".into(),
                hint: None,
            });
        }
        Err(self.unexpected_behind_term())
    }

    /// `field: values`, or `*` alone.
    fn term(&mut self, token: &Token, pieces: &[String]) -> Result<Filter, KqlError> {
        let has_colon = self.peek().kind == Kind::Colon;
        let star = matches!(pieces, [a, b] if a.is_empty() && b.is_empty());
        let [name] = pieces else {
            if star && !has_colon {
                return Ok(Filter::All);
            }
            let hint = if has_colon {
                "fields cannot hold \"*\"; GET /api/v1/fields lists them".into()
            } else {
                format!("write process: {} or thread: {0}", short(&pieces.join("*")))
            };
            return Err(KqlError { hint: Some(hint), ..expected_field(token) });
        };
        if !has_colon {
            return Err(KqlError { hint: Some(hint_for_bare_word(name)), ..expected_field(token) });
        }
        let Some(dimension) = Dimension::parse(name) else {
            let hint = nearest::field(name).map_or_else(
                || "GET /api/v1/fields lists all fields".into(),
                |n| format!("did you mean {n}?"),
            );
            return Err(KqlError { hint: Some(hint), ..expected_field(token) });
        };
        self.at += 1;
        self.atom_of(Field { dimension, name })
    }

    /// What stands behind `field:`, one value or a parenthesis of values.
    fn atom_of(&mut self, field: Field<'_>) -> Result<Filter, KqlError> {
        self.atom(Some(field))
    }

    /// The current token cannot stand behind a complete term.
    fn unexpected_behind_term(&self) -> KqlError {
        let token = self.peek();
        let follows_value = |kind: &Kind| matches!(kind, Kind::Word(_) | Kind::Quoted(_));
        let is_term = follows_value(&token.kind)
            && self.tokens.get(self.at + 1).is_some_and(|next| next.kind == Kind::Colon);
        let hint = match &token.kind {
            _ if is_term => Some("join two conditions with and, or".into()),
            kind if follows_value(kind) => {
                Some("put a value with spaces in quotes: process: \"two words\"".into())
            }
            Kind::Not => Some("write and not".into()),
            Kind::Colon => Some("put a value with a colon in quotes".into()),
            Kind::Close => Some("remove it or open it with \"(\"".into()),
            _ => None,
        };
        KqlError {
            position: token.position,
            expected: "\"and\", \"or\" or the end".into(),
            found: token.found(),
            hint,
        }
    }
}

fn one_or(mut parts: Vec<Filter>, join: fn(Vec<Filter>) -> Filter) -> Filter {
    if parts.len() == 1 { parts.remove(0) } else { join(parts) }
}

fn expected_field(token: &Token) -> KqlError {
    KqlError { position: token.position, expected: "a field".into(), found: token.found(), hint: None }
}

fn hint_for_bare_word(word: &str) -> String {
    if let Some((name, value)) = word.split_once('=')
        && Dimension::parse(name).is_some()
    {
        return format!("write {name}: {}", short(value));
    }
    if Dimension::parse(word).is_some() {
        return format!("write {word}: and a value");
    }
    format!("write process: {} or thread: {0}", short(word))
}

/// A value that makes a good example in a hint.
fn example(dimension: Dimension) -> &'static str {
    match dimension {
        Dimension::Pid | Dimension::Tid => "1234",
        Dimension::Executable => "nginx",
        _ => "name*",
    }
}

fn value(field: Field<'_>, token: &Token, pieces: &[String], quoted: bool) -> Result<Filter, KqlError> {
    let dimension = field.dimension;
    let exists = !quoted && matches!(pieces, [a, b] if a.is_empty() && b.is_empty());
    if exists {
        return Ok(Filter::Not(Box::new(Filter::Match(dimension, Pattern::exact("")))));
    }
    let pieces = pieces.iter().map(|piece| piece.as_str().into()).collect();
    let mut pattern = Pattern { pieces };
    if matches!(dimension, Dimension::Pid | Dimension::Tid)
        && let [only] = pattern.pieces.as_slice()
        && !only.is_empty()
    {
        // One spelling per number, so that 007 finds 7.
        let number = only.bytes().all(|b| b.is_ascii_digit()).then(|| only.parse::<u32>().ok()).flatten();
        let Some(number) = number else {
            return Err(KqlError {
                position: token.position,
                expected: format!("a number from 0 to {} after \"{}:\"", u32::MAX, field.name),
                found: token.found(),
                hint: Some(format!("write {}: 1234", field.name)),
            });
        };
        pattern = Pattern::exact(&number.to_string());
    }
    Ok(Filter::Match(dimension, pattern))
}
