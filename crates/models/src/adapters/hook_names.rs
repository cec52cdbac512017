//! Hook points by the names that TransformerLens has for them.

use pellucid_graph::ModelSpec;

/// Our name of a hook point that TransformerLens calls `name`, in this model: `blocks.3.hook_resid_pre` is
/// `layers.3.input`. `None` where the model has no one hook point that is the same.
///
/// `hook_resid_mid` is none of ours: the stream between attention and MLP can be read as `layers.3.norm_2.input`, but
/// setting that changes the MLP's branch alone. Normalised values differ as well, since TransformerLens folds the norms'
/// weights into the layers after them.
#[must_use]
pub fn hook_point_of_transformer_lens(name: &str, spec: &ModelSpec) -> Option<String> {
    let hook = if name == "hook_embed" {
        "embed.output".to_owned()
    } else {
        let (layer, rest) = name.strip_prefix("blocks.")?.split_once('.')?;
        let layer: u64 = layer.parse().ok()?;
        if layer >= spec.sizes.layers {
            return None;
        }
        let has_module = |path: &str| spec.modules.iter().any(|module| module.path == path);
        let alias = |alias: String| spec.aliases.iter().find(|other| other.alias == alias && !other.hook);
        let block = alias(format!("layers.{layer}")).map(|alias| alias.target.clone()).unwrap_or_default();
        // Gemma norms what attention and MLP give before it is added: what is added is TransformerLens' output.
        let mlp_norm = format!("{block}.post_feedforward_layernorm");
        let has_post_norms = has_module(&mlp_norm);
        let rotates = spec.hook_points.iter().any(|point| point.name == "query_pre");
        match rest {
            "hook_resid_pre" => format!("layers.{layer}.input"),
            "hook_resid_post" => format!("layers.{layer}.output"),
            "hook_attn_out" if has_post_norms => format!("{block}.post_attention_layernorm.output"),
            "hook_mlp_out" if has_post_norms => format!("{mlp_norm}.output"),
            "hook_attn_out" => format!("layers.{layer}.attention.output"),
            "hook_mlp_out" => format!("layers.{layer}.mlp.output"),
            "attn.hook_z" => format!("layers.{layer}.attention.mixed"),
            "attn.hook_v" => format!("layers.{layer}.attention.value"),
            "attn.hook_q" if rotates => format!("layers.{layer}.attention.query_pre"),
            "attn.hook_k" if rotates => format!("layers.{layer}.attention.key_pre"),
            "attn.hook_q" | "attn.hook_rot_q" => format!("layers.{layer}.attention.query"),
            "attn.hook_k" | "attn.hook_rot_k" => format!("layers.{layer}.attention.key"),
            "mlp.hook_pre" => format!("layers.{layer}.mlp.pre"),
            "mlp.hook_pre_linear" => format!("layers.{layer}.mlp.up"),
            "mlp.hook_post" => format!("layers.{layer}.mlp.post"),
            _ => return None,
        }
    };
    Some(hook)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::hook_point_of_transformer_lens;
    use crate::blueprint;

    #[test]
    fn names_of_transformer_lens_are_found_where_the_value_is_the_same() {
        let config = serde_json::json!({ "model_type": "gpt2", "n_layer": 2, "n_embd": 64, "n_head": 4 });
        let spec = blueprint("small", &config, None).unwrap().spec;
        let name = |name| hook_point_of_transformer_lens(name, &spec);
        assert_eq!(name("blocks.1.hook_resid_pre").as_deref(), Some("layers.1.input"));
        assert_eq!(name("blocks.0.attn.hook_z").as_deref(), Some("layers.0.attention.mixed"));
        assert_eq!(name("blocks.0.attn.hook_q").as_deref(), Some("layers.0.attention.query"));
        for none in
            ["blocks.0.hook_resid_mid", "blocks.2.hook_resid_pre", "blocks.x.hook_mlp_out", "ln_final"]
        {
            assert_eq!(name(none), None, "{none}");
        }
    }
}
