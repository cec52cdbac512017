//! `cargo xtask smollm2`: the command on a model that people use, in both of its forms.

use crate::python;
use crate::records::Record;
use crate::shell::{Outcome, cargo, run as command};

pub(crate) fn run() -> Outcome {
    let (file, folder) = (python::smollm2()?, python::smollm2_folder()?);
    let record = Record::begin("SmolLM2-135M-Instruct", "cargo xtask smollm2")?;
    // First the tensors, tokenizers and templates of the two forms, then the command on both.
    for (package, visible) in [("pellucid-models", false), ("pellucid-cli", true)] {
        let mut tests = cargo(&["test", "--quiet", "--package", package, "--test", "smollm2", "--"]);
        if visible {
            tests.args(["--nocapture", "--test-threads=1"]);
        }
        command(tests.env("PELLUCID_SMOLLM2", &file).env("PELLUCID_SMOLLM2_FOLDER", &folder))?;
    }
    record.write(
        "The GGUF file (Q4_1) and the Hugging Face folder of the same weights: every tensor the same to the bit; `pellucid lens`, an\n\
         ablation of each layer's attention, activation patching at each layer and two positions, and 50 generated tokens the\n\
         same to the last digit in both, and within 5e-5 of the probabilities (the tokens the same) of transformers with plain\n\
         PyTorch hooks.",
    )
}
