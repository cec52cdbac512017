//! Heat maps and curves as web pages that stand alone.

use pellucid::picture::{Curves, HeatMap, Page};
use pyo3::prelude::*;

use crate::error;
use crate::tensor::Tensor;

/// A heat map as HTML, and as text for a terminal.
#[pyfunction]
#[pyo3(signature = (title, rows, columns, values, meaning = "", corner = "", full = None))]
#[expect(clippy::too_many_arguments, reason = "they are keywords in Python")]
pub(crate) fn heat_map(
    py: Python<'_>,
    title: &str,
    rows: Vec<String>,
    columns: Vec<String>,
    values: &Tensor,
    meaning: &str,
    corner: &str,
    full: Option<f32>,
) -> PyResult<(String, String)> {
    let map = HeatMap::new(title, &rows, &columns, &values.0).map_err(|error| error::raised(py, error))?;
    let map = map.meaning(meaning).corner(corner);
    let map = match full {
        Some(magnitude) => map.full_at(magnitude),
        None => map.full_at_largest(),
    };
    Ok((map.to_html(), map.to_string()))
}

/// Curves as HTML.
#[pyfunction]
#[pyo3(signature = (title, lines, steps = Vec::new()))]
pub(crate) fn curves(
    py: Python<'_>,
    title: &str,
    lines: Vec<(String, Py<Tensor>)>,
    steps: Vec<String>,
) -> PyResult<String> {
    let mut curves = Curves::new(title).steps(steps);
    for (name, values) in lines {
        curves = curves.line(&name, &values.get().0).map_err(|error| error::raised(py, error))?;
    }
    Ok(curves.to_html())
}

/// A whole page around HTML.
#[pyfunction]
pub(crate) fn page(title: &str, lead: &str, body: &str) -> String {
    Page::new(title).lead(lead).html(body).to_html()
}
