//! Characters to tokens. Knows what a word is, not what it means.

use super::{KqlError, MAX_CHARS};

/// One token and where it starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Token {
    /// 0-based character.
    pub(super) position: usize,
    /// What it is.
    pub(super) kind: Kind,
}

/// Kind of token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `(`
    Open,
    /// `)`
    Close,
    /// `:`
    Colon,
    /// `and`
    And,
    /// `or`
    Or,
    /// `not`
    Not,
    /// Text in double quotes, escapes resolved.
    Quoted(String),
    /// Unquoted text, escapes resolved, cut at its stars: one piece has no star. Runs of stars are one star.
    Word(Vec<String>),
    /// Behind the last token.
    End,
}

impl Token {
    /// The token as an error message names it.
    pub(super) fn found(&self) -> String {
        match &self.kind {
            Kind::Open => "\"(\"".into(),
            Kind::Close => "\")\"".into(),
            Kind::Colon => "\":\"".into(),
            Kind::And => "\"and\"".into(),
            Kind::Or => "\"or\"".into(),
            Kind::Not => "\"not\"".into(),
            Kind::Quoted(text) => format!("{:?}", short(text)),
            Kind::Word(pieces) => format!("{:?}", short(&pieces.join("*"))),
            Kind::End => "end of text".into(),
        }
    }
}

/// At most 40 characters of a text that goes into a message.
pub(super) fn short(text: &str) -> String {
    let mut cut: String = text.chars().take(40).collect();
    if cut.len() < text.len() {
        cut.push('…');
    }
    cut
}

/// Whether an unquoted word cannot hold this character.
pub(super) fn is_special(c: char) -> bool {
    c.is_whitespace() || matches!(c, '(' | ')' | ':' | '"' | '<' | '>' | '{' | '}')
}

/// All tokens, the last one [`Kind::End`].
pub(super) fn tokens(text: &str) -> Result<Vec<Token>, KqlError> {
    // Counting stops behind the limit, so a hostile length costs nothing.
    let chars: Vec<char> = text.chars().take(MAX_CHARS + 1).collect();
    if chars.len() > MAX_CHARS {
        return Err(KqlError {
            position: MAX_CHARS,
            expected: format!("at most {MAX_CHARS} characters"),
            found: "more".into(),
            hint: None,
        });
    }
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(&c) = chars.get(at) {
        let position = at;
        at += 1;
        let kind = match c {
            c if c.is_whitespace() => continue,
            '(' => Kind::Open,
            ')' => Kind::Close,
            ':' => Kind::Colon,
            '"' => quoted(&chars, &mut at)?,
            '<' | '>' => {
                return Err(KqlError {
                    position,
                    expected: "\":\" behind a field".into(),
                    found: format!("\"{c}\""),
                    hint: Some("ranges are not supported; list the values: pid: (1 or 2)".into()),
                });
            }
            '{' | '}' => {
                return Err(KqlError {
                    position,
                    expected: "a field, a value or a parenthesis".into(),
                    found: format!("\"{c}\""),
                    hint: Some(format!("inside a value write \\{c} or put it in quotes")),
                });
            }
            '\'' => {
                return Err(KqlError {
                    position,
                    expected: "text in double quotes".into(),
                    found: "\"'\"".into(),
                    hint: Some("write \"…\" instead of '…'".into()),
                });
            }
            _ => {
                at = position;
                word(&chars, &mut at)?
            }
        };
        tokens.push(Token { position, kind });
    }
    tokens.push(Token { position: chars.len(), kind: Kind::End });
    Ok(tokens)
}

/// The rest of a quoted text; `at` stands behind the opening quote.
fn quoted(chars: &[char], at: &mut usize) -> Result<Kind, KqlError> {
    let open = *at - 1;
    let mut text = String::new();
    loop {
        let Some(&c) = chars.get(*at) else {
            return Err(KqlError {
                position: open,
                expected: "a closing quote".into(),
                found: "end of text".into(),
                hint: Some("a quote inside the text is written \\\"".into()),
            });
        };
        *at += 1;
        match c {
            '"' => return Ok(Kind::Quoted(text)),
            '\\' => text.push(escape(chars, at)?),
            c => text.push(c),
        }
    }
}

/// The character meant by an escape in quotes; `at` stands behind the backslash.
fn escape(chars: &[char], at: &mut usize) -> Result<char, KqlError> {
    let start = *at - 1;
    let c = chars.get(*at).copied();
    *at += 1;
    match c {
        Some('n') => Ok('\n'),
        Some('r') => Ok('\r'),
        Some('t') => Ok('\t'),
        Some('u') => {
            let digits: String = chars.iter().skip(*at).take(4).collect();
            let code = (digits.chars().count() == 4 && digits.chars().all(|d| d.is_ascii_hexdigit()))
                .then(|| u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32))
                .flatten();
            *at += 4;
            code.ok_or_else(|| KqlError {
                position: start,
                expected: "four hex digits of a character behind \\u".into(),
                found: format!("{digits:?}"),
                hint: None,
            })
        }
        Some(c) if !c.is_alphanumeric() => Ok(c),
        other => Err(KqlError {
            position: start,
            expected: "an escape: \\\" \\\\ \\n \\r \\t \\u0000".into(),
            found: other.map_or_else(|| "end of text".into(), |c| format!("\"\\{c}\"")),
            hint: Some("a backslash itself is written \\\\".into()),
        }),
    }
}

/// An unquoted word or keyword; `at` stands at its first character.
fn word(chars: &[char], at: &mut usize) -> Result<Kind, KqlError> {
    let start = *at;
    let (mut pieces, mut escaped, mut after_star) = (vec![String::new()], false, false);
    while let Some(&c) = chars.get(*at).filter(|c| !is_special(**c)) {
        *at += 1;
        if c == '*' {
            if !after_star {
                pieces.push(String::new());
            }
            after_star = true;
            continue;
        }
        after_star = false;
        let c = if c == '\\' {
            escaped = true;
            let Some(&next) = chars.get(*at) else {
                return Err(KqlError {
                    position: *at - 1,
                    expected: "a character behind \"\\\"".into(),
                    found: "end of text".into(),
                    hint: Some("a backslash itself is written \\\\".into()),
                });
            };
            *at += 1;
            next
        } else {
            c
        };
        pieces.last_mut().expect("pieces start with one").push(c);
    }
    debug_assert!(*at > start, "callers stand at an ordinary character");
    if let ([only], false) = (pieces.as_slice(), escaped) {
        for (keyword, kind) in [("and", Kind::And), ("or", Kind::Or), ("not", Kind::Not)] {
            if only.eq_ignore_ascii_case(keyword) {
                return Ok(kind);
            }
        }
    }
    Ok(Kind::Word(pieces))
}
