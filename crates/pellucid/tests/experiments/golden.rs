//! Reading a golden experiment, and holding results to it.

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

type Outcome = Result<(), Box<dyn std::error::Error>>;

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
        let mut worst: f64 = 0.0;
        for (place, (result, expected)) in result.iter().zip(expected).enumerate() {
            let distance = (result - expected).abs();
            assert!(
                distance <= tolerance,
                "{}: {key} at {place} is {result}, in PyTorch {expected}",
                self.name
            );
            worst = worst.max(distance);
        }
        println!("{}: {key} differs by at most {worst:.1e}", self.name);
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
