//! The picture as a web page that stands alone: no script, no request to anywhere, light or dark as the reader has it.
//! The heat map is a table, so that it can be read without seeing colours, or without seeing.

use std::fmt::{self, Write};

use super::experiment::{Findings, Prompt};
use super::terminal;

const STYLE: &str = include_str!("page.css");

/// The page.
pub(crate) fn page(findings: &Findings) -> String {
    let mut html = String::new();
    // Writing to a string does not fail.
    let _ = write(findings, &mut html);
    html
}

fn write(findings: &Findings, html: &mut String) -> fmt::Result {
    let (answer, wrong) = (escape(findings.answers.0.trim()), escape(findings.answers.1.trim()));
    let model = escape(&findings.model);
    write!(
        html,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>Where {model} keeps who gets the drink · Pellucid</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n\
         <h1>Where does it keep who gets the drink?</h1>\n\
         <p class=\"lead\">Activation patching on <b>{model}</b>: two prompts differ in one name. One place of the clean \
         run’s residual stream at a time is put into the corrupted run; how much of the answer comes back shows what \
         that place carries.</p>\n<div class=\"prompts\">\n"
    )?;
    prompt(html, "Clean", &findings.clean, findings)?;
    prompt(html, "Corrupted", &findings.corrupted, findings)?;
    html.push_str("</div>\n<h2>What each place brings back</h2>\n<div class=\"scroll\">\n<table>\n");
    writeln!(
        html,
        "<caption>The share of the answer “{answer}” that comes back: 0 none, 1 all. Measured as the logit of {answer} less \
         that of {wrong} at the last position, from the corrupted run’s ({:+.1}) to the clean run’s ({:+.1}).</caption>",
        findings.corrupted.difference, findings.clean.difference
    )?;
    html.push_str("<thead><tr><th scope=\"col\">position</th>");
    for layer in 0..findings.layers() {
        write!(html, "<th scope=\"col\">into layer {layer}</th>")?;
    }
    html.push_str("</tr></thead>\n<tbody>\n");
    for (position, token) in findings.clean.tokens.iter().enumerate() {
        row(html, findings, position, token)?;
    }
    html.push_str("</tbody>\n</table>\n</div>\n<p class=\"legend\"><span>0</span><span class=\"bar\"></span><span>1</span></p>\n");
    let explanation = escape(&terminal::explanation(findings));
    write!(
        html,
        "<h2>What to see</h2>\n<p>{explanation}</p>\n<footer>Computed by <code>pellucid demo</code> {version} in {seconds:.2} s: \
         {runs} runs of the model in {passes}, {weights}, {isa}. Every number here is from that run.</footer>\n</main>\n</body>\n</html>\n",
        version = env!("CARGO_PKG_VERSION"),
        seconds = findings.seconds,
        runs = findings.layers() * findings.clean.tokens.len() + 2,
        passes =
            if findings.passes == 1 { "one pass".to_owned() } else { format!("{} passes", findings.passes) },
        weights = escape(&findings.weights),
        isa = escape(&findings.instruction_set),
    )
}

fn prompt(html: &mut String, name: &str, prompt: &Prompt, findings: &Findings) -> fmt::Result {
    let mut text = String::new();
    for (position, token) in prompt.tokens.iter().enumerate() {
        if position == findings.differs_at {
            let body = token.trim_start();
            write!(text, "{}<mark>{}</mark>", &token[..token.len() - body.len()], escape(body))?;
        } else {
            text.push_str(&escape(token));
        }
    }
    let (answer, wrong) = (findings.answers.0.trim(), findings.answers.1.trim());
    let says = escape(if prompt.difference > 0.0 { answer } else { wrong });
    writeln!(
        html,
        "<div class=\"prompt\"><div class=\"name\">{name}</div><div class=\"text\">{text} <b>→ {says}</b></div>\
         <div class=\"says\">probability of {answer}: {:.4}; logit {answer} − {wrong}: {:+.2}</div></div>",
        prompt.probability,
        prompt.difference,
        answer = escape(answer),
        wrong = escape(wrong),
    )
}

fn row(html: &mut String, findings: &Findings, position: usize, token: &str) -> fmt::Result {
    let named = position == findings.differs_at;
    let class = if named { " class=\"named\"" } else { "" };
    let shown = escape(token.trim_start());
    write!(html, "<tr><th scope=\"row\"{class}>{shown}</th>")?;
    for (layer, values) in findings.restored.iter().enumerate() {
        let value = values[position];
        let (from, to, part) = match value {
            v if v < 0.0 => ("zero", "below", -v),
            v if v < 0.5 => ("zero", "half", v * 2.0),
            v => ("half", "one", v * 2.0 - 1.0),
        };
        let part = part.clamp(0.0, 1.0);
        let strong = if value.abs() > 0.7 { " class=\"strong\"" } else { "" };
        write!(
            html,
            "<td{strong} tabindex=\"0\" style=\"--from:var(--{from});--to:var(--{to});--part:{part:.3}\" \
             data-tip=\"position {position} (“{shown}”) entering layer {layer}: {value:+.4} of the answer comes back\">{:.2}</td>",
            if value.abs() < 0.005 { 0.0 } else { value }
        )?;
    }
    let note = if named {
        "the word that differs"
    } else if position + 1 == findings.clean.tokens.len() {
        "where the model speaks"
    } else {
        ""
    };
    writeln!(html, "<td class=\"note\">{note}</td></tr>")
}

/// Text as HTML.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings() -> Findings {
        let prompt = |token: &str, difference| Prompt {
            text: format!("The {token}"),
            tokens: vec!["The".into(), format!(" {token}")],
            difference,
            probability: 0.5,
        };
        Findings {
            model: "a<b".into(),
            clean: prompt("x&y", 3.0),
            corrupted: prompt("z", -3.0),
            answers: (" A".into(), " B".into()),
            differs_at: 1,
            restored: vec![vec![-0.25, 1.0]],
            passes: 1,
            seconds: 0.1,
            weights: "f32".into(),
            instruction_set: "portable".into(),
        }
    }

    #[test]
    fn the_page_stands_alone_and_escapes_what_it_shows() {
        let html = page(&findings());
        for elsewhere in ["http:", "https:", "//", "<script", "url(", "@import"] {
            assert!(!html.contains(elsewhere), "{elsewhere}");
        }
        assert!(html.contains("a&lt;b") && html.contains("<mark>x&amp;y</mark>"));
        assert!(!html.contains("x&y"));
    }

    #[test]
    fn every_cell_has_its_number_as_text_and_its_colour_as_a_part() {
        let html = page(&findings());
        assert!(html.contains("--to:var(--below);--part:0.250"), "{html}");
        assert!(html.contains(">-0.25</td>") && html.contains(">1.00</td>"));
        assert!(html.contains("<th scope=\"row\" class=\"named\">x&amp;y</th>"));
    }
}
