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
    Generate "../examples/generate.rs",
    Program "../examples/program.rs",
    Results "../examples/results.rs",
    Limits "../examples/limits.rs",
    ActivationPatching "../../../examples/01_activation_patching.rs",
    LogitLens "../../../examples/05_logit_lens.rs",
    Steering "../../../examples/06_steering.rs",
    AttentionKnockout "../../../examples/10_attention_knockout.rs",
    Ablation "../../../examples/16_ablation.rs",
    InductionHeads "../../../examples/18_induction_heads.rs",
    Patchscopes "../../../examples/19_patchscopes.rs",
}
