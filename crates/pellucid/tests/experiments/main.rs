//! The examples' numbers, held to an independent implementation in PyTorch hooks: `golden/experiments/`, which also
//! defines each experiment down to its token ids.

#![allow(clippy::expect_used, reason = "a golden file that is not as it should be fails its test")]

mod golden;
mod held {
    mod circuits;
    mod features;
    mod gradients;
    mod lenses;
    mod patching;
    mod steering;
}

#[path = "../../../../examples/16_ablation.rs"]
mod ablation;
#[path = "../../../../examples/01_activation_patching.rs"]
mod activation_patching;
#[path = "../../../../examples/10_attention_knockout.rs"]
mod attention_knockout;
#[path = "../../../../examples/02_attribution_patching.rs"]
mod attribution_patching;
#[path = "../../../../examples/04_causal_tracing.rs"]
mod causal_tracing;
#[path = "../../../../examples/09_function_vectors.rs"]
mod function_vectors;
#[path = "../../../../examples/21_gradient_surgery.rs"]
mod gradient_surgery;
#[path = "../../../../examples/18_induction_heads.rs"]
mod induction_heads;
#[path = "../../../../examples/05_logit_lens.rs"]
mod logit_lens;
#[path = "../../../../examples/19_patchscopes.rs"]
mod patchscopes;
#[path = "../../../../examples/03_path_patching.rs"]
mod path_patching;
#[path = "../../../../examples/08_sparse_autoencoder.rs"]
mod sparse_autoencoder;
#[path = "../../../../examples/06_steering.rs"]
mod steering;
