//! What templates take from Python: `json.dumps` and `strftime`.

use std::fmt::Write;
use std::time::SystemTime;

use minijinja::value::Kwargs;
use minijinja::{Error, ErrorKind, Value as Jinja};
use serde_json::Value;

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// The most spaces of an indentation.
const MAXIMUM_INDENT: usize = 64;

/// The filter `tojson` as transformers has it: `json.dumps(x, ensure_ascii=False, …)`, without the escapes for HTML
/// that Jinja's own adds.
pub(super) fn tojson(value: &Jinja, options: Kwargs) -> Result<String, Error> {
    let invalid = |reason: String| Error::new(ErrorKind::InvalidOperation, reason);
    let value = serde_json::to_value(value).map_err(|error| invalid(error.to_string()))?;
    let indent: Option<usize> = options.get("indent")?;
    let separators: Option<Vec<String>> = options.get("separators")?;
    let ascii: Option<bool> = options.get("ensure_ascii")?;
    let sorted: Option<bool> = options.get("sort_keys")?;
    options.assert_all_used()?;
    let comma = if indent.is_some() { "," } else { ", " };
    let (comma, colon) = match separators.as_deref() {
        None => (comma, ": "),
        Some([comma, colon]) => (comma.as_str(), colon.as_str()),
        Some(_) => return Err(invalid("`separators` are two texts".to_owned())),
    };
    let style = Style {
        indent: indent.map(|indent| indent.min(MAXIMUM_INDENT)),
        comma,
        colon,
        ascii: ascii.unwrap_or(false),
        sorted: sorted.unwrap_or(false),
    };
    let mut text = String::new();
    style.write(&mut text, &value, 0);
    Ok(text)
}

struct Style<'s> {
    indent: Option<usize>,
    comma: &'s str,
    colon: &'s str,
    ascii: bool,
    sorted: bool,
}

impl Style<'_> {
    /// Writes a value; its depth is bounded by that of the JSON and the template that it comes from.
    fn write(&self, text: &mut String, value: &Value, depth: usize) {
        match value {
            Value::Array(items) if items.is_empty() => text.push_str("[]"),
            Value::Object(entries) if entries.is_empty() => text.push_str("{}"),
            Value::Array(items) => {
                text.push('[');
                for (index, item) in items.iter().enumerate() {
                    self.between(text, index, depth + 1);
                    self.write(text, item, depth + 1);
                }
                self.line(text, depth);
                text.push(']');
            }
            Value::Object(entries) => {
                let mut entries: Vec<_> = entries.iter().collect();
                if self.sorted {
                    entries.sort_by_key(|(key, _)| *key);
                }
                text.push('{');
                for (index, (key, item)) in entries.into_iter().enumerate() {
                    self.between(text, index, depth + 1);
                    self.string(text, key);
                    text.push_str(self.colon);
                    self.write(text, item, depth + 1);
                }
                self.line(text, depth);
                text.push('}');
            }
            Value::String(string) => self.string(text, string),
            plain => text.push_str(&plain.to_string()),
        }
    }

    fn between(&self, text: &mut String, index: usize, depth: usize) {
        if index > 0 {
            text.push_str(self.comma);
        }
        self.line(text, depth);
    }

    fn line(&self, text: &mut String, depth: usize) {
        if let Some(indent) = self.indent {
            text.push('\n');
            text.extend(std::iter::repeat_n(' ', indent * depth));
        }
    }

    fn string(&self, text: &mut String, string: &str) {
        let quoted = Value::from(string).to_string();
        if !self.ascii {
            // Python escapes the character DEL no more than serde does.
            text.push_str(&quoted);
            return;
        }
        for character in quoted.chars() {
            if character.is_ascii() {
                text.push(character);
            } else {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    // Writing to a string cannot fail.
                    let _ = write!(text, "\\u{unit:04x}");
                }
            }
        }
    }
}

/// Python's `strftime` in UTC, for the directives that templates use; others are left as they are.
pub(super) fn strftime(format: &str, now: SystemTime) -> String {
    let seconds = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let days = seconds / 86_400;
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let (year, month, day, of_year) = civil(days);
    let (month_name, day_name) = (MONTHS[month], DAYS[((days + 4) % 7) as usize]);
    let twelve = if hour % 12 == 0 { 12 } else { hour % 12 };
    let mut text = String::new();
    let mut characters = format.chars().peekable();
    while let Some(character) = characters.next() {
        if character != '%' {
            text.push(character);
            continue;
        }
        let plain = characters.next_if_eq(&'-').is_some();
        let width = if plain { 1 } else { 2 };
        let piece = match characters.next() {
            Some('Y') => year.to_string(),
            Some('y') => format!("{:0width$}", year % 100),
            Some('m') => format!("{:0width$}", month + 1),
            Some('d') => format!("{day:0width$}"),
            Some('H') => format!("{hour:0width$}"),
            Some('I') => format!("{twelve:0width$}"),
            Some('M') => format!("{minute:0width$}"),
            Some('S') => format!("{second:0width$}"),
            Some('j') if plain => of_year.to_string(),
            Some('j') => format!("{of_year:03}"),
            Some('p') => (if hour < 12 { "AM" } else { "PM" }).to_owned(),
            Some('B') => month_name.to_owned(),
            Some('b') => month_name[..3].to_owned(),
            Some('A') => day_name.to_owned(),
            Some('a') => day_name[..3].to_owned(),
            Some('F') => format!("{year}-{:02}-{day:02}", month + 1),
            Some('T') => format!("{hour:02}:{minute:02}:{second:02}"),
            Some('%') => "%".to_owned(),
            Some(other) => format!("%{}{other}", if plain { "-" } else { "" }),
            None => "%".to_owned(),
        };
        text.push_str(&piece);
    }
    text
}

/// Year, month from 0, day from 1 and day of the year from 1 of a day counted from 1970.
fn civil(mut days: u64) -> (u64, usize, u64, u64) {
    // Whole cycles of 400 years first, so that the walk over years is short whatever the date.
    let mut year = 1970 + days / 146_097 * 400;
    days %= 146_097;
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let length = |year: u64| if leap(year) { 366 } else { 365 };
    while days >= length(year) {
        days -= length(year);
        year += 1;
    }
    let of_year = days + 1;
    let february = if leap(year) { 29 } else { 28 };
    let mut month = 0;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    (year, month, days + 1, of_year)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::strftime;

    #[test]
    fn dates_are_those_of_the_calendar() {
        let format = "%d %b %Y %A %H:%M:%S %j %-d %I%p %F %% %Q %";
        let at = |seconds: u64| strftime(format, SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        // By `date -u -d @N`.
        assert_eq!(at(0), "01 Jan 1970 Thursday 00:00:00 001 1 12AM 1970-01-01 % %Q %");
        assert_eq!(at(951_827_696), "29 Feb 2000 Tuesday 12:34:56 060 29 12PM 2000-02-29 % %Q %");
        assert_eq!(at(1_785_542_399), "31 Jul 2026 Friday 23:59:59 212 31 11PM 2026-07-31 % %Q %");
        assert_eq!(at(4_107_542_400), "01 Mar 2100 Monday 00:00:00 060 1 12AM 2100-03-01 % %Q %");
    }
}
