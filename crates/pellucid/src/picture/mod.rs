//! Pictures of results, for a terminal and as a web page that stands alone: heat maps, curves, and plans.
//!
//! ```no_run
//! use pellucid::picture::{HeatMap, Page};
//!
//! # fn main() -> pellucid::Result<()> {
//! let shares = pellucid::Tensor::from_f32(vec![0.0, 0.25, 0.5, 1.0], &[2, 2])?;
//! let map = HeatMap::new("What each place brings back", [" Mary", " to"], ["layer 0", "layer 1"], &shares)?;
//! print!("{map}"); // in colours where standard output is a terminal
//! Page::new("Activation patching").heat_map(&map).save("patching.html")?;
//! # Ok(())
//! # }
//! ```

mod curves;
mod heat_map;
mod page;
mod plan;

use std::io::{self, IsTerminal};

pub use curves::Curves;
pub use heat_map::HeatMap;
pub use page::{Page, escape};
pub use plan::plan_to_html;

/// How cells are drawn on a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paint {
    /// 24-bit colours behind the numbers.
    Colour,
    /// Shades made of characters beside the numbers.
    Characters,
}

impl Paint {
    /// Colours where standard output is a terminal and nobody asked for none (`NO_COLOR`).
    pub fn for_stdout() -> Paint {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        if io::stdout().is_terminal() && !unwanted && !dumb { Paint::Colour } else { Paint::Characters }
    }
}

/// A token as it can be shown in a line: spaces at its beginning as `·`, control characters escaped.
pub fn token(text: &str) -> String {
    let body = text.trim_start_matches(' ');
    let mut shown = "·".repeat(text.len() - body.len());
    for character in body.chars() {
        if character.is_control() { shown.extend(character.escape_default()) } else { shown.push(character) }
    }
    shown
}

/// A number in two decimals, without "-0.00".
fn rounded(value: f32) -> String {
    format!("{:.2}", if value.abs() < 0.005 { 0.0 } else { value })
}

/// Where a share of the full colour lies: between which of the colours, and how far.
fn blend(share: f32) -> (Shade, Shade, f32) {
    let (from, to, part) = match share {
        v if v < 0.0 => (Shade::Zero, Shade::Below, -v),
        v if v < 0.5 => (Shade::Zero, Shade::Half, v * 2.0),
        v => (Shade::Half, Shade::One, v * 2.0 - 1.0),
    };
    (from, to, if part.is_finite() { part.clamp(0.0, 1.0) } else { 0.0 })
}

/// The colours between which cells lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shade {
    Zero,
    Half,
    One,
    Below,
}

impl Shade {
    /// From dark blue-grey (0) to orange-yellow (1); below 0 towards blue.
    fn red_green_blue(self) -> [f32; 3] {
        match self {
            Shade::Zero => [38.0, 42.0, 54.0],
            Shade::Half => [178.0, 72.0, 62.0],
            Shade::One => [255.0, 205.0, 96.0],
            Shade::Below => [70.0, 130.0, 220.0],
        }
    }

    /// Its name in the page's style.
    fn name(self) -> &'static str {
        match self {
            Shade::Zero => "zero",
            Shade::Half => "half",
            Shade::One => "one",
            Shade::Below => "below",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_show_their_spaces_and_control_characters() {
        assert_eq!(token(" John"), "·John");
        assert_eq!(token("\n"), "\\n");
        assert_eq!(token(""), "");
    }

    #[test]
    fn numbers_that_are_none_have_a_colour_too() {
        assert_eq!(blend(f32::NAN), blend(0.5));
    }
}
