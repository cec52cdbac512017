//! The examples, run as documentation tests: an example that does not run does not stand.

macro_rules! run {
    ($($name:ident $path:literal),* $(,)?) => {
        $(
            #[doc = concat!("```\n", include_str!($path), "\n```")]
            pub struct $name;
        )*
    };
}

run! {
    Read "../examples/read.rs",
    Change "../examples/change.rs",
    Gradients "../examples/gradients.rs",
    Generate "../examples/generate.rs",
    Program "../examples/program.rs",
    Results "../examples/results.rs",
    Limits "../examples/limits.rs",
    ActivationPatching "../../../examples/01_activation_patching.rs",
    AttributionPatching "../../../examples/02_attribution_patching.rs",
    PathPatching "../../../examples/03_path_patching.rs",
    CausalTracing "../../../examples/04_causal_tracing.rs",
    LogitLens "../../../examples/05_logit_lens.rs",
    Steering "../../../examples/06_steering.rs",
    SparseAutoencoder "../../../examples/08_sparse_autoencoder.rs",
    FunctionVectors "../../../examples/09_function_vectors.rs",
    AttentionKnockout "../../../examples/10_attention_knockout.rs",
    Ablation "../../../examples/16_ablation.rs",
    InductionHeads "../../../examples/18_induction_heads.rs",
    Patchscopes "../../../examples/19_patchscopes.rs",
    GradientSurgery "../../../examples/21_gradient_surgery.rs",
}
