//! What a run gave back, in short: as a table, or as JSON.

use std::io::Write;

use pellucid::{Results, Tensor};
use serde::{Serialize, Serializer};
use serde_json::json;

use crate::failure::Failure;
use crate::text;

/// Elements shown of each value.
const SHOWN: usize = 6;

/// What a run gave back, in short.
#[derive(Serialize)]
pub(crate) struct Summary {
    saved: Vec<Saved>,
    absent: Vec<String>,
    provenance: pellucid::Provenance,
    report: pellucid::Report,
}

/// One saved value, in short. Numbers of a bool value count true as 1; of an empty one there are none. One NaN makes least,
/// mean and largest NaN, as in PyTorch.
#[derive(Serialize)]
struct Saved {
    name: String,
    dtype: String,
    shape: Vec<usize>,
    min: Option<Number>,
    mean: Option<Number>,
    max: Option<Number>,
    first: Vec<Number>,
}

/// A number that JSON may lack: `{"float": "nan"}` as in a program.
#[derive(Clone, Copy)]
struct Number(f64);

impl Serialize for Number {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let name = match self.0 {
            number if number.is_nan() => "nan",
            f64::INFINITY => "inf",
            f64::NEG_INFINITY => "-inf",
            number => return serializer.serialize_f64(number),
        };
        json!({ "float": name }).serialize(serializer)
    }
}

impl Summary {
    pub(crate) fn of(results: &Results) -> Result<Summary, Failure> {
        let saved = results.iter().map(|(name, tensor)| saved(name, tensor));
        Ok(Summary {
            saved: saved.collect::<Result<_, Failure>>()?,
            absent: results.absent().to_vec(),
            provenance: results.provenance().clone(),
            report: results.report().clone(),
        })
    }

    pub(crate) fn draw(&self, out: &mut dyn Write) -> Result<(), Failure> {
        let rows: Vec<[String; 7]> = self.saved.iter().map(row).collect();
        let titles = ["saved", "type", "shape", "min", "mean", "max", "first"].map(str::to_owned);
        text::write_table(&titles, &rows, out)?;
        for name in &self.absent {
            writeln!(out, "{name}  absent: its step or its branch did not run")?;
        }
        let (report, made) = (&self.report, &self.provenance);
        let how = match report.passes {
            // The simple interpreter counts nothing.
            0 => "one invoke at a time".to_owned(),
            1 => format!("1 pass, {} tokens, {:.3} s", report.tokens, report.seconds),
            passes => format!("{passes} passes, {} tokens, {:.3} s", report.tokens, report.seconds),
        };
        writeln!(out, "\n{}: {how} ({} weights, {})", made.model, made.weights, made.instruction_set)?;
        Ok(())
    }
}

fn saved(name: &str, tensor: &Tensor) -> Result<Saved, Failure> {
    let elements = tensor.to_vec_f64()?;
    let over = |pick: fn(f64, f64) -> f64| {
        let pick = |a: f64, b: f64| if a.is_nan() || b.is_nan() { f64::NAN } else { pick(a, b) };
        elements.iter().copied().reduce(pick).map(Number)
    };
    let mean = elements.iter().sum::<f64>() / elements.len() as f64;
    Ok(Saved {
        name: name.to_owned(),
        dtype: tensor.dtype().to_string(),
        shape: tensor.shape().to_vec(),
        min: over(f64::min),
        mean: (!elements.is_empty()).then_some(Number(mean)),
        max: over(f64::max),
        first: elements.iter().copied().take(SHOWN).map(Number).collect(),
    })
}

fn row(saved: &Saved) -> [String; 7] {
    let number = |value: Option<Number>| value.map_or_else(|| "-".to_owned(), |value| text::number(value.0));
    let sizes: Vec<String> = saved.shape.iter().map(ToString::to_string).collect();
    let more = if saved.shape.iter().product::<usize>() > saved.first.len() { " …" } else { "" };
    let first: Vec<String> = saved.first.iter().map(|value| text::number(value.0)).collect();
    [
        saved.name.clone(),
        saved.dtype.clone(),
        format!("[{}]", sizes.join(", ")),
        number(saved.min),
        number(saved.mean),
        number(saved.max),
        format!("{}{more}", first.join(" ")),
    ]
}

/// The first elements of a value that is printed.
pub(crate) fn first_elements(tensor: &Tensor) -> String {
    match tensor.to_vec_f64() {
        Ok(elements) => {
            let shown: Vec<String> = elements.iter().copied().take(SHOWN).map(text::number).collect();
            let more =
                if elements.len() > SHOWN { format!(" … ({:?})", tensor.shape()) } else { String::new() };
            format!("{}{more}", shown.join(" "))
        }
        Err(error) => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(elements: &[f64]) -> serde_json::Value {
        let tensor = Tensor::from_f64(elements.to_vec(), &[elements.len()]).unwrap();
        serde_json::to_value(saved("x", &tensor).unwrap()).unwrap()
    }

    #[test]
    fn numbers_that_json_lacks_are_written_as_in_programs() {
        let nan = json!({ "float": "nan" });
        let summary = numbers(&[f64::NAN, f64::NAN]);
        assert_eq!((&summary["min"], &summary["mean"], &summary["max"]), (&nan, &nan, &nan));
        let summary = numbers(&[f64::INFINITY, 1.0, f64::NEG_INFINITY]);
        let (least, largest) = (json!({ "float": "-inf" }), json!({ "float": "inf" }));
        assert_eq!((&summary["min"], &summary["mean"], &summary["max"]), (&least, &nan, &largest));
        assert_eq!(summary["first"], json!([largest, 1.0, least]));
        assert_eq!(numbers(&[2.0, 4.0])["mean"], 3.0);
        assert!(numbers(&[])["min"].is_null());
    }
}
