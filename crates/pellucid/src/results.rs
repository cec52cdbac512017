//! What a run gives back.

use std::fs::File;
use std::io::BufReader;
use std::ops::Index;
use std::path::Path;

use pellucid_engine::{LogEntry, Provenance, Report, Results as Inner, Tensor};

use crate::error::{Error, Result};

/// What a run gives back: the saved values by name. `results["name"]` is a [`Tensor`].
#[derive(Clone, Debug)]
pub struct Results(Inner);

impl Results {
    pub(crate) fn new(inner: Inner) -> Results {
        Results(inner)
    }

    /// The value saved under that name.
    ///
    /// # Errors
    /// [`Error::NotSaved`] where there is none.
    pub fn get(&self, name: &str) -> Result<&Tensor> {
        self.0.tensors.get(name).ok_or_else(|| Error::NotSaved { name: name.to_owned(), known: self.known() })
    }

    fn known(&self) -> String {
        let names: Vec<String> = self.names().map(|name| format!("`{name}`")).collect();
        if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
    }

    /// What was saved under that name inside `steps`: one value for each step that was reached, in order.
    pub fn steps(&self, name: &str) -> Vec<&Tensor> {
        let numbered = self.0.tensors.iter().filter_map(|(key, tensor)| {
            let step: u64 = key.strip_prefix(name)?.strip_prefix('/')?.parse().ok()?;
            Some((step, tensor))
        });
        let mut steps: Vec<(u64, &Tensor)> = numbered.collect();
        steps.sort_by_key(|(step, _)| *step);
        steps.into_iter().map(|(_, tensor)| tensor).collect()
    }

    /// The names of the saved values.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.tensors.keys().map(String::as_str)
    }

    /// The saved values with their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.0.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// Saved values that are absent, because their generation had stopped before their step, or
    /// their branch of a condition did not run.
    pub fn absent(&self) -> &[String] {
        &self.0.absent
    }

    /// Logged values, in the order in which they arose.
    pub fn logs(&self) -> &[LogEntry] {
        &self.0.logs
    }

    /// What made the results: model, revision, engine, instruction set, number type, seed. The same of all these gives
    /// the same results, bit for bit.
    pub fn provenance(&self) -> &Provenance {
        &self.0.provenance
    }

    /// What the run did: passes, tokens, bytes, time.
    pub fn report(&self) -> &Report {
        &self.0.report
    }

    /// The saved values as a safetensors file, with their provenance in its metadata, and logged values beside them under
    /// names that begin with `pellucid.log/`.
    ///
    /// # Errors
    /// When a value cannot be written, which only a lack of memory causes.
    pub fn to_safetensors(&self) -> Result<Vec<u8>> {
        Ok(self.0.to_safetensors()?)
    }

    /// Reads what [`Results::save`] wrote, or `pellucid run` did.
    ///
    /// # Errors
    /// [`Error::File`] where the file cannot be read, or is no such file.
    pub fn load(path: impl AsRef<Path>) -> Result<Results> {
        let path = path.as_ref();
        let read = || Inner::from_safetensors(BufReader::new(File::open(path)?));
        read().map(Results).map_err(|error| Error::File { path: path.to_owned(), error })
    }

    /// Writes the saved values as a safetensors file. It is written beside and renamed: whatever goes wrong, what was there
    /// before is there still.
    ///
    /// # Errors
    /// [`Error::File`] where the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let bytes = self.to_safetensors()?;
        pellucid_client::replace(path, bytes.as_slice())
            .map_err(|error| Error::File { path: path.to_owned(), error })
    }
}

impl Index<&str> for Results {
    type Output = Tensor;

    /// The value saved under that name.
    ///
    /// # Panics
    /// Where there is none; [`Results::get`] gives an error instead.
    #[expect(clippy::panic, reason = "as for every index")]
    #[track_caller]
    fn index(&self, name: &str) -> &Tensor {
        match self.0.tensors.get(name) {
            Some(tensor) => tensor,
            None => panic!("nothing is saved as `{name}`; there is {}", self.known()),
        }
    }
}
