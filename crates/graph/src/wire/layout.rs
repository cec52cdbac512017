//! JSON laid out for people: what fits into a line stands on one.

use serde_json::Value as Json;

/// How long a line gets before its value is broken over several.
const WIDTH: usize = 110;

/// JSON laid out for people: what fits into a line stands on one, the rest is indented by two spaces; with a line break
/// at the end.
pub fn pretty(json: &Json) -> String {
    let mut text = String::new();
    write(json, 0, 0, &mut text);
    text.push('\n');
    text
}

/// Writes a value that begins at `column` of a line indented by `indent`.
fn write(json: &Json, indent: usize, column: usize, text: &mut String) {
    let (items, open, close): (Vec<(Option<&str>, &Json)>, _, _) = match json {
        Json::Array(items) if !items.is_empty() => {
            (items.iter().map(|item| (None, item)).collect(), '[', ']')
        }
        Json::Object(entries) if !entries.is_empty() => {
            (entries.iter().map(|(key, item)| (Some(key.as_str()), item)).collect(), '{', '}')
        }
        single => return text.push_str(&single.to_string()),
    };
    let mut line = String::new();
    if inline(json, WIDTH.saturating_sub(column), &mut line) {
        return text.push_str(&line);
    }
    text.push(open);
    let inner = indent + 2;
    if items.iter().all(|(key, item)| key.is_none() && item.is_number()) {
        fill(items.into_iter().map(|(_, item)| item), inner, text);
        text.push('\n');
        text.push_str(&" ".repeat(indent));
        return text.push(close);
    }
    for (place, (key, item)) in items.into_iter().enumerate() {
        text.push_str(if place > 0 { ",\n" } else { "\n" });
        text.push_str(&" ".repeat(inner));
        let mut column = inner;
        if let Some(key) = key {
            let key = format!("{}: ", Json::from(key));
            column += key.chars().count();
            text.push_str(&key);
        }
        write(item, inner, column, text);
    }
    text.push('\n');
    text.push_str(&" ".repeat(indent));
    text.push(close);
}

/// Writes numbers, as many on a line as fit.
fn fill<'j>(items: impl Iterator<Item = &'j Json>, indent: usize, text: &mut String) {
    let mut column = WIDTH;
    for (place, item) in items.enumerate() {
        let item = item.to_string();
        text.push_str(if place > 0 { "," } else { "" });
        if column + item.len() + 2 > WIDTH {
            text.push('\n');
            text.push_str(&" ".repeat(indent));
            column = indent;
        } else {
            text.push(' ');
        }
        column += item.len() + 2;
        text.push_str(&item);
    }
}

/// Writes the value on one line; false as soon as it is longer than `room`.
fn inline(json: &Json, room: usize, line: &mut String) -> bool {
    match json {
        Json::Array(items) => {
            line.push('[');
            for (place, item) in items.iter().enumerate() {
                line.push_str(if place > 0 { ", " } else { "" });
                if !inline(item, room, line) {
                    return false;
                }
            }
            line.push(']');
        }
        Json::Object(entries) if entries.is_empty() => line.push_str("{}"),
        Json::Object(entries) => {
            line.push_str("{ ");
            for (place, (key, item)) in entries.iter().enumerate() {
                line.push_str(if place > 0 { ", " } else { "" });
                line.push_str(&format!("{}: ", Json::from(key.as_str())));
                if !inline(item, room, line) {
                    return false;
                }
            }
            line.push_str(" }");
        }
        Json::String(value) if value.len() > room => return false,
        single => line.push_str(&single.to_string()),
    }
    line.chars().count() <= room
}

#[cfg(test)]
mod tests {
    use super::pretty;

    #[test]
    fn lines_hold_what_fits() {
        let json = serde_json::json!({
            "short": [{ "a": [] }, {}, "b"],
            "numbers": (100_000..100_030).collect::<Vec<_>>(),
            "texts": ["x".repeat(60), "y".repeat(60)]
        });
        let text = pretty(&json);
        assert!(text.lines().all(|line| line.len() <= 110), "{text}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), json);
        insta::assert_snapshot!(text);
    }
}
