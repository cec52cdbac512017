//! The examples' numbers, held to an independent implementation in PyTorch hooks: `golden/experiments/`, which also
//! defines each experiment down to its token ids.

#![allow(clippy::expect_used, reason = "a golden file that is not as it should be fails its test")]

mod golden;

#[path = "../../../../examples/16_ablation.rs"]
mod ablation;
#[path = "../../../../examples/01_activation_patching.rs"]
mod activation_patching;
#[path = "../../../../examples/10_attention_knockout.rs"]
mod attention_knockout;
#[path = "../../../../examples/18_induction_heads.rs"]
mod induction_heads;
#[path = "../../../../examples/05_logit_lens.rs"]
mod logit_lens;
#[path = "../../../../examples/19_patchscopes.rs"]
mod patchscopes;
#[path = "../../../../examples/06_steering.rs"]
mod steering;

use golden::{Golden, integer, integers, list, text, texts};
use pellucid::Model;

/// Logits and their differences, which go up to about 20: rounding in f32 differs between implementations by about 2e-6 of that.
const LOGITS: f64 = 1e-4;
/// Shares and probabilities, which go up to about 1.
const SHARES: f64 = 1e-5;

type Outcome = Result<(), Box<dyn std::error::Error>>;

#[test]
fn activation_patching_finds_what_pytorch_finds() -> Outcome {
    let golden = Golden::read("activation_patching")?;
    let (answer, wrong) = (integer(golden.at("answer")) as u32, integer(golden.at("wrong")) as u32);
    let (clean, corrupted) = (golden.prompt("clean"), golden.prompt("corrupted"));
    let results =
        activation_patching::activation_patching(&Model::bundled()?, &clean, &corrupted, answer, wrong)?;
    for name in ["clean_logits", "corrupted_logits"] {
        golden.holds(name, &results[name], LOGITS)?;
    }
    for name in ["clean_difference", "corrupted_difference"] {
        golden.holds_number(name, &results[name], LOGITS)?;
    }
    for name in ["residual", "attention", "mlp", "heads"] {
        golden.holds(name, &results[name], SHARES)?;
    }
    Ok(())
}

#[test]
fn the_logit_lens_reads_what_pytorch_reads() -> Outcome {
    let golden = Golden::read("logit_lens")?;
    let model = Model::bundled()?;
    for case in ["fact", "ioi"] {
        let definition = &golden.at("prompts")[case];
        let results = logit_lens::logit_lens(
            &model,
            text(&definition["prompt"]["text"]),
            integer(&definition["answer"]) as u32,
        )?;
        let tolerances = [
            ("answer_probability", SHARES),
            ("top_probabilities", SHARES),
            ("last_logits", LOGITS),
            ("kl_to_final", LOGITS),
        ];
        for (name, tolerance) in tolerances {
            golden.holds(&format!("{case}.{name}"), &results[name], tolerance)?;
        }
        golden.holds_exactly(&format!("{case}.top_ids"), &results["top_ids"])?;
    }
    Ok(())
}

#[test]
fn steering_turns_the_review_as_in_pytorch() -> Outcome {
    let golden = Golden::read("steering")?;
    let model = Model::bundled()?;
    let prompts = |key: &str| {
        list(golden.at(key)).iter().map(|prompt| text(&prompt["text"]).to_owned()).collect::<Vec<_>>()
    };
    let built = steering::steering_vector(&model, &prompts("positive"), &prompts("negative"))?;
    golden.holds("vector", &built["vector"], LOGITS)?;
    golden.holds_number("vector_norm", &built["norm"], LOGITS)?;

    let prompt = golden.prompt("prompt");
    for (name, variant) in golden.at("variants").as_object().into_iter().flatten() {
        let how = steering::Steering {
            scale: variant["scale"].as_f64().unwrap_or(f64::NAN),
            positions: integers(&variant["prompt_positions"])
                .into_iter()
                .map(|position| position as usize)
                .collect(),
            generated: variant["generated"] == true,
        };
        let results = steering::steer(
            &model,
            &prompt,
            &built["vector"],
            &how,
            integer(golden.at("new_tokens")) as u64,
        )?;
        assert_eq!(results["generated"].to_vec_i64()?, integers(&variant["generated_ids"]), "{name}");
        golden.holds_rows(&format!("{name}.logits"), &results.steps("logits"), LOGITS)?;
    }
    Ok(())
}

#[test]
fn attention_knockout_costs_what_it_costs_in_pytorch() -> Outcome {
    let golden = Golden::read("attention_knockout")?;
    let model = Model::bundled()?;
    let windows: Vec<Vec<usize>> = list(golden.at("windows"))
        .iter()
        .map(|window| integers(window).into_iter().map(|layer| layer as usize).collect())
        .collect();
    for case in ["fact", "ioi"] {
        let definition = &golden.at("prompts")[case];
        let edges: Vec<(usize, usize)> = list(&definition["edges"])
            .iter()
            .map(|edge| (integer(&edge[0]) as usize, integer(&edge[1]) as usize))
            .collect();
        let answers = (integer(&definition["answer"]) as u32, integer(&definition["wrong"]) as u32);
        let prompt = text(&definition["prompt"]["text"]);
        let results = attention_knockout::attention_knockout(&model, prompt, answers, &windows, &edges)?;
        for (name, tolerance) in
            [("baseline_logits", LOGITS), ("answer_probability", SHARES), ("difference", LOGITS)]
        {
            golden.holds(&format!("{case}.{name}"), &results[name], tolerance)?;
        }
    }
    Ok(())
}

#[test]
fn ablation_loses_what_it_loses_in_pytorch() -> Outcome {
    let golden = Golden::read("ablation")?;
    let data_set: Vec<ablation::Example> = list(golden.at("data_set"))
        .iter()
        .map(|row| ablation::Example {
            prompt: text(&row["prompt"]["text"]).to_owned(),
            answer: integer(&row["answer"]) as u32,
            wrong: integer(&row["wrong"]) as u32,
        })
        .collect();
    assert_eq!(texts(golden.at("kinds")), ["zero", "mean", "resample"]);
    let results = ablation::ablation(&Model::bundled()?, &data_set, &integers(golden.at("permutation")))?;
    golden.holds_number("baseline", &results["baseline"], LOGITS)?;
    for (name, _) in ablation::PARTS {
        golden.holds(&format!("{name}.means"), &results[&format!("{name}_means")], LOGITS)?;
        golden.holds(&format!("{name}.difference"), &results[&format!("{name}_difference")], LOGITS)?;
    }
    Ok(())
}

#[test]
fn induction_heads_are_where_pytorch_finds_them() -> Outcome {
    let golden = Golden::read("induction_heads")?;
    let prompts: Vec<Vec<u32>> = list(golden.at("ids"))
        .iter()
        .map(|ids| integers(ids).into_iter().map(|id| id as u32).collect())
        .collect();
    let results = induction_heads::induction_heads(&Model::bundled()?, &prompts, integer(golden.at("half")))?;
    for name in ["induction", "previous_token", "duplicate_token"] {
        golden.holds(name, &results[name], SHARES)?;
    }
    golden.holds_number("accuracy", &results["accuracy"], SHARES)
}

#[test]
fn patchscopes_read_out_what_they_read_out_in_pytorch() -> Outcome {
    let golden = Golden::read("patchscopes")?;
    let model = Model::bundled()?;
    for case in ["answer", "entity"] {
        let definition = &golden.at("cases")[case];
        let place = |name: &str| patchscopes::Place {
            prompt: text(&definition[name]["text"]),
            position: integer(&definition[format!("{name}_position").as_str()]) as usize,
        };
        let answer = integer(&definition["answer"]) as u32;
        let results = patchscopes::patchscopes(
            &model,
            &place("source"),
            &place("target"),
            answer,
            integer(golden.at("new_tokens")) as u64,
        )?;
        golden.holds(&format!("{case}.answer_probability"), &results["answer_probability"], SHARES)?;
        for (source, row) in list(&definition["generated_ids"]).iter().enumerate() {
            for (target, ids) in list(row).iter().enumerate() {
                let name = format!("generated_{source}_{target}");
                assert_eq!(results[&name].to_vec_i64()?, integers(ids), "{case} {name}");
            }
        }
        let best = integers(&definition["best"]);
        let logits = results.steps(&format!("logits_{}_{}", best[0], best[1]));
        golden.holds_rows(&format!("{case}.best_logits"), &logits, LOGITS)?;
    }
    Ok(())
}
