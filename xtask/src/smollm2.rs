//! `cargo xtask smollm2`: the command on a model that people use, in both of its forms.

use crate::python;
use crate::records::Record;
use crate::shell::{Outcome, cargo, run as command};

pub(crate) fn run() -> Outcome {
    let (file, folder) = (python::smollm2()?, python::smollm2_folder()?);
    let record = Record::begin("SmolLM2-135M-Instruct", "cargo xtask smollm2")?;
    // The command on both forms, and their tensors, tokenizers and templates.
    let mut tests = cargo(&["test", "--quiet", "--workspace", "--test", "smollm2", "--", "--nocapture"]);
    tests.args(["--test-threads=1"]).env("PELLUCID_SMOLLM2", &file).env("PELLUCID_SMOLLM2_FOLDER", &folder);
    command(&mut tests)?;
    record.write(
        "The GGUF file (Q4_1) and the Hugging Face folder of the same weights: every tensor the same to the bit; `pellucid lens`, an\n\
         ablation of each layer's attention, activation patching at each layer and two positions, and 50 generated tokens the\n\
         same to the last digit in both, and within 5e-5 of the probabilities (the tokens the same) of transformers with plain\n\
         PyTorch hooks.",
    )
}
