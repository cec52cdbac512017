//! Names and texts of strangers, as they may stand in a message.

use crate::limits;

/// The text between backticks, shortened, with control characters escaped: it comes from a stranger and goes to a
/// terminal.
pub(super) fn quote(text: &str) -> String {
    const SHOWN: usize = 60;
    let mut quoted = String::from("`");
    for character in text.chars().take(SHOWN) {
        if character.is_control() || matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') {
            quoted.extend(character.escape_unicode());
        } else {
            quoted.push(character);
        }
    }
    if text.chars().nth(SHOWN).is_some() {
        quoted.push('…');
    }
    quoted.push('`');
    quoted
}

/// Whether it can be a name: ASCII letters, digits and `_`, at least one, at most [`limits::TEXT_BYTES`].
pub(super) fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= limits::TEXT_BYTES
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::quote;

    #[test]
    fn what_a_stranger_wrote_cannot_speak_to_the_terminal() {
        assert_eq!(quote("a\u{1b}[2Jb"), "`a\\u{1b}[2Jb`");
        assert_eq!(quote("\u{202e}evil"), "`\\u{202e}evil`");
        assert_eq!(quote(&"x".repeat(1000)).chars().count(), 63);
    }
}
