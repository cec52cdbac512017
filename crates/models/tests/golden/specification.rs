//! What a model publishes, against transformers' module tree.

use std::collections::{BTreeMap, BTreeSet};

use pellucid_graph::spec::{Application, Axis};
use pellucid_models::stage::{HookLayout, Kernel};

use crate::folder::{Folder, folders, read_json};

/// The hook points' shapes for one prompt of 12 tokens.
fn shape(axes: &[Axis]) -> Vec<u64> {
    axes.iter()
        .map(|axis| match axis {
            Axis::Prompts => 1,
            Axis::Length | Axis::Context => 12,
            Axis::Size(size) => *size,
        })
        .collect()
}

fn sizes(value: &serde_json::Value) -> Option<Vec<u64>> {
    value.as_array().map(|sizes| sizes.iter().map(|size| size.as_u64().unwrap()).collect())
}

#[test]
fn module_trees_parameters_and_shapes_are_those_of_transformers() {
    for folder in folders().iter().filter(|folder| folder.has_values()) {
        check_tree(folder);
    }
}

fn check_tree(folder: &Folder) {
    let blueprint = folder.blueprint("config.json");
    let spec = &blueprint.spec;
    let name = &folder.name;
    let golden = read_json(&folder.path.join("modules.json"));
    let golden = golden.as_array().unwrap();

    // The golden file leaves out lists of modules and rotary embeddings.
    let left_out = |class: &str| class == "ModuleList" || class.ends_with("RotaryEmbedding");
    let ours: Vec<_> = spec.modules.iter().filter(|module| !left_out(&module.class)).collect();
    let paths = |module: &serde_json::Value| {
        (module["path"].as_str().unwrap().to_owned(), module["class"].as_str().unwrap().to_owned())
    };
    let theirs: Vec<_> = golden.iter().map(paths).collect();
    let our_paths: Vec<_> = ours.iter().map(|module| (module.path.clone(), module.class.clone())).collect();
    assert_eq!(our_paths, theirs, "{name}");

    let points: BTreeMap<String, Vec<u64>> =
        spec.hook_points.iter().map(|point| (point.path(), shape(&point.shape))).collect();
    assert_eq!(points.len(), spec.hook_points.len(), "{name}: two hook points of one name");
    let flattened: BTreeSet<_> =
        folder.golden["flattened"].as_array().unwrap().iter().filter_map(|key| key.as_str()).collect();
    let mut parameters = Vec::new();
    for (golden, module) in golden.iter().zip(&ours) {
        for side in ["input", "output"] {
            let key =
                if module.path.is_empty() { side.to_owned() } else { format!("{}.{side}", module.path) };
            let mut expected = sizes(&golden[side]);
            if let Some(shape) = expected.as_mut().filter(|_| flattened.contains(key.as_str())) {
                shape.insert(0, 1);
            }
            assert_eq!(points.get(&key), expected.as_ref(), "{name}: {key}");
        }
        assert_eq!(module.applied == Application::None, {
            let container = ["", "model", "transformer", "gpt_neox", "model.decoder"];
            container.contains(&module.path.as_str())
                || golden["called"] == false
                || sizes(&golden["input"]).is_none()
        });
        for (own, shape) in golden["parameters"].as_object().unwrap() {
            if blueprint.config.tied && module.path == "lm_head" {
                continue;
            }
            parameters.push((format!("{}.{own}", module.path), sizes(shape).unwrap()));
        }
    }
    let ours: Vec<_> =
        spec.parameters.iter().map(|weight| (weight.name.clone(), weight.shape.clone())).collect();
    assert_eq!(ours, parameters, "{name}");
}

#[test]
fn configurations_as_transformers_5_writes_them_give_the_same_model() {
    for folder in folders() {
        let (published, rewritten) =
            (folder.blueprint("config.json"), folder.blueprint("config.transformers5.json"));
        assert_eq!(published.config, rewritten.config, "{}", folder.name);
        assert_eq!(published.spec, rewritten.spec, "{}", folder.name);
    }
}

#[test]
fn lists_are_in_single_assignment_and_hook_points_in_schedule_order() {
    for folder in folders() {
        let blueprint = folder.blueprint("config.json");
        let list = &blueprint.stages;
        let mut written = BTreeSet::from([0, 1]);
        let mut next_point = 0;
        for stage in &list.stages {
            assert!(
                stage.inputs.iter().all(|slot| written.contains(&slot.0)),
                "{stage:?} reads what is not there"
            );
            assert!(stage.outputs.iter().all(|slot| written.insert(slot.0)), "{stage:?} writes again");
            if let Kernel::Hook { point, .. } = stage.kernel {
                assert_eq!(point, next_point);
                next_point += 1;
            }
        }
        assert_eq!(next_point, blueprint.spec.hook_points.len());
        assert_eq!(list.shapes.len(), list.slots as usize);
        assert_eq!(list.modules.len(), blueprint.spec.modules.len());
        for (module, stages) in blueprint.spec.modules.iter().zip(&list.modules) {
            if module.applied == Application::None {
                continue;
            }
            // A module can be walked by itself: from its input on, its stages read only what they wrote.
            let mut bound = BTreeSet::from([0, 1, stages.input.unwrap().0]);
            for stage in &list.stages[stages.range.clone()] {
                assert!(
                    stage.inputs.iter().all(|slot| bound.contains(&slot.0)),
                    "{}: {stage:?}",
                    module.path
                );
                bound.extend(stage.outputs.iter().map(|slot| slot.0));
            }
            assert!(bound.contains(&stages.output.unwrap().0), "{}", module.path);
        }
        for stage in &list.stages[list.token_wise_from..] {
            let mixes = matches!(
                stage.kernel,
                Kernel::AttentionScores(_) | Kernel::AttentionPattern(_) | Kernel::AttentionMixed(_)
            );
            assert!(!mixes && !matches!(stage.kernel, Kernel::Hook { layout: HookLayout::Context, .. }));
        }
    }
}

#[test]
fn standard_names_stand_for_what_is_there() {
    for folder in folders() {
        let spec = folder.blueprint("config.json").spec;
        let modules: BTreeSet<_> = spec.modules.iter().map(|module| module.path.as_str()).collect();
        let points: BTreeSet<_> = spec.hook_points.iter().map(|point| point.path()).collect();
        let mut names = BTreeSet::new();
        for alias in &spec.aliases {
            let there = if alias.hook {
                points.contains(&alias.target)
            } else {
                modules.contains(alias.target.as_str())
            };
            assert!(there, "{}: {alias:?}", folder.name);
            assert!(names.insert(alias.alias.as_str()), "{}: {alias:?} twice", folder.name);
        }
        let mut standard: Vec<String> = ["embed", "unembed", "logits"].map(String::from).to_vec();
        if folder.name != "opt-post-norm" {
            standard.push("final_norm".to_owned());
        }
        for layer in 0..spec.sizes.layers {
            standard.push(format!("layers.{layer}"));
            standard.extend(["attention", "norm_1", "norm_2"].map(|name| format!("layers.{layer}.{name}")));
            if spec.family == "opt" {
                let points = ["input", "pre", "post", "output"];
                standard.extend(points.map(|name| format!("layers.{layer}.mlp.{name}")));
            } else {
                standard.push(format!("layers.{layer}.mlp"));
            }
        }
        assert_eq!(names, standard.iter().map(String::as_str).collect(), "{}", folder.name);
    }
}

#[test]
fn inner_hook_points_are_as_the_table_says() {
    use pellucid_models::inner::{INNER_HOOK_POINTS, InnerAxis, Under};
    for folder in folders() {
        let spec = folder.blueprint("config.json").spec;
        let sizes = &spec.sizes;
        let mut seen = BTreeSet::new();
        for point in &spec.hook_points {
            let Some(line) = INNER_HOOK_POINTS.iter().find(|line| line.name == point.name) else {
                assert!(point.name == "input" || point.name == "output", "{}", point.path());
                continue;
            };
            seen.insert(line.name);
            let class = &spec.modules.iter().find(|module| module.path == point.module).unwrap().class;
            let under = match line.under {
                Under::Attention => class.ends_with("Attention"),
                Under::Mlp => class.ends_with("MLP"),
                Under::Norm => class.contains("Norm"),
            };
            assert!(under, "{} under {class}", point.path());
            // A norm of heads has its heads where its input has them.
            if point.path().contains("q_norm") || point.path().contains("k_norm") {
                continue;
            }
            let shape: Vec<Axis> = line
                .shape
                .iter()
                .map(|axis| match axis {
                    InnerAxis::Prompts => Axis::Prompts,
                    InnerAxis::Length => Axis::Length,
                    InnerAxis::Context => Axis::Context,
                    InnerAxis::Heads => Axis::Size(sizes.heads),
                    InnerAxis::KeyValueHeads => Axis::Size(sizes.key_value_heads),
                    InnerAxis::HeadSize => Axis::Size(sizes.head_size),
                    InnerAxis::Inner => Axis::Size(sizes.inner),
                    InnerAxis::One => Axis::Size(1),
                })
                .collect();
            assert_eq!(point.shape, shape, "{}: {}", folder.name, point.path());
        }
        // A line that is not on every family says where it is; OPT's MLP has no module.
        let missing = INNER_HOOK_POINTS.iter().filter(|line| !seen.contains(line.name));
        for line in missing {
            assert!(
                line.only.is_some() || (spec.family == "opt" && line.under == Under::Mlp),
                "{}: no `{}`",
                folder.name,
                line.name
            );
        }
    }
}
