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
    TunedLens "../../../examples/05_tuned_lens.rs",
    Steering "../../../examples/06_steering.rs",
    LinearProbes "../../../examples/07_linear_probes.rs",
    SparseAutoencoder "../../../examples/08_sparse_autoencoder.rs",
    FunctionVectors "../../../examples/09_function_vectors.rs",
    AttentionKnockout "../../../examples/10_attention_knockout.rs",
    DistributedAlignmentSearch "../../../examples/11_distributed_alignment_search.rs",
    Lora "../../../examples/12_lora.rs",
    SoftPrompts "../../../examples/12_soft_prompts.rs",
    EdgeAttribution "../../../examples/13_edge_attribution.rs",
    Directions "../../../examples/14_directions.rs",
    DirectLogitAttribution "../../../examples/15_direct_logit_attribution.rs",
    Ablation "../../../examples/16_ablation.rs",
    ConditionalSteering "../../../examples/17_conditional_steering.rs",
    InductionHeads "../../../examples/18_induction_heads.rs",
    Patchscopes "../../../examples/19_patchscopes.rs",
    RankOneEdit "../../../examples/20_rank_one_edit.rs",
    GradientSurgery "../../../examples/21_gradient_surgery.rs",
}

/// Side by side with nnsight: what stands there in Rust runs.
#[doc = include_str!("../../../docs/coming-from-nnsight.md")]
pub struct ComingFromNnsight;

/// Side by side with TransformerLens: what stands there in Rust runs.
#[doc = include_str!("../../../docs/coming-from-transformerlens.md")]
pub struct ComingFromTransformerLens;

/// The guide, whose programs are compiled.
#[doc = include_str!("../../../docs/adapters.md")]
pub struct AdaptersGuide;

/// Experiments at a service: what stands there in Rust is compiled.
#[doc = include_str!("../../../docs/remote.md")]
pub struct RemoteGuide;
