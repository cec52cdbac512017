//! A table of numbers whose cells are coloured by them.

use std::fmt::{self, Display, Formatter, Write};

use pellucid_engine::Tensor;
use pellucid_engine::operations::OperationError;

use super::{Paint, blend, escape, rounded, token};
use crate::error::Result;

/// Columns of a cell on a terminal.
const CELL: usize = 7;

/// A table of numbers whose cells are coloured by them. Shown ([`Display`]) it is a picture for a terminal.
#[derive(Clone, Debug)]
pub struct HeatMap {
    title: String,
    corner: String,
    rows: Vec<Row>,
    columns: Vec<String>,
    full: f32,
    meaning: String,
}

#[derive(Clone, Debug)]
struct Row {
    label: String,
    values: Vec<f32>,
    marked: bool,
    note: String,
}

fn texts<T: AsRef<str>>(texts: impl IntoIterator<Item = T>) -> Vec<String> {
    texts.into_iter().map(|text| text.as_ref().to_owned()).collect()
}

impl HeatMap {
    /// A heat map of a matrix, `[rows, columns]`; its labels can be tokens, whose leading spaces are shown. The full
    /// colour is that of 1; see [`HeatMap::full_at`].
    ///
    /// # Errors
    /// [`Error::Tensor`](crate::Error::Tensor) where there are not as many numbers as rows times columns.
    pub fn new<R: AsRef<str>, C: AsRef<str>>(
        title: &str,
        rows: impl IntoIterator<Item = R>,
        columns: impl IntoIterator<Item = C>,
        values: &Tensor,
    ) -> Result<HeatMap> {
        let (labels, columns) = (texts(rows), texts(columns));
        let values = values.to_vec_f32()?;
        if labels.len() * columns.len() != values.len() || columns.is_empty() {
            let message = format!(
                "a heat map of {} rows and {} columns, of {} numbers",
                labels.len(),
                columns.len(),
                values.len()
            );
            return Err(OperationError::new(message).into());
        }
        let rows = labels.into_iter().zip(values.chunks(columns.len())).map(|(label, values)| Row {
            label,
            values: values.to_vec(),
            marked: false,
            note: String::new(),
        });
        Ok(HeatMap {
            title: title.to_owned(),
            corner: String::new(),
            rows: rows.collect(),
            columns,
            full: 1.0,
            meaning: String::new(),
        })
    }

    /// The same with rows and columns exchanged: for results `[layers, positions]`, a line for each position.
    #[must_use]
    pub fn transposed(self) -> HeatMap {
        let rows = self.columns.iter().enumerate().map(|(column, label)| Row {
            label: label.clone(),
            values: self.rows.iter().map(|row| row.values[column]).collect(),
            marked: false,
            note: String::new(),
        });
        HeatMap {
            rows: rows.collect(),
            columns: self.rows.iter().map(|row| row.label.clone()).collect(),
            ..self
        }
    }

    /// What stands above the rows' labels.
    #[must_use]
    pub fn corner(mut self, corner: &str) -> HeatMap {
        corner.clone_into(&mut self.corner);
        self
    }

    /// The magnitude that has the full colour.
    #[must_use]
    pub fn full_at(mut self, magnitude: f32) -> HeatMap {
        self.full = magnitude;
        self
    }

    /// The full colour at the largest magnitude of the numbers.
    #[must_use]
    pub fn full_at_largest(mut self) -> HeatMap {
        let largest =
            self.rows.iter().flat_map(|row| &row.values).fold(0.0, |most: f32, v| most.max(v.abs()));
        self.full = if largest > 0.0 { largest } else { 1.0 };
        self
    }

    /// What a number is, after it in the page's explanation of a cell: `+0.93 of the answer comes back`.
    #[must_use]
    pub fn meaning(mut self, meaning: &str) -> HeatMap {
        meaning.clone_into(&mut self.meaning);
        self
    }

    /// Marks a row, and says something beside it.
    #[must_use]
    pub fn mark(mut self, row: usize, note: &str) -> HeatMap {
        if let Some(row) = self.rows.get_mut(row) {
            row.marked = true;
            note.clone_into(&mut row.note);
        }
        self
    }

    /// Says something beside a row.
    #[must_use]
    pub fn note(mut self, row: usize, note: &str) -> HeatMap {
        if let Some(row) = self.rows.get_mut(row) {
            note.clone_into(&mut row.note);
        }
        self
    }

    /// The picture for a terminal, a line for each row, without the title.
    pub fn drawn(&self, paint: Paint) -> String {
        let labels: Vec<String> = self.rows.iter().map(|row| token(&row.label)).collect();
        let width = labels.iter().map(|label| label.chars().count()).chain([8]).max().unwrap_or(8) + 2;
        let columns: Vec<String> = self.columns.iter().map(|column| token(column)).collect();
        let cell = columns.iter().map(|column| column.chars().count()).chain([CELL]).max().unwrap_or(CELL);
        let mut drawn = format!("  {:<width$}", self.corner);
        columns.iter().for_each(|column| drawn.extend([" ".to_owned(), format!("{column:>cell$}")]));
        drawn.push('\n');
        for (row, label) in self.rows.iter().zip(labels) {
            drawn.push_str(if row.marked { "→ " } else { "  " });
            drawn.push_str(&format!("{label:<width$}"));
            row.values.iter().for_each(|&value| {
                drawn.extend([" ".to_owned(), draw_cell(value, value / self.full, cell, paint)])
            });
            if !row.note.is_empty() {
                drawn.extend(["  ", row.note.as_str()]);
            }
            drawn.push('\n');
        }
        drawn
    }

    /// The picture as a table of HTML, with the classes of the [page](super::Page)'s style.
    /// The heat map as HTML, to stand in a [`Page`](super::Page).
    pub fn to_html(&self) -> String {
        let mut html = String::new();
        // Writing to a string does not fail.
        let _ = self.write_html(&mut html);
        html
    }

    pub(super) fn write_html(&self, html: &mut String) -> fmt::Result {
        let wide = if self.columns.len() > WIDE { " wide" } else { "" };
        writeln!(html, "<div class=\"scroll{wide}\">\n<table>")?;
        if !self.title.is_empty() {
            writeln!(html, "<caption>{}</caption>", escape(&self.title))?;
        }
        html.push_str("<thead><tr>");
        if self.corner.is_empty() {
            html.push_str("<td class=\"corner\"></td>");
        } else {
            write!(html, "<th scope=\"col\">{}</th>", escape(&self.corner))?;
        }
        for column in &self.columns {
            write!(html, "<th scope=\"col\">{}</th>", escape(column.trim_start()))?;
        }
        html.push_str("</tr></thead>\n<tbody>\n");
        for (place, row) in self.rows.iter().enumerate() {
            self.write_row(place, row, html)?;
        }
        let signed = self.rows.iter().flat_map(|row| &row.values).any(|&value| value < 0.0);
        let (low, high) = (if signed { -self.full } else { 0.0 }, self.full);
        let bar = if signed { "bar signed" } else { "bar" };
        write!(
            html,
            "</tbody>\n</table>\n</div>\n<p class=\"legend\"><span>{low}</span><span class=\"{bar}\"></span><span>{high}</span></p>\n"
        )
    }

    fn write_row(&self, place: usize, row: &Row, html: &mut String) -> fmt::Result {
        let class = if row.marked { " class=\"named\"" } else { "" };
        let shown = escape(row.label.trim_start());
        write!(html, "<tr><th scope=\"row\"{class}>{shown}</th>")?;
        for (column, &value) in self.columns.iter().zip(&row.values) {
            let (from, to, part) = blend(value / self.full);
            let strong = if value / self.full > STRONG { " class=\"strong\"" } else { "" };
            write!(
                html,
                "<td{strong} tabindex=\"0\" style=\"--from:var(--{});--to:var(--{});--part:{part:.3}\" \
                 data-tip=\"{place} (“{shown}”), {}: {value:+.4}{}\">{}</td>",
                from.name(),
                to.name(),
                escape(column.trim_start()),
                escape(&self.meaning),
                rounded(value)
            )?;
        }
        writeln!(html, "<td class=\"note\">{}</td></tr>", escape(&row.note))
    }
}

impl Display for HeatMap {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        if !self.title.is_empty() {
            writeln!(formatter, "{}\n", self.title)?;
        }
        formatter.write_str(&self.drawn(Paint::for_stdout()))
    }
}

/// From which part of the full colour on a number is written in another colour, so that it is seen in the dark, too: between the two the
/// contrast is never below 4.5 (`page.css`).
const STRONG: f32 = 0.6;
/// Columns up to which a map needs not scroll on a desk, so that numbers are shown beside their cells.
const WIDE: usize = 8;

/// One cell, so many columns wide.
fn draw_cell(value: f32, share: f32, width: usize, paint: Paint) -> String {
    let number = rounded(value);
    match paint {
        Paint::Colour => {
            let (from, to, part) = blend(share);
            let (from, to) = (from.red_green_blue(), to.red_green_blue());
            let mix = |place: usize| (from[place] + (to[place] - from[place]) * part).round() as u8;
            let ink = if share.abs() > 0.55 { "30" } else { "97" };
            format!("\x1b[48;2;{};{};{}m\x1b[{ink}m{number:^width$}\x1b[0m", mix(0), mix(1), mix(2))
        }
        Paint::Characters => {
            let shade = match share {
                v if v < 0.1 => ' ',
                v if v < 0.35 => '░',
                v if v < 0.6 => '▒',
                v if v < 0.85 => '▓',
                _ => '█',
            };
            format!("{shade} {number:>width$}", width = width - 2)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map() -> HeatMap {
        let values = Tensor::from_f32(vec![-0.25, 1.0, 0.0, 0.5], &[2, 2]).unwrap();
        HeatMap::new("a<b", [" x&y", "z"], ["one", "two"], &values).unwrap()
    }

    #[test]
    fn cells_keep_their_width_and_show_the_number() {
        for value in [-1.5, -0.001, 0.0, 0.2, 0.5, 0.7, 1.0, 1.2] {
            assert_eq!(draw_cell(value, value, CELL, Paint::Characters).chars().count(), CELL, "{value}");
        }
        assert_eq!(draw_cell(-0.001, -0.001, CELL, Paint::Characters), "   0.00");
        assert!(draw_cell(1.0, 1.0, CELL, Paint::Colour).starts_with("\x1b[48;2;255;205;96m"));
    }

    #[test]
    fn every_cell_has_its_number_as_text_and_its_colour_as_a_part() {
        let mut html = String::new();
        map().mark(0, "here").write_html(&mut html).unwrap();
        assert!(html.contains("<caption>a&lt;b</caption>"), "{html}");
        assert!(html.contains("--to:var(--below);--part:0.250"), "{html}");
        assert!(html.contains(">-0.25</td>") && html.contains(">1.00</td>"));
        assert!(html.contains("<th scope=\"row\" class=\"named\">x&amp;y</th>") && !html.contains("x&y"));
    }

    #[test]
    fn a_transposed_map_has_a_line_for_each_column() {
        let drawn = map().transposed().corner("by").drawn(Paint::Characters);
        let lines: Vec<&str> = drawn.lines().map(str::trim_end).collect();
        assert_eq!(
            lines,
            ["  by            ·x&y       z", "  one          -0.25    0.00", "  two        █  1.00 ▒  0.50"]
        );
    }

    #[test]
    fn numbers_that_do_not_fill_the_table_are_refused() {
        let values = Tensor::from_f32(vec![1.0], &[1]).unwrap();
        let error = HeatMap::new("", ["a", "b"], ["c"], &values).unwrap_err().to_string();
        assert!(error.contains("2 rows and 1 columns, of 1 numbers"), "{error}");
    }
}
