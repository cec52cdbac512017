//! A first look at the bytes of a JSON text, before anything is allocated: nesting, and numbers that JSON readers
//! would quietly round.

use crate::fault::{Fault, Faults};

/// Whether the text stays within `depth` and writes no whole number that 64 bits cannot hold and no `NaN` or
/// `Infinity`. Says nothing about whether it is JSON: that is the parser's work, which this makes safe (its recursion
/// is bounded by the nesting) and exact.
pub(super) fn scan(text: &str, depth: usize) -> Result<(), Faults> {
    let bytes = text.as_bytes();
    let mut open = 0_usize;
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'"' => at = string_end(bytes, at),
            b'{' | b'[' => {
                open += 1;
                if open > depth {
                    let message = format!(
                        "values stand in one another deeper than {depth} levels at {}",
                        place(text, at)
                    );
                    return Err(Fault::new(message).into());
                }
            }
            b'}' | b']' => open = open.saturating_sub(1),
            b'-' | b'0'..=b'9' => {
                let length = bytes[at..].iter().take_while(|byte| is_number_byte(**byte)).count();
                let token = text.get(at..at + length).unwrap_or_default();
                if length > 18 && is_unrepresentable(token) {
                    let message = format!("a whole number that 64 bits cannot hold at {}", place(text, at));
                    return Err(Fault::new(message)
                        .with_hint("for a floating-point number write a fraction or an exponent, as in 1e20")
                        .into());
                }
                // `-Infinity`: the letter is looked at next.
                at += length.max(1) - 1;
            }
            b'N' | b'I' => {
                let message = format!("`NaN` and `Infinity` are not JSON, at {}", place(text, at));
                return Err(Fault::new(message)
                    .with_hint(r#"write {"float": "nan"}, {"float": "inf"} or {"float": "-inf"}"#)
                    .into());
            }
            _ => {}
        }
        at += 1;
    }
    Ok(())
}

/// The place of the quotation mark that ends the string beginning at `start`; the last byte where none does.
fn string_end(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'"' => return at,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    bytes.len()
}

fn is_number_byte(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E')
}

/// Whether it is a whole number that fits neither `i64` nor `u64`.
fn is_unrepresentable(token: &str) -> bool {
    let digits = token.strip_prefix('-').unwrap_or(token);
    digits.bytes().all(|byte| byte.is_ascii_digit())
        && token.parse::<i64>().is_err()
        && token.parse::<u64>().is_err()
}

/// `line 3 column 7`, both from 1.
fn place(text: &str, at: usize) -> String {
    let before = text.get(..at).unwrap_or(text);
    let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    format!("line {line} column {column}")
}

#[cfg(test)]
mod tests {
    use super::scan;

    #[test]
    fn nesting_is_counted_outside_strings() {
        assert!(scan(r#"[["[[[[", "\"[[["]]"#, 2).is_ok());
        assert_eq!(
            scan("{\n [[1]]}", 2).unwrap_err().0[0].message,
            "values stand in one another deeper than 2 levels at line 2 column 3"
        );
    }

    #[test]
    fn whole_numbers_beyond_64_bits_are_refused_and_floats_are_not() {
        for fits in ["18446744073709551615", "-9223372036854775808", "100000000000000000000.0", "1e200"] {
            assert!(scan(fits, 1).is_ok(), "{fits}");
        }
        for wide in ["18446744073709551616", "-9223372036854775809", "[1, 100000000000000000000]"] {
            assert!(scan(wide, 1).is_err(), "{wide}");
        }
    }

    #[test]
    fn python_s_nan_is_refused_with_its_exact_form() {
        for text in ["[NaN]", "[Infinity]", "[-Infinity]"] {
            assert!(scan(text, 1).unwrap_err().0[0].hint.as_ref().unwrap().contains("float"), "{text}");
        }
        assert!(scan(r#"["NaN"]"#, 1).is_ok());
    }
}
