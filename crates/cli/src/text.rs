//! Numbers and texts laid out for a terminal.

use std::io::{self, Write};

/// A text of just so many columns: cut (with `…`) or filled with spaces. Wide characters count as one.
pub(crate) fn fit(text: &str, columns: usize) -> String {
    let count = text.chars().count();
    if count <= columns {
        return format!("{text}{}", " ".repeat(columns - count));
    }
    let cut: String = text.chars().take(columns.saturating_sub(1)).collect();
    format!("{cut}…")
}

/// Words in lines of at most so many columns.
pub(crate) fn wrap(text: &str, columns: usize) -> String {
    let mut wrapped = String::with_capacity(text.len());
    let mut used = 0;
    for word in text.split_whitespace() {
        let width = word.chars().count();
        if used > 0 && used + 1 + width > columns {
            wrapped.push('\n');
            used = 0;
        } else if used > 0 {
            wrapped.push(' ');
            used += 1;
        }
        wrapped.push_str(word);
        used += width;
    }
    wrapped
}

/// A whole number with separators: 1,071,872.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut shown = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

/// A number in at most about eight characters.
pub(crate) fn number(value: f64) -> String {
    if value == 0.0 || !value.is_finite() || value.fract() == 0.0 && value.abs() < 1e7 {
        return format!("{value}");
    }
    if (1e-3..1e6).contains(&value.abs()) { format!("{value:.4}") } else { format!("{value:.3e}") }
}

/// A number of bytes: 1.5 MB.
pub(crate) fn bytes(bytes: u64) -> String {
    let units = [(1_000_000_000_000, "TB"), (1_000_000_000, "GB"), (1_000_000, "MB"), (1_000, "kB")];
    match units.into_iter().find(|(size, _)| bytes >= *size) {
        Some((size, unit)) => format!("{:.1} {unit}", bytes as f64 / size as f64),
        None => format!("{bytes} B"),
    }
}

/// A time: 0.25 s, 3 min 5 s, 2 h 10 min, 3 d 4 h.
pub(crate) fn duration(seconds: f64) -> String {
    if seconds < 10.0 {
        // What is added makes 0 of a 0 with a sign.
        return format!("{} s", (seconds.max(0.0) * 100.0).round() / 100.0 + 0.0);
    }
    let whole = seconds.round() as u64;
    let units = [(86_400, "d", 3_600, "h"), (3_600, "h", 60, "min"), (60, "min", 1, "s")];
    match units.into_iter().find(|(size, ..)| whole >= *size) {
        Some((size, unit, smaller, rest)) => {
            format!("{} {unit} {} {rest}", whole / size, whole % size / smaller)
        }
        None => format!("{whole} s"),
    }
}

/// Writes rows under their titles, each column as wide as its widest cell.
pub(crate) fn write_table<const N: usize>(
    titles: &[String; N],
    rows: &[[String; N]],
    out: &mut dyn Write,
) -> io::Result<()> {
    let lines = || std::iter::once(titles).chain(rows);
    let width = |column: usize| lines().map(|cells| cells[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    for cells in lines() {
        let cells: Vec<String> = cells.iter().zip(&widths).map(|(cell, &width)| fit(cell, width)).collect();
        writeln!(out, "{}", cells.join("  ").trim_end())?;
    }
    Ok(())
}

/// The columns of the terminal; 100 where there is none, or it does not say.
pub(crate) fn terminal_columns() -> usize {
    terminal_size::terminal_size().map_or(100, |(width, _)| usize::from(width.0).max(40))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_fit_their_columns() {
        assert_eq!(fit("abc", 5), "abc  ");
        assert_eq!(fit("abcdef", 4), "abc…");
    }

    #[test]
    fn words_are_wrapped() {
        assert_eq!(wrap("aa bb  cc dddddd", 5), "aa bb\ncc\ndddddd");
    }

    #[test]
    fn whole_numbers_are_grouped() {
        assert_eq!([0, 999, 1000, 1_071_872].map(grouped), ["0", "999", "1,000", "1,071,872"]);
    }

    #[test]
    fn bytes_and_times_have_units() {
        assert_eq!([0, 999, 1_500, 4_300_000].map(bytes), ["0 B", "999 B", "1.5 kB", "4.3 MB"]);
        let times = [-0.0, 0.254, 9.0, 59.6, 185.0, 7_800.0, 273_600.0].map(duration);
        assert_eq!(times, ["0 s", "0.25 s", "9 s", "1 min 0 s", "3 min 5 s", "2 h 10 min", "3 d 4 h"]);
    }

    #[test]
    fn numbers_stay_short() {
        assert_eq!(
            [0.0, 3.0, 0.12345, 123456.0, 1.5e-7, 2.5e9].map(number),
            ["0", "3", "0.1235", "123456", "1.500e-7", "2.500e9"]
        );
        assert_eq!(number(f64::NEG_INFINITY), "-inf");
    }
}
