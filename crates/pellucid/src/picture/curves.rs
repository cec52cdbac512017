//! Numbers over steps, as lines.

use std::fmt::{self, Display, Formatter, Write};

use pellucid_engine::Tensor;
use pellucid_engine::operations::OperationError;

use super::escape;
use crate::error::Result;

const WIDTH: f32 = 640.0;
const HEIGHT: f32 = 220.0;
/// Lines' colours, by their names in `page.css`: told apart without red and green too, and read on light and on dark.
const COLOURS: [&str; 6] = ["--line-0", "--line-1", "--line-2", "--line-3", "--line-4", "--line-5"];
/// Points of a line under which its number is shown, at most.
const POINTS: usize = 256;
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Lines over steps, such as losses in training. Shown ([`Display`]) they are a picture for a terminal.
#[derive(Clone, Debug)]
pub struct Curves {
    title: String,
    lines: Vec<(String, Vec<f32>)>,
    steps: Vec<String>,
}

impl Curves {
    /// A picture without lines.
    pub fn new(title: &str) -> Curves {
        Curves { title: title.to_owned(), lines: Vec::new(), steps: Vec::new() }
    }

    /// Adds a line, `[steps]`.
    ///
    /// # Errors
    /// [`Error::Tensor`](crate::Error::Tensor) where the values are no numbers.
    pub fn line(mut self, name: &str, values: &Tensor) -> Result<Curves> {
        self.lines.push((name.to_owned(), values.to_vec_f32()?));
        Ok(self)
    }

    /// Adds a line for each column of a matrix, `[steps, lines]`, by its name.
    ///
    /// # Errors
    /// [`Error::Tensor`](crate::Error::Tensor) where there are not as many columns as names.
    pub fn lines<N: Into<String>>(
        mut self,
        names: impl IntoIterator<Item = N>,
        values: &Tensor,
    ) -> Result<Curves> {
        let names: Vec<String> = names.into_iter().map(Into::into).collect();
        if values.shape().len() != 2 || values.shape()[1] != names.len() {
            let message = format!("{} curves of a tensor of the shape {:?}", names.len(), values.shape());
            return Err(OperationError::new(message).into());
        }
        let numbers = values.to_vec_f32()?;
        for (column, name) in names.iter().enumerate() {
            let line = numbers.iter().skip(column).step_by(names.len()).copied().collect();
            self.lines.push((name.clone(), line));
        }
        Ok(self)
    }

    /// What the steps are called, instead of `step 0`, `step 1`, …
    #[must_use]
    pub fn steps<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Curves {
        self.steps = names.into_iter().map(Into::into).collect();
        self
    }

    /// What is to be seen, for who does not see it: each line with its first and its last number.
    fn described(&self) -> String {
        let lines = self.lines.iter().map(|(name, values)| {
            let (first, last) = ends(values);
            format!("{name} from {first:.3} to {last:.3}")
        });
        let lines = lines.collect::<Vec<_>>().join(", ");
        if self.title.is_empty() { format!("Curves: {lines}") } else { format!("{}: {lines}", self.title) }
    }

    fn bounds(&self) -> (f32, f32) {
        let finite =
            self.lines.iter().flat_map(|(_, values)| values).copied().filter(|value| value.is_finite());
        let (low, high) =
            finite.fold((0.0f32, f32::MIN), |(low, high), value| (low.min(value), high.max(value)));
        (low, if high > low { high } else { low + 1.0 })
    }

    /// The curves as HTML, to stand in a [`Page`](super::Page).
    pub fn to_html(&self) -> String {
        let mut html = String::new();
        // Writing to a string does not fail.
        let _ = self.write_html(&mut html);
        html
    }

    /// The lines as an image of HTML; the numbers at both ends stand beside them.
    pub(super) fn write_html(&self, html: &mut String) -> fmt::Result {
        let (low, high) = self.bounds();
        let y = |value: f32| HEIGHT - (value - low) / (high - low) * HEIGHT;
        write!(
            html,
            "<figure>\n<figcaption>{}</figcaption>\n<svg viewBox=\"-50 -10 {} {}\" role=\"img\" aria-label=\"{}\">\n\
             <path class=\"axis\" d=\"M0 0V{HEIGHT}H{WIDTH}\"/>\n<text x=\"-8\" y=\"6\" class=\"tick\">{high:.2}</text>\n\
             <text x=\"-8\" y=\"{HEIGHT}\" class=\"tick\">{low:.2}</text>\n",
            escape(&self.title),
            WIDTH + 60.0,
            HEIGHT + 20.0,
            escape(&self.described()),
        )?;
        for ((_, values), colour) in self.lines.iter().zip(COLOURS.iter().cycle()) {
            let last = values.len().saturating_sub(1).max(1) as f32;
            let points = values.iter().enumerate().filter(|(_, value)| value.is_finite());
            let points: Vec<String> = points
                .map(|(step, &value)| format!("{:.1},{:.1}", step as f32 / last * WIDTH, y(value)))
                .collect();
            writeln!(html, "<polyline style=\"stroke:var({colour})\" points=\"{}\"/>", points.join(" "))?;
        }
        for (name, values) in &self.lines {
            self.write_points(name, values, &y, html)?;
        }
        html.push_str("</svg>\n<p class=\"legend\">");
        for ((name, values), colour) in self.lines.iter().zip(COLOURS.iter().cycle()) {
            let (first, last) = ends(values);
            let name = escape(name);
            write!(html, "<span><b style=\"color:var({colour})\">{name}</b> {first:.3} → {last:.3}</span>")?;
        }
        html.push_str("</p>\n</figure>\n");
        Ok(())
    }
}

impl Curves {
    /// Points under which a line's numbers are shown: all of a short line's.
    fn write_points(
        &self,
        name: &str,
        values: &[f32],
        y: &dyn Fn(f32) -> f32,
        html: &mut String,
    ) -> fmt::Result {
        let last = values.len().saturating_sub(1).max(1) as f32;
        let apart = values.len().div_ceil(POINTS).max(1);
        for (step, &value) in values.iter().enumerate().step_by(apart).filter(|(_, value)| value.is_finite())
        {
            let called = self.steps.get(step).map_or_else(|| format!("step {step}"), |called| escape(called));
            write!(
                html,
                "<circle class=\"point\" r=\"7\" cx=\"{:.1}\" cy=\"{:.1}\"><title>{}, {called}: {value:.4}</title></circle>",
                step as f32 / last * WIDTH,
                y(value),
                escape(name)
            )?;
        }
        Ok(())
    }
}

fn ends(values: &[f32]) -> (f32, f32) {
    (values.first().copied().unwrap_or(f32::NAN), values.last().copied().unwrap_or(f32::NAN))
}

impl Display for Curves {
    /// A line for each curve: its name, its shape in bars, its first and its last number.
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let (low, high) = self.bounds();
        writeln!(formatter, "{}\n", self.title)?;
        let width = self.lines.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
        for (name, values) in &self.lines {
            let bar = |value: &f32| {
                let share = (value - low) / (high - low);
                let place = if share.is_finite() { share.clamp(0.0, 1.0) * 7.0 } else { 7.0 };
                BARS.get(place.round() as usize).copied().unwrap_or(' ')
            };
            let shape: String = values.iter().map(bar).collect();
            let (first, last) = ends(values);
            writeln!(formatter, "  {name:<width$}  {shape}  {first:.3} → {last:.3}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curves() -> Curves {
        let values = Tensor::from_f32(vec![4.0, 2.0, f32::NAN, 0.0], &[4]).unwrap();
        Curves::new("Loss").line("a<b", &values).unwrap()
    }

    #[test]
    fn a_curve_is_drawn_in_bars() {
        assert_eq!(curves().to_string(), "Loss\n\n  a<b  █▅█▁  4.000 → 0.000\n");
    }

    #[test]
    fn columns_are_lines() {
        let values = Tensor::from_f32(vec![4.0, 0.0, 2.0, 3.0], &[2, 2]).unwrap();
        let curves = Curves::new("Losses").lines(["one", "other"], &values).unwrap();
        assert!(curves.to_string().contains("one    █▅  4.000 → 2.000"), "{curves}");
        assert!(curves.to_string().contains("other  ▁▆  0.000 → 3.000"), "{curves}");
        assert!(Curves::new("").lines(["one"], &values).is_err());
    }

    #[test]
    fn a_curve_is_a_line_of_its_points_and_what_is_no_number_is_left_out() {
        let mut html = String::new();
        curves().write_html(&mut html).unwrap();
        assert!(html.contains("points=\"0.0,0.0 213.3,110.0 640.0,220.0\""), "{html}");
        assert!(html.contains("a&lt;b") && !html.contains("a<b"));
        assert!(
            html.contains("<title>a&lt;b, step 1: 2.0000</title>") && !html.contains("NaN</title>"),
            "{html}"
        );
        let mut html = String::new();
        curves().steps(["scale 0", "scale <1"]).write_html(&mut html).unwrap();
        assert!(html.contains("<title>a&lt;b, scale &lt;1: 2.0000</title>"), "{html}");
    }

    #[test]
    fn no_lines_and_no_points_are_pictures_too() {
        let nothing = Tensor::from_f32(vec![], &[0]).unwrap();
        let mut html = String::new();
        Curves::new("").line("empty", &nothing).unwrap().write_html(&mut html).unwrap();
        assert!(html.contains("points=\"\""));
    }
}
