//! Reads Rust as far as the import rule needs it: every path in the code that is not for tests.

/// Every path, such as `crate::event::Channel`, whether imported (each leaf of a nested `use` by
/// itself) or written out where it is used.
pub(super) fn paths_of(source: &str) -> Vec<Vec<String>> {
    let tokens = without_tests(&tokens(source));
    let mut paths = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let follows = at > 0 && matches!(tokens[at - 1].as_str(), "." | "::");
        if is_name(&tokens[at]) && !follows {
            at = path(&tokens, at, Vec::new(), &mut paths);
        } else {
            at += 1;
        }
    }
    paths
}

/// Reads a path or a tree of paths that starts at `at`, and returns where it ends.
fn path(
    tokens: &[String],
    mut at: usize,
    mut so_far: Vec<String>,
    paths: &mut Vec<Vec<String>>,
) -> usize {
    let token = |at: usize| tokens.get(at).map_or("", String::as_str);
    loop {
        if token(at) == "{" {
            at += 1;
            while !matches!(token(at), "}" | "") {
                at = if is_name(token(at)) || matches!(token(at), "{" | "*") {
                    path(tokens, at, so_far.clone(), paths)
                } else {
                    at + 1
                };
                if token(at) == "as" {
                    at += 2;
                }
            }
            return at + 1;
        }
        so_far.push(token(at).to_owned());
        at += 1;
        let goes_on = is_name(token(at + 1)) || matches!(token(at + 1), "{" | "*");
        if token(at) != "::" || !goes_on {
            paths.push(so_far);
            return at;
        }
        at += 1;
    }
}

/// Leaves out every item under `#[cfg(test)]`.
fn without_tests(tokens: &[String]) -> Vec<String> {
    const CFG_TEST: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let mut kept = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if tokens.get(at..at + CFG_TEST.len()).is_some_and(|next| next == CFG_TEST) {
            at = item_end(tokens, at + CFG_TEST.len());
        } else {
            kept.push(tokens[at].clone());
            at += 1;
        }
    }
    kept
}

/// Where the item that starts at `at`, further attributes included, ends: behind its block or `;`.
fn item_end(tokens: &[String], mut at: usize) -> usize {
    let (mut depth, mut in_block) = (0_u32, false);
    while at < tokens.len() {
        match tokens[at].as_str() {
            "{" if depth == 0 => {
                in_block = true;
                depth += 1;
            }
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth -= 1,
            _ => {}
        }
        let over = depth == 0 && (tokens[at] == ";" || in_block);
        at += 1;
        if over {
            break;
        }
    }
    at
}

fn is_name(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Names, `::`, and every other character by itself. Comments, strings, characters and lifetimes
/// are left out.
fn tokens(source: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let length = if let Some(length) = silent(rest) {
            length
        } else if first.is_alphanumeric() || first == '_' {
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            tokens.push(rest[..end].to_owned());
            end
        } else if rest.starts_with("::") {
            tokens.push("::".to_owned());
            2
        } else {
            tokens.push(first.to_string());
            first.len_utf8()
        };
        rest = &rest[length..];
    }
    tokens
}

/// The length of what stands at the start of `rest` and says nothing, if there is such.
fn silent(rest: &str) -> Option<usize> {
    let first = rest.chars().next()?;
    if first.is_whitespace() {
        return Some(first.len_utf8());
    }
    if rest.starts_with("//") {
        return Some(rest.find('\n').unwrap_or(rest.len()));
    }
    if rest.starts_with("/*") {
        return Some(rest.find("*/").map_or(rest.len(), |end| end + 2));
    }
    let string = rest.strip_prefix('b').unwrap_or(rest);
    let prefix = rest.len() - string.len();
    if let Some(raw) = string.strip_prefix('r') {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        if raw[hashes..].starts_with('"') {
            let close = format!("\"{}", "#".repeat(hashes));
            let body = &raw[hashes + 1..];
            let end = body.find(&close).map_or(body.len(), |end| end + close.len());
            return Some(prefix + 1 + hashes + 1 + end);
        }
    }
    if let Some(body) = string.strip_prefix('"') {
        return Some(prefix + 1 + closing(body, '"'));
    }
    let body = string.strip_prefix('\'')?;
    let one = body.chars().next().map_or(0, char::len_utf8);
    let character = body.starts_with('\\') || body[one..].starts_with('\'');
    let name = body.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(body.len());
    Some(prefix + 1 + if character { closing(body, '\'') } else { name })
}

/// The length of `body` up to and including the first `quote` that is not escaped.
fn closing(body: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in body.char_indices() {
        if c == quote && !escaped {
            return at + 1;
        }
        escaped = c == '\\' && !escaped;
    }
    body.len()
}

#[test]
fn finds_every_way_to_write_a_path_and_only_in_code() {
    let source = r##"
        //! crate::comment
        use crate::{event::{Channel as C, self}, hub};
        pub(crate) use super::super::session::*;
        /* crate::block */
        #[derive(Debug)]
        fn quoted<'a>(x: &'a str, c: char) { "crate::a \" crate::b"; r#"crate::"raw" end"#; '"'; '\''; b'x'; }
        fn written_out() -> crate::wire::Sse { x.crate_like().await; crate::http::routes::<u8>(); }
        #[cfg(test)]
        #[expect(dead_code, reason = "[")]
        fn for_tests(a: [u8; 2]) { crate::demo::start(); }
        #[cfg(test)]
        mod tests;
        #[cfg(not(test))]
        use crate::streams;
    "##;
    let found: Vec<_> = paths_of(source)
        .into_iter()
        .filter(|path| path.len() > 1)
        .map(|path| path.join("::"))
        .collect();
    assert_eq!(
        found,
        [
            "crate::event::Channel",
            "crate::event::self",
            "crate::hub",
            "super::super::session::*",
            "crate::wire::Sse",
            "crate::http::routes",
            "crate::streams",
        ]
    );
}
