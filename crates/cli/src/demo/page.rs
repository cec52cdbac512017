//! The picture as a web page that stands alone.

use std::fmt::{self, Write};

use pellucid::picture::{Page, escape};

use super::experiment::{Findings, Prompt};
use super::terminal;

/// The page.
pub(crate) fn page(findings: &Findings) -> pellucid::Result<String> {
    let (answer, wrong) = (findings.answers.0.trim(), findings.answers.1.trim());
    let mut prompts = format!(
        "<p class=\"lead\">Activation patching on <b>{}</b>: two prompts differ in one name. One place of the clean run’s \
         residual stream at a time is put into the corrupted run; how much of the answer comes back shows what that place \
         carries.</p>\n<div class=\"prompts\">\n",
        escape(&findings.model)
    );
    // Writing to a string does not fail.
    let _ = prompt(&mut prompts, "Clean", &findings.clean, findings);
    let _ = prompt(&mut prompts, "Corrupted", &findings.corrupted, findings);
    prompts.push_str("</div>\n");
    let caption = format!(
        "The share of the answer “{answer}” that comes back: 0 none, 1 all. Measured as the logit of {answer} less that of \
         {wrong} at the last position, from the corrupted run’s ({:+.1}) to the clean run’s ({:+.1}).",
        findings.corrupted.difference, findings.clean.difference
    );
    let footer = format!(
        "<footer>Computed by <code>pellucid demo</code> {version} in {seconds:.2} s: {runs} runs of the model in {passes}, \
         {weights}, {isa}. Every number here is from that run.</footer>\n",
        version = env!("CARGO_PKG_VERSION"),
        seconds = findings.seconds,
        runs = findings.layers() * findings.clean.tokens.len() + 2,
        passes =
            if findings.passes == 1 { "one pass".to_owned() } else { format!("{} passes", findings.passes) },
        weights = escape(&findings.weights),
        isa = escape(&findings.instruction_set),
    );
    let page = Page::new("Where does it keep who gets the drink?")
        .html(&prompts)
        .heading("What each place brings back")
        .heat_map(&findings.heat_map(&caption, "position", "into layer")?)
        .heading("What to see")
        .text(&terminal::explanation(findings))
        .html(&footer);
    Ok(page.to_html())
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
    fn the_page_escapes_what_it_shows() {
        let html = page(&findings()).unwrap();
        assert!(html.contains("a&lt;b") && html.contains("<mark>x&amp;y</mark>"));
        assert!(!html.contains("x&y"));
    }
}
