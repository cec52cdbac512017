//! The values of stage lists, hook point by hook point, against transformers.

use pellucid_models::Blueprint;
use pellucid_models::stage::WeightId;
use pellucid_models::weights::{Checkpoint, RawTensor};

use crate::folder::{Folder, Tensor, folders};
use crate::interpreter::{Edit, Interpreter, Value, Views};

/// Relative to the greatest magnitude of a hook point's golden values.
const HOOK_POINT_BOUND: f32 = 1e-5;
/// Absolute.
const LOGITS_BOUND: f32 = 1e-4;

fn run(folder: &Folder, blueprint: &Blueprint, prompt: usize, edits: &[Edit<'_>]) -> Views {
    let checkpoint = Checkpoint::open_folder(&folder.path).unwrap();
    let prefix = blueprint.family.prefix;
    let weights = |weight: WeightId| -> RawTensor {
        let weight = &blueprint.stages.weights[weight.0 as usize];
        let renamed = blueprint.family.renamed.iter().find(|(_, ours)| *ours == weight.name);
        let names = [weight.name.as_str(), weight.name.strip_prefix(prefix).unwrap_or_default()];
        let mut names = names.into_iter().chain(renamed.map(|(theirs, _)| *theirs));
        let name = names.find(|name| checkpoint.contains(name)).unwrap();
        checkpoint.expect(name, &weight.shape).unwrap()
    };
    Interpreter { blueprint, weights: &weights }.run(&folder.prompt(prompt), edits)
}

/// The greatest difference; infinity where one is −∞ (or no number) and the other is not.
fn difference(ours: &[f32], golden: &[f32]) -> f32 {
    assert_eq!(ours.len(), golden.len());
    let differences = ours.iter().zip(golden).map(|(a, b)| match (a.is_finite(), b.is_finite()) {
        (true, true) => (a - b).abs(),
        _ if a == b => 0.0,
        _ => f32::INFINITY,
    });
    differences.fold(0.0, f32::max)
}

fn magnitude(values: &[f32]) -> f32 {
    values.iter().filter(|value| value.is_finite()).fold(0.0, |greatest, value| greatest.max(value.abs()))
}

#[test]
fn every_hook_point_has_transformers_value() {
    for folder in folders().iter().filter(|folder| folder.has_values()) {
        let blueprint = folder.blueprint("config.json");
        let views = run(folder, &blueprint, 0, &[]);
        let tensors = folder.tensors();
        let mut compared = 0;
        let mut worst = (0.0, "");
        for point in &blueprint.spec.hook_points {
            let path = point.path();
            let Some(golden) = tensors.get(&path) else {
                panic!("{}: no golden value of `{path}`", folder.name);
            };
            let shape: Vec<_> = point
                .shape
                .iter()
                .map(|axis| match axis {
                    pellucid_graph::spec::Axis::Prompts => 1,
                    pellucid_graph::spec::Axis::Size(size) => *size as usize,
                    _ => folder.prompt(0).len(),
                })
                .collect();
            assert_eq!(shape, golden.shape(), "{}: {path}", folder.name);
            match (&views[&path], golden) {
                (Value::Ids(ours), Tensor::Ids { values, .. }) => assert_eq!(ours, values, "{path}"),
                (Value::Numbers(ours), Tensor::Float { values, .. }) => {
                    let relative = difference(ours, values) / magnitude(values);
                    assert!(relative < HOOK_POINT_BOUND, "{}: {path}: {relative:e}", folder.name);
                    if relative > worst.0 {
                        worst = (relative, tensors.get_key_value(&path).map_or("", |(key, _)| key));
                    }
                }
                _ => panic!("{}: {path}: the number type", folder.name),
            }
            compared += 1;
        }
        // And nothing that transformers has is left out.
        let paths: std::collections::BTreeSet<_> =
            blueprint.spec.hook_points.iter().map(|point| point.path()).collect();
        let others = ["logits.", "greedy.", "intervention.", "bfloat16."];
        for key in tensors.keys().filter(|key| !others.iter().any(|other| key.starts_with(other))) {
            assert!(paths.contains(key), "{}: no hook point `{key}`", folder.name);
        }
        println!("{:20} {compared} hook points, worst {:e} at {}", folder.name, worst.0, worst.1);
    }
}

#[test]
fn logits_are_transformers_for_prompts_of_every_length() {
    for folder in folders() {
        let blueprint = folder.blueprint("config.json");
        let tensors = folder.tensors();
        for prompt in 0..3 {
            let views = run(&folder, &blueprint, prompt, &[]);
            let (Value::Numbers(ours), Tensor::Float { values, .. }) =
                (&views["output"], &tensors[&format!("logits.{prompt}")])
            else {
                panic!("logits are numbers");
            };
            let difference = difference(ours, values);
            assert!(difference < LOGITS_BOUND, "{}: prompt {prompt}: {difference:e}", folder.name);
        }
    }
}

fn numbers<'a>(views: &'a Views, path: &str) -> &'a [f32] {
    match &views[path] {
        Value::Numbers(numbers) => numbers,
        Value::Ids(_) => panic!("{path} holds ids"),
    }
}

fn golden_numbers<'a>(tensors: &'a std::collections::BTreeMap<String, Tensor>, key: &str) -> &'a [f32] {
    match &tensors[key] {
        Tensor::Float { values, .. } => values,
        Tensor::Ids { .. } => panic!("{key} holds ids"),
    }
}

#[test]
fn edits_of_hook_points_do_what_they_do_in_transformers() {
    for folder in folders().iter().filter(|folder| folder.has_values()) {
        let blueprint = folder.blueprint("config.json");
        let tensors = folder.tensors();
        let config = &blueprint.config;
        // What an intervention is stands in words: "<hook point>[…] = …".
        let path = |name: &str| {
            let text = folder.golden["interventions"][name].as_str().unwrap();
            text.split_once('[').unwrap().0.to_owned()
        };
        let (head, residual, vector) = (path("zero_head"), path("patch_residual"), path("add_vector"));
        let zero_head = |mixed: &mut [f32]| {
            mixed
                .chunks_mut(config.heads * config.head_size)
                .for_each(|token| token[..config.head_size].fill(0.0));
        };
        let other = run(folder, &blueprint, 3, &[]);
        let row = 3 * config.hidden..4 * config.hidden;
        let patch = |stream: &mut [f32]| {
            stream[row.clone()].copy_from_slice(&numbers(&other, &residual)[row.clone()]);
        };
        let added = golden_numbers(&tensors, "intervention.add_vector.vector");
        let add = |stream: &mut [f32]| {
            let last = stream.len() - config.hidden;
            stream[last..].iter_mut().zip(added).for_each(|(value, added)| *value += added);
        };
        let edits: [(&str, Edit<'_>); 3] = [
            ("zero_head", (&head, &zero_head)),
            ("patch_residual", (&residual, &patch)),
            ("add_vector", (&vector, &add)),
        ];
        for (name, edit) in edits {
            let views = run(folder, &blueprint, 0, &[edit]);
            let golden = golden_numbers(&tensors, &format!("intervention.{name}.logits"));
            let difference = difference(numbers(&views, "output"), golden);
            assert!(difference < LOGITS_BOUND, "{}: {name}: {difference:e}", folder.name);
            let unedited = self::difference(golden_numbers(&tensors, "logits.0"), golden);
            assert!(unedited > 10.0 * LOGITS_BOUND, "{}: {name} changes nothing", folder.name);
        }
    }
}

/// `h.5.input` and `h.4.output` are two hook points, and a norm's `input` is the branch alone.
#[test]
fn an_edit_reaches_what_lies_behind_its_hook_point_and_nothing_else() {
    for folder in folders().iter().filter(|folder| folder.has_values()) {
        let blueprint = folder.blueprint("config.json");
        let path = |alias: &str| {
            let aliases = &blueprint.spec.aliases;
            aliases.iter().find(|known| known.alias == alias).map(|known| known.target.clone()).unwrap()
        };
        let block = |layer: usize, side: &str| format!("{}.{side}", path(&format!("layers.{layer}")));
        let shift = |values: &mut [f32]| values.iter_mut().for_each(|value| *value += 0.25);
        let plain = run(folder, &blueprint, 0, &[]);

        // The block's input: what came before keeps its value, the whole block moves, skip path included.
        let input = block(1, "input");
        let edited = run(folder, &blueprint, 0, &[(&input, &shift)]);
        assert_eq!(numbers(&edited, &block(0, "output")), numbers(&plain, &block(0, "output")));
        let mut expected = numbers(&plain, &input).to_vec();
        shift(&mut expected);
        assert_eq!(numbers(&edited, &input), expected);

        // The norm's input: the skip path is as it was, so the block's output less its branches is its input.
        let norm = format!("{}.input", path("layers.1.norm_1"));
        if matches!(blueprint.config.residual, pellucid_models::config::Residual::NormAfter) {
            continue;
        }
        let branches = run(folder, &blueprint, 0, &[(&norm, &shift)]);
        let family = blueprint.spec.family.as_str();
        let ends = match family {
            "gemma2" | "gemma3_text" => ["post_attention_layernorm", "post_feedforward_layernorm"],
            "gpt2" => ["attn", "mlp"],
            "gpt_neox" => ["attention", "mlp"],
            "opt" => ["self_attn", "fc2"],
            _ => ["self_attn", "mlp"],
        };
        for (run, skip) in [(&branches, &plain), (&edited, &edited)] {
            let [attention, mlp] =
                ends.map(|end| numbers(run, &format!("{}.{end}.output", path("layers.1"))));
            let sum = numbers(skip, &input).iter().zip(attention).zip(mlp).map(|((x, a), m)| x + a + m);
            let sum: Vec<_> = sum.collect();
            let output = numbers(run, &block(1, "output"));
            let relative = difference(&sum, output) / magnitude(output);
            assert!(relative < HOOK_POINT_BOUND, "{}: {relative:e}", folder.name);
        }
        assert_ne!(numbers(&branches, &block(1, "output")), numbers(&plain, &block(1, "output")));
    }
}
