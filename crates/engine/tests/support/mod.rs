//! Golden values made with transformers, and how far we are from them.
#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may panic as tests do")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use pellucid_engine::{Engine, Tensor};
use pellucid_graph::Program;
use pellucid_models::{Model, ModelOptions, Precision};
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;

/// The repository's folder of golden models.
pub fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../golden/models")
}

/// Every golden model, by name.
pub fn model_names() -> Vec<String> {
    let entries = std::fs::read_dir(folder()).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| folder().join(name).join("golden.json").is_file());
    names.sort();
    assert!(names.len() >= 15, "golden models are missing: {names:?}");
    names
}

/// A program of one trace from invokes of token ids and the JSON of its nodes.
pub fn program(invokes: &[(&str, &[Vec<u32>])], nodes: &str) -> Program {
    program_with(invokes, nodes, Vec::new())
}

/// The same with constants, as it would travel: in a safetensors file.
pub fn program_with(
    invokes: &[(&str, &[Vec<u32>])],
    nodes: &str,
    constants: Vec<(String, TensorView<'_>)>,
) -> Program {
    let invokes: Vec<String> = invokes
        .iter()
        .map(|(name, prompts)| format!(r#"{{"name":"{name}","tokens":{prompts:?}}}"#))
        .collect();
    let text = format!(
        r#"{{"pellucid":1,"body":[{{"op":"trace","invokes":[{}],"body":[{nodes}]}}]}}"#,
        invokes.join(",")
    );
    let metadata = std::collections::HashMap::from([("pellucid.program".to_owned(), text.clone())]);
    let bytes = if constants.is_empty() {
        text.clone().into_bytes()
    } else {
        safetensors::serialize(constants, Some(metadata)).unwrap()
    };
    Program::from_bytes(&bytes).unwrap_or_else(|faults| panic!("{faults}\n{text}"))
}

/// A golden tensor.
#[derive(Clone, Debug)]
pub struct Expected {
    pub shape: Vec<usize>,
    pub values: Vec<f64>,
}

/// One golden model.
pub struct Golden {
    name: String,
    json: serde_json::Value,
    bytes: Vec<u8>,
}

impl Golden {
    pub fn open(name: &str) -> Golden {
        let json = std::fs::read(folder().join(name).join("golden.json")).unwrap();
        let bytes = std::fs::read(folder().join(name).join("golden.safetensors")).unwrap();
        Golden { name: name.to_owned(), json: serde_json::from_slice(&json).unwrap(), bytes }
    }

    pub fn engine(&self) -> Engine {
        let path = folder().join(&self.name);
        let model = Model::open(path.to_str().unwrap(), &pellucid_models::ModelOptions::default());
        Engine::new(Arc::new(model.unwrap_or_else(|error| panic!("{error}"))))
    }

    /// Whether values of hook points were recorded (a model with another's weights has only logits).
    pub fn has_hook_points(&self) -> bool {
        self.json.get("same_weights_as").is_none()
    }

    /// A tensor by name, through the aliases of tensors that are the same to the bit.
    pub fn tensor(&self, name: &str) -> Option<Expected> {
        let name = self.json["aliases"].get(name).and_then(|alias| alias.as_str()).unwrap_or(name);
        let file = SafeTensors::deserialize(&self.bytes).unwrap();
        let view = file.tensor(name).ok()?;
        let values = match view.dtype() {
            safetensors::Dtype::F32 => view
                .data()
                .as_chunks::<4>()
                .0
                .iter()
                .map(|bytes| f64::from(f32::from_le_bytes(*bytes)))
                .collect(),
            safetensors::Dtype::I64 => {
                view.data().as_chunks::<8>().0.iter().map(|bytes| i64::from_le_bytes(*bytes) as f64).collect()
            }
            other => panic!("{name} is {other:?}"),
        };
        Some(Expected { shape: view.shape().to_vec(), values })
    }

    pub fn prompts(&self) -> usize {
        self.json["prompts"].as_array().unwrap().len()
    }

    pub fn prompt(&self, number: usize) -> Vec<u32> {
        serde_json::from_value(self.json["prompts"][number].clone()).unwrap()
    }

    /// Prompts that were generated from, and the tokens that were made.
    pub fn greedy(&self) -> Vec<(usize, Vec<u32>)> {
        let greedy: BTreeMap<String, Vec<u32>> = serde_json::from_value(self.json["greedy"].clone()).unwrap();
        greedy.into_iter().map(|(number, tokens)| (number.parse().unwrap(), tokens)).collect()
    }

    /// The three interventions: name, invokes, nodes. They are described in words in `golden.json`.
    #[allow(clippy::type_complexity)]
    pub fn interventions(&self) -> Vec<(String, Vec<(String, Vec<Vec<u32>>)>, String)> {
        let (first, other) = (self.prompt(0), self.prompt(3));
        let logits = r#"{"op":"get","name":"l","invoke":"p","hook":"logits"},{"op":"save","name":"logits","value":"l"}"#;
        let one = vec![("p".to_owned(), vec![first.clone()])];
        let two = vec![("other".to_owned(), vec![other]), ("p".to_owned(), vec![first])];
        vec![
            (
                "zero_head".into(),
                one.clone(),
                format!(
                    r#"{{"op":"get","name":"m","hook":"layers.1.attention.mixed"}},
                    {{"op":"index_put","name":"z","input":"m","index":[":",":",0],"values":0.0}},
                    {{"op":"set","hook":"layers.1.attention.mixed","value":"z"}},{logits}"#
                ),
            ),
            (
                "patch_residual".into(),
                two,
                format!(
                    r#"{{"op":"get","name":"a","invoke":"other","hook":"layers.1.output"}},
                    {{"op":"getitem","name":"v","input":"a","index":[":",3]}},
                    {{"op":"get","name":"b","invoke":"p","hook":"layers.1.output"}},
                    {{"op":"index_put","name":"z","input":"b","index":[":",3],"values":"v"}},
                    {{"op":"set","invoke":"p","hook":"layers.1.output","value":"z"}},{logits}"#
                ),
            ),
            (
                "add_vector".into(),
                one,
                format!(
                    r#"{{"op":"get","name":"b","hook":"layers.0.output"}},
                    {{"op":"constant","name":"vector","key":"vector"}},
                    {{"op":"index_put","name":"z","input":"b","index":[":",-1],"values":"vector","accumulate":true}},
                    {{"op":"set","hook":"layers.0.output","value":"z"}},{logits}"#
                ),
            ),
        ]
    }

    /// The constants that the interventions' nodes name.
    pub fn constants(&self) -> Vec<(String, TensorView<'_>)> {
        let file = SafeTensors::deserialize(&self.bytes).unwrap();
        file.tensor("intervention.add_vector.vector")
            .map(|view| ("vector".to_owned(), view))
            .into_iter()
            .collect()
    }
}

/// The agreements of one model; printed as a table when `PELLUCID_GOLDEN_TABLE` names a file to append to.
pub struct Tally {
    model: String,
    failures: String,
    rows: Vec<String>,
}

impl Tally {
    pub fn new(model: &str) -> Tally {
        Tally { model: model.to_owned(), failures: String::new(), rows: Vec::new() }
    }

    fn compare(&mut self, what: &str, tensor: &Tensor, expected: &Expected, relative: bool, bound: f64) {
        let values = tensor.to_vec_f64().unwrap();
        if values.len() != expected.values.len() {
            self.failures.push_str(&format!(
                "{}: {what}: {:?} against {:?}\n",
                self.model,
                tensor.shape(),
                expected.shape
            ));
            return;
        }
        let (mut difference, mut largest) = (0f64, 0f64);
        for (ours, theirs) in values.iter().zip(&expected.values) {
            if theirs.is_infinite() || ours.is_infinite() {
                if ours != theirs {
                    difference = f64::INFINITY;
                }
                continue;
            }
            difference =
                difference.max(if (ours - theirs).is_nan() { f64::INFINITY } else { (ours - theirs).abs() });
            largest = largest.max(theirs.abs());
        }
        let error = if relative { difference / largest.max(f64::MIN_POSITIVE) } else { difference };
        self.rows.push(format!(
            "{}\t{what}\t{error:.2e}\t{}",
            self.model,
            if relative { "relative" } else { "absolute" }
        ));
        if error >= bound || (relative && largest == 0.0 && difference > 0.0) {
            self.failures
                .push_str(&format!("{}: {what}: off by {error:.3e}, allowed {bound:.0e}\n", self.model));
        }
    }

    /// max|a−b| / max|b| is below `bound`, and infinities stand where they should.
    pub fn relative(&mut self, what: &str, tensor: &Tensor, expected: &Expected, bound: f64) {
        if tensor.shape() != expected.shape {
            self.failures.push_str(&format!(
                "{}: {what}: shape {:?} against {:?}\n",
                self.model,
                tensor.shape(),
                expected.shape
            ));
        }
        self.compare(what, tensor, expected, true, bound);
    }

    /// max|a−b| is below `bound`.
    pub fn absolute(&mut self, what: &str, tensor: &Tensor, expected: &Expected, bound: f64) {
        self.compare(what, tensor, expected, false, bound);
    }

    /// The same to the bit.
    pub fn same_bits(&mut self, what: &str, one: &Tensor, other: &Tensor) {
        if !one.is_same_bits(other) {
            self.failures.push_str(&format!("{}: {what}: two ways of running differ\n", self.model));
        }
    }

    pub fn equal(&mut self, what: &str, one: &[u32], other: &[u32]) {
        self.rows.push(format!(
            "{}\t{what}\t{}\texact",
            self.model,
            if one == other { "0" } else { "differs" }
        ));
        if one != other {
            self.failures.push_str(&format!("{}: {what}: {one:?} against {other:?}\n", self.model));
        }
    }

    pub fn failures(&mut self) -> String {
        if let Ok(path) = std::env::var("PELLUCID_GOLDEN_TABLE") {
            use std::io::Write;
            let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
            for row in &self.rows {
                writeln!(file, "{row}").unwrap();
            }
        }
        std::mem::take(&mut self.failures)
    }
}

/// Every golden model, and variations of some that the golden ones lack.
pub fn engines() -> Vec<(String, Engine)> {
    let only = std::env::var("PELLUCID_MODEL").ok();
    let mut engines: Vec<(String, Engine)> = Vec::new();
    for name in model_names() {
        if only.as_ref().is_none_or(|only| *only == name) {
            engines.push((name.clone(), Golden::open(&name).engine()));
        }
    }
    for (name, base, changes) in [
        ("one layer, one head", "gpt2", r#"{"n_layer":1,"n_head":1}"#),
        ("one key head, window of 2", "mistral", r#"{"num_key_value_heads":1,"sliding_window":2}"#),
        ("two layers, window of 3", "gemma3", r#"{"num_hidden_layers":2,"sliding_window":3}"#),
    ] {
        if only.as_ref().is_some_and(|only| only != name) {
            continue;
        }
        let config = std::fs::read(folder().join(base).join("config.json")).unwrap();
        let mut config: serde_json::Value = serde_json::from_slice(&config).unwrap();
        let changes: serde_json::Value = serde_json::from_str(changes).unwrap();
        for (key, value) in changes.as_object().unwrap() {
            config[key] = value.clone();
        }
        config["initializer_range"] = 0.2.into();
        let model = Model::random(config, 11, &ModelOptions::default()).unwrap();
        engines.push((name.to_owned(), Engine::new(Arc::new(model))));
    }
    for (name, file) in
        [("llama, quantised", "quantised-llama.gguf"), ("gpt2, quantised", "quantised-gpt2.gguf")]
    {
        if only.as_ref().is_none_or(|only| only == name) {
            let options = ModelOptions { precision: Precision::Quantised, ..ModelOptions::default() };
            let model = Model::open(folder().join("../gguf").join(file).to_str().unwrap(), &options).unwrap();
            engines.push((name.to_owned(), Engine::new(Arc::new(model))));
        }
    }
    engines
}
