//! Reading a golden experiment, and holding results to it.

use std::io::Write;
use std::path::Path;

use pellucid::Tensor;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

/// A golden experiment: its definition, and its tensors.
pub struct Golden {
    name: String,
    definition: Value,
    tensors: Vec<u8>,
}

pub type Outcome = Result<(), Box<dyn std::error::Error>>;

/// Logits and their differences, which go up to about 20: rounding in f32 differs between implementations by about 2e-6 of that.
pub const LOGITS: f64 = 1e-4;
/// Shares and probabilities, which go up to about 1.
pub const SHARES: f64 = 1e-5;

/// A file that `cargo xtask experiments` reads: a line for each quantity, with its largest deviation and the bound.
const TABLE: &str = "PELLUCID_EXPERIMENTS_TABLE";

impl Golden {
    pub fn read(name: &str) -> Result<Golden, Box<dyn std::error::Error>> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/experiments");
        let definition = serde_json::from_slice(&std::fs::read(folder.join(format!("{name}.json")))?)?;
        let tensors = std::fs::read(folder.join(format!("{name}.safetensors")))?;
        Ok(Golden { name: name.to_owned(), definition, tensors })
    }

    pub fn at(&self, key: &str) -> &Value {
        &self.definition[key]
    }

    pub fn prompt(&self, key: &str) -> String {
        text(&self.definition[key]["text"]).to_owned()
    }

    fn expected(&self, key: &str) -> Result<(Vec<usize>, Vec<f64>), Box<dyn std::error::Error>> {
        let file = SafeTensors::deserialize(&self.tensors)?;
        let view = file.tensor(key)?;
        let elements = match view.dtype() {
            Dtype::F32 => view
                .data()
                .chunks_exact(4)
                .map(|bytes| f64::from(f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])))
                .collect(),
            Dtype::I64 => {
                let number = |bytes: &[u8]| i64::from_le_bytes(std::array::from_fn(|place| bytes[place]));
                view.data().chunks_exact(8).map(|bytes| number(bytes) as f64).collect()
            }
            other => return Err(format!("{key} is {other:?}").into()),
        };
        Ok((view.shape().to_vec(), elements))
    }

    /// Shape and every element, within an absolute tolerance.
    pub fn holds(&self, key: &str, result: &Tensor, tolerance: f64) -> Outcome {
        let (shape, expected) = self.expected(key)?;
        assert_eq!(result.shape(), shape, "{}: shape of {key}", self.name);
        self.close(key, &result.to_vec_f64()?, &expected, tolerance);
        Ok(())
    }

    /// Shape and every element, exactly.
    pub fn holds_exactly(&self, key: &str, result: &Tensor) -> Outcome {
        self.holds(key, result, 0.0)
    }

    /// The rows of a tensor, each a result of its own.
    pub fn holds_rows(&self, key: &str, results: &[&Tensor], tolerance: f64) -> Outcome {
        let (shape, expected) = self.expected(key)?;
        assert_eq!(results.len(), shape[0], "{}: rows of {key}", self.name);
        let mut rows = Vec::new();
        for result in results {
            assert_eq!(result.shape(), &shape[1..], "{}: shape of a row of {key}", self.name);
            rows.extend(result.to_vec_f64()?);
        }
        self.close(key, &rows, &expected, tolerance);
        Ok(())
    }

    /// A number of the definition.
    pub fn holds_number(&self, key: &str, result: &Tensor, tolerance: f64) -> Outcome {
        let expected = self.at("numbers")[key].as_f64().ok_or_else(|| format!("{key} is no number"))?;
        self.close(key, &result.to_vec_f64()?, &[expected], tolerance);
        Ok(())
    }

    fn close(&self, key: &str, result: &[f64], expected: &[f64], tolerance: f64) {
        assert_eq!(result.len(), expected.len(), "{}: {key}", self.name);
        // A number that is none is as far off as can be, unless it is just that which is expected.
        let distance = |(result, expected): (&f64, &f64)| {
            if result == expected { 0.0 } else { (result - expected).abs() }
        };
        let distances = result.iter().zip(expected).map(distance);
        let worst = distances.map(|distance| if distance.is_nan() { f64::INFINITY } else { distance });
        let (place, worst) =
            worst.enumerate().fold((0, 0.0), |most, next| if next.1 > most.1 { next } else { most });
        self.tell(key, worst, tolerance);
        assert!(
            worst <= tolerance,
            "{}: {key} at {place} is {}, in PyTorch {}: off by {worst:.1e}, more than {tolerance:.0e}",
            self.name,
            result[place],
            expected[place],
        );
    }

    /// Writes a line of the table of agreements, if one is wanted.
    fn tell(&self, key: &str, worst: f64, tolerance: f64) {
        println!("{}: {key} differs by at most {worst:.1e}", self.name);
        let Some(table) = std::env::var_os(TABLE) else { return };
        let line = format!("{}\t{}\t{key}\t{worst:e}\t{tolerance:e}\n", self.at("experiment"), self.name);
        let file = std::fs::OpenOptions::new().create(true).append(true).open(table);
        // One write for each line: tests run beside one another.
        file.and_then(|mut file| file.write_all(line.as_bytes()))
            .expect("the table of agreements can be written");
    }
}

pub fn integer(value: &Value) -> i64 {
    value.as_i64().expect("a whole number")
}

pub fn list(value: &Value) -> &[Value] {
    value.as_array().expect("a list")
}

pub fn integers(value: &Value) -> Vec<i64> {
    list(value).iter().map(integer).collect()
}

pub fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}

pub fn texts(value: &Value) -> Vec<&str> {
    list(value).iter().map(text).collect()
}

/// A number, whole or not.
pub fn number(value: &Value) -> f64 {
    value.as_f64().expect("a number")
}

/// The texts of a list of prompts.
pub fn prompts(value: &Value) -> Vec<String> {
    list(value).iter().map(|prompt| text(&prompt["text"]).to_owned()).collect()
}

/// A list of token ids.
pub fn tokens(value: &Value) -> Vec<u32> {
    integers(value).into_iter().map(|token| token as u32).collect()
}
