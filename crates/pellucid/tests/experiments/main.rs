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
    mod training;
    mod weights;
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
#[path = "../../../../examples/17_conditional_steering.rs"]
mod conditional_steering;
#[path = "../../../../examples/15_direct_logit_attribution.rs"]
mod direct_logit_attribution;
#[path = "../../../../examples/14_directions.rs"]
mod directions;
#[path = "../../../../examples/11_distributed_alignment_search.rs"]
mod distributed_alignment_search;
#[path = "../../../../examples/13_edge_attribution.rs"]
mod edge_attribution;
#[path = "../../../../examples/09_function_vectors.rs"]
mod function_vectors;
#[path = "../../../../examples/21_gradient_surgery.rs"]
mod gradient_surgery;
#[path = "../../../../examples/18_induction_heads.rs"]
mod induction_heads;
#[path = "../../../../examples/07_linear_probes.rs"]
mod linear_probes;
#[path = "../../../../examples/05_logit_lens.rs"]
mod logit_lens;
#[path = "../../../../examples/12_lora.rs"]
mod lora;
#[path = "../../../../examples/19_patchscopes.rs"]
mod patchscopes;
#[path = "../../../../examples/03_path_patching.rs"]
mod path_patching;
#[path = "../../../../examples/20_rank_one_edit.rs"]
mod rank_one_edit;
#[path = "../../../../examples/12_soft_prompts.rs"]
mod soft_prompts;
#[path = "../../../../examples/08_sparse_autoencoder.rs"]
mod sparse_autoencoder;
#[path = "../../../../examples/06_steering.rs"]
mod steering;
#[path = "../../../../examples/05_tuned_lens.rs"]
mod tuned_lens;
