//! Unwind rules as text: `cfa=sp+16 fp=cfa-16 ra=cfa-8`, and back.

use everflame::unwind::{CfaRule, FpRule, Goroutine, RaRule, Rule};

/// One rule as text.
pub(crate) fn print(rule: &Rule) -> String {
    if let Rule::Guess { cfa, fp, ra } = *rule {
        return format!("guess {}", print(&Rule::Frame { cfa, fp, ra }));
    }
    if let Rule::Goroutine(Goroutine { g, m, goroutine, saved, saved_fp }) = *rule {
        return format!("goroutine g={g} m={m} goroutine={goroutine} saved={saved} fp={saved_fp}");
    }
    let Rule::Frame { cfa, fp, ra } = rule else {
        let word = match rule {
            Rule::FramePointer => "frame-pointer",
            Rule::BorrowedFramePointer => "borrowed-frame-pointer",
            Rule::Signal => "signal",
            Rule::Stop => "stop",
            Rule::Frame { .. } | Rule::Guess { .. } | Rule::Goroutine(_) | Rule::Unknown => "unknown",
        };
        return word.to_owned();
    };
    let cfa = match cfa {
        CfaRule::Sp(offset) => format!("sp{offset:+}"),
        CfaRule::Fp(offset) => format!("fp{offset:+}"),
        CfaRule::Plt { threshold } => format!("plt{threshold:+}"),
        CfaRule::DerefSp { offset, add } => format!("*sp{offset:+}{add:+}"),
        CfaRule::DerefFp { offset, add } => format!("*fp{offset:+}{add:+}"),
        CfaRule::Register { register, offset } => format!("r{register}{offset:+}"),
    };
    let fp = match fp {
        FpRule::Unchanged => "same".to_owned(),
        FpRule::AtCfa(offset) => format!("cfa{offset:+}"),
        FpRule::AtFp(offset) => format!("fp{offset:+}"),
        FpRule::Unknown => "unknown".to_owned(),
    };
    let ra = match ra {
        RaRule::AtCfa(offset) => format!("cfa{offset:+}"),
        RaRule::LinkRegister => "lr".to_owned(),
        RaRule::Register(register) => format!("r{register}"),
    };
    format!("cfa={cfa} fp={fp} ra={ra}")
}

/// The rule of a text; panics with the text when it is none.
pub(crate) fn parse(text: &str) -> Rule {
    if let Some(guess) = text.strip_prefix("guess ") {
        let Rule::Frame { cfa, fp, ra } = parse(guess) else { panic!("rule {text:?}: no guess") };
        return Rule::Guess { cfa, fp, ra };
    }
    if let Some(offsets) = text.strip_prefix("goroutine ") {
        let words: Vec<i32> = offsets
            .split_whitespace()
            .map(|word| word.split_once('=').and_then(|(_, number)| number.parse().ok()))
            .map(|number| number.unwrap_or_else(|| panic!("rule {text:?}: a number is missing")))
            .collect();
        let [g, m, goroutine, saved, saved_fp] = words[..] else {
            panic!("rule {text:?}: expected 5 offsets")
        };
        let [m, goroutine, saved, saved_fp] = [m, goroutine, saved, saved_fp].map(|offset| offset as u16);
        return Rule::Goroutine(Goroutine { g, m, goroutine, saved, saved_fp });
    }
    match text {
        "frame-pointer" => return Rule::FramePointer,
        "borrowed-frame-pointer" => return Rule::BorrowedFramePointer,
        "signal" => return Rule::Signal,
        "stop" => return Rule::Stop,
        "unknown" => return Rule::Unknown,
        _ => {}
    }
    let mut parts = text.split_whitespace();
    let mut part = |key: &str| {
        let value = parts.next().and_then(|part| part.strip_prefix(key));
        value.unwrap_or_else(|| panic!("rule {text:?}: expected {key}…"))
    };
    let (cfa, fp, ra) = (part("cfa="), part("fp="), part("ra="));
    let (base, numbers) = split(cfa);
    let number = |at: usize| *numbers.get(at).unwrap_or_else(|| panic!("rule {text:?}: a number is missing"));
    let cfa = match base {
        "sp" => CfaRule::Sp(number(0)),
        "fp" => CfaRule::Fp(number(0)),
        "plt" => CfaRule::Plt { threshold: number(0) as u8 },
        "*sp" => CfaRule::DerefSp { offset: number(0), add: number(1) },
        "*fp" => CfaRule::DerefFp { offset: number(0), add: number(1) },
        _ => CfaRule::Register { register: register(base, text), offset: number(0) },
    };
    let (base, numbers) = split(fp);
    let fp = match (base, numbers.first()) {
        ("same", None) => FpRule::Unchanged,
        ("cfa", Some(&offset)) => FpRule::AtCfa(offset),
        ("fp", Some(&offset)) => FpRule::AtFp(offset),
        ("unknown", None) => FpRule::Unknown,
        _ => panic!("rule {text:?}: no such fp"),
    };
    let (base, numbers) = split(ra);
    let ra = match (base, numbers.first()) {
        ("lr", None) => RaRule::LinkRegister,
        ("cfa", Some(&offset)) => RaRule::AtCfa(offset),
        _ => RaRule::Register(register(base, text)),
    };
    Rule::Frame { cfa, fp, ra }
}

fn register(word: &str, text: &str) -> u8 {
    let number = word.strip_prefix('r').and_then(|number| number.parse().ok());
    number.unwrap_or_else(|| panic!("rule {text:?}: {word:?} is no register"))
}

/// `*sp+8-16` to `*sp` and both numbers.
fn split(text: &str) -> (&str, Vec<i32>) {
    let end = text.find(['+', '-']).unwrap_or(text.len());
    let (mut numbers, mut rest) = (Vec::new(), &text[end..]);
    while !rest.is_empty() {
        let end = rest[1..].find(['+', '-']).map_or(rest.len(), |at| at + 1);
        numbers.push(rest[..end].parse().unwrap_or_else(|_| panic!("{text:?}: {rest:?} is no number")));
        rest = &rest[end..];
    }
    (&text[..end], numbers)
}
