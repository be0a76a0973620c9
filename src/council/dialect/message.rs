//! What people read of a provider's error: one line, not too long, and without keys.
//!
//! Some providers repeat the key they were sent, and what is read here goes to logs and clients.

/// Characters of a message.
const LONGEST: usize = 300;
/// Characters that are looked at; what is behind them would not be shown.
const LOOKED_AT: usize = 4096;

/// How keys of well-known providers and tokens begin.
const KEY_STARTS: [&str; 11] =
    ["sk-", "sk_", "pk-", "pplx-", "AIza", "AQ.", "gsk_", "xai-", "hf_", "eyJ", "ya29."];
/// After how many characters a word of letters and digits cannot be anything but a key.
const LONG_WORD: usize = 40;
/// What stands before a key.
const KEY_NAMES: [&str; 6] = ["key", "token", "secret", "bearer", "authorization", "password"];

const MASK: &str = "***";

/// The text as people may read it; of a page, its title.
pub(in crate::council) fn tidy(text: &str) -> String {
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    let start: String = title(text).chars().take(LOOKED_AT).map(plain).collect();
    let line = without_keys(&words(&start));
    match line.char_indices().nth(LONGEST) {
        None => line,
        Some(_) => line.chars().take(LONGEST - 1).chain(['…']).collect(),
    }
}

fn title(text: &str) -> &str {
    let title = text.split_once("<title>").and_then(|(_, rest)| rest.split_once("</title>"));
    title.map_or(text, |(title, _)| title)
}

fn without_keys(text: &str) -> String {
    let mut masked = String::with_capacity(text.len());
    // What the words before say about the next one.
    let (mut named, mut assigned) = (false, false);
    for piece in text.split_inclusive(|c| !is_of_key(c)) {
        let word = piece.trim_end_matches(|c| !is_of_key(c));
        let separator = piece.strip_prefix(word).unwrap_or_default();
        if !word.is_empty() {
            if is_key(word) || (named && (assigned || may_be_key(word))) {
                masked.push_str(MASK);
                named = false;
            } else {
                masked.push_str(word);
                named = is_name(word) || (named && word == "provided");
            }
            assigned = false;
        }
        masked.push_str(separator);
        assigned |= separator == "=";
    }
    masked
}

fn is_of_key(c: char) -> bool {
    c.is_alphanumeric() || "-_.+/~*".contains(c)
}

fn is_key(word: &str) -> bool {
    let digits = word.bytes().filter(u8::is_ascii_digit).count();
    let of_token = |c: char| c.is_ascii_alphanumeric() || "-_+".contains(c);
    let begins = |part: &str| part.len() > 7 && KEY_STARTS.iter().any(|key| part.starts_with(key));
    word.split('/').any(begins)
        || (word.len() >= LONG_WORD && digits > 0 && word.chars().all(of_token))
}

/// Where a key is expected, this may be one.
fn may_be_key(word: &str) -> bool {
    word.len() > 7 && word.contains(|c: char| c.is_ascii_digit() || c == '*')
}

fn is_name(word: &str) -> bool {
    let word = word.to_ascii_lowercase();
    KEY_NAMES.iter().any(|name| word.ends_with(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_line() {
        assert_eq!(tidy("  a\r\n\tb\u{0}c  "), "a b c");
    }

    #[test]
    fn a_message_has_at_most_300_characters() {
        assert_eq!(tidy(&"ß".repeat(300)), "ß".repeat(300));
        assert_eq!(tidy(&"ß".repeat(301)), format!("{}…", "ß".repeat(299)));
    }

    #[test]
    fn of_a_page_its_title_is_told() {
        let page = "<html><head><title>502 Bad\nGateway</title></head><body>nginx</body></html>";
        assert_eq!(tidy(page), "502 Bad Gateway");
    }

    #[test]
    fn keys_are_masked() {
        for (text, masked) in [
            ("provided: sk-proj-abc12********wxyz. You", "provided: *** You"),
            ("header 'Bearer abc.def1/ghi+j'", "header 'Bearer ***'"),
            ("Authorization: Bearer t0ps3cret", "Authorization: Bearer ***"),
            ("POST /v1/models?key=hunter&alt=sse", "POST /v1/models?key=***&alt=sse"),
            ("{\"x-api-key\": \"0123456789abcdef\"}", "{\"x-api-key\": \"***\"}"),
            ("API key provided: 8f3ab1c2d4", "API key provided: ***"),
            ("Received API Key = abc", "Received API Key = ***"),
            ("bad AIzaSyA-1234567 given", "bad *** given"),
            ("“pplx-12345678”", "“***”"),
            ("/hook/sk-12345678", "***"),
            (&format!("user {}", "a1".repeat(42)), "user ***"),
        ] {
            assert_eq!(tidy(text), masked);
        }
    }

    #[test]
    fn what_is_no_key_stays() {
        for text in [
            "API key not valid. Please pass a valid API key.",
            "Invalid bearer token; see https://platform.openai.com/account/api-keys",
            "The model `claude-3-5-sonnet-20241022` does not exist",
            "request 7f1c3c0e-7d0e-4f44-8b9a-0c8a1a3f6b52 at 2026-01-02T03:04:05Z",
            "You have hit the token limit: 128000",
            "n=1 for each token given",
            "Donaudampfschifffahrtselektrizitätenhauptbetriebswerk",
            "with_a_name_of_many_letters_and_of_no_digits",
        ] {
            assert_eq!(tidy(text), text);
        }
    }
}
