//! What is trained: step by step as in PyTorch, and with the control that must fail.

use pellucid::{Model, Results, Tensor};
use serde_json::Value;

use crate::golden::{Golden, Outcome, SHARES, integer, integers, list, number, prompts, text, tokens};
use crate::{distributed_alignment_search, linear_probes, lora, soft_prompts, tuned_lens};

/// Losses and parameters after training: a step multiplies what rounding did before it.
const TRAINED: f64 = 1e-4;

fn single(tensor: &Tensor) -> Result<f64, Box<dyn std::error::Error>> {
    Ok(tensor.to_vec_f64()?[0])
}

/// Token ids of a list of prompts.
fn ids(value: &Value) -> Vec<Vec<u32>> {
    list(value).iter().map(|prompt| tokens(&prompt["ids"])).collect()
}

#[test]
fn the_tuned_lens_learns_what_it_learns_in_pytorch() -> Outcome {
    let golden = Golden::read("tuned_lens")?;
    let training = tuned_lens::Training {
        steps: integer(golden.at("steps")) as u64,
        rate: number(golden.at("rate")),
        momentum: number(golden.at("momentum")),
    };
    let (train, test) = (ids(golden.at("train")), ids(golden.at("test")));
    let results = tuned_lens::tuned_lens(&Model::bundled()?, &train, &test, &training)?;
    for name in ["losses", "bias", "matrix_norms"] {
        golden.holds(name, &results[name], TRAINED)?;
    }
    for lens in ["logit_lens", "tuned_lens"] {
        golden.holds(&format!("held_out.{lens}"), &results[&format!("held_out_{lens}")], TRAINED)?;
        golden.holds(&format!("agreement.{lens}"), &results[&format!("agreement_{lens}")], SHARES)?;
    }
    let (plain, tuned) = (&results["held_out_logit_lens"], &results["held_out_tuned_lens"]);
    for (depth, (plain, tuned)) in plain.to_vec_f64()?.into_iter().zip(tuned.to_vec_f64()?).enumerate() {
        assert!(tuned < 0.5 * plain, "the translator for depth {depth} leaves {tuned:.3} of {plain:.3}");
    }
    Ok(())
}

#[test]
fn probes_reach_what_scikit_learn_reaches_and_shuffled_labels_do_not() -> Outcome {
    let golden = Golden::read("linear_probes")?;
    let model = Model::bundled()?;
    let data = |name: &str| linear_probes::Data {
        prompts: prompts(golden.at(name)),
        labels: integers(golden.at(&format!("{name}_labels")))
            .into_iter()
            .map(|label| label as f32)
            .collect(),
    };
    let (train, test) = (data("train"), data("test"));
    for (name, shuffled) in [("probe", false), ("control", true)] {
        let training = linear_probes::Training {
            steps: integer(golden.at("steps")) as u64,
            rate: number(golden.at("rate")),
            momentum: number(golden.at("momentum")),
            decay: number(golden.at("decay")),
            shuffled,
        };
        let results = linear_probes::linear_probes(&model, &train, &test, &training)?;
        for key in ["losses", "weight", "bias"] {
            golden.holds(&format!("{name}.{key}"), &results[key], TRAINED)?;
        }
        for key in ["train_accuracy", "test_accuracy"] {
            golden.holds(&format!("{name}.{key}"), &results[key], SHARES)?;
        }
        golden.holds(&format!("{name}.scikit_learn_test_accuracy"), &results["test_accuracy"], 0.01)?;
        let last = results["test_accuracy"].to_vec_f64()?[model.layers() - 1];
        assert_eq!(last > 0.75, !shuffled, "{name}: {last} of the new prompts are right");
    }
    Ok(())
}

#[test]
fn alignment_search_finds_who_gives_and_a_random_subspace_does_not() -> Outcome {
    let golden = Golden::read("distributed_alignment_search")?;
    let model = Model::bundled()?;
    let pairs = |name: &str| -> Vec<distributed_alignment_search::Pair> {
        let pair = |row: &Value| distributed_alignment_search::Pair {
            base: text(&row["base"]["text"]).to_owned(),
            source: text(&row["source"]["text"]).to_owned(),
            answer: integer(&row["answer"]) as u32,
            wrong: integer(&row["wrong"]) as u32,
        };
        list(golden.at(name)).iter().map(pair).collect()
    };
    let (train, test) = (pairs("train"), pairs("test"));
    let steps = integer(golden.at("steps")) as u64;
    for (name, position, steps) in
        [("learned", "position", steps), ("random", "position", 0), ("elsewhere", "control_position", steps)]
    {
        let search = distributed_alignment_search::Search {
            layer: integer(golden.at("layer")) as usize,
            position: integer(golden.at(position)) as usize,
            width: integer(golden.at("width")) as usize,
            steps,
            rate: number(golden.at("rate")),
        };
        let results =
            distributed_alignment_search::distributed_alignment_search(&model, &train, &test, &search)?;
        if steps > 0 {
            golden.holds(&format!("{name}.losses"), &results["losses"], TRAINED)?;
            golden.holds(&format!("{name}.projection_diagonal"), &results["projection_diagonal"], SHARES)?;
        }
        golden.holds(&format!("{name}.margin"), &results["margin"], 2.0 * TRAINED)?;
        golden.holds_number(&format!("{name}.accuracy"), &results["accuracy"], SHARES)?;
        let follow = single(&results["accuracy"])?;
        assert!(
            if name == "learned" { follow > 0.9 } else { follow < 0.1 },
            "{name}: {follow} of the answers follow"
        );
    }
    Ok(())
}

#[test]
fn lora_learns_a_new_fact_and_other_facts_stay() -> Outcome {
    let golden = Golden::read("lora")?;
    let facts = |name: &str| -> Vec<lora::Fact> {
        let fact = |row: &Value| lora::Fact {
            prompt: text(&row["text"]).to_owned(),
            answer: integer(&row["answer"]) as u32,
        };
        list(golden.at(name)).iter().map(fact).collect()
    };
    let (train, paraphrases, untouched) = (facts("train"), facts("paraphrases"), facts("untouched"));
    let training = lora::Training {
        rank: integer(golden.at("rank")) as usize,
        alpha: number(golden.at("alpha")),
        steps: integer(golden.at("steps")) as u64,
        rate: number(golden.at("rate")),
        spread: number(golden.at("spread")),
    };
    let asked: [(&str, &[lora::Fact]); 3] =
        [("train", &train), ("paraphrases", &paraphrases), ("untouched", &untouched)];
    let city = integer(golden.at("city")) as u32;
    let model = Model::bundled()?;
    let results = lora::lora(&model, &train, &asked, city, &training)?;
    golden.holds("losses", &results["losses"], TRAINED)?;
    for name in
        ["before_paraphrases", "before_untouched", "after_train", "after_paraphrases", "after_untouched"]
    {
        golden.holds(&name.replace('_', "."), &results[name], TRAINED)?;
    }
    golden.holds("after.untouched_new_city", &results["after_untouched_new"], TRAINED)?;
    for layer in 0..model.layers() {
        for half in ["A", "B"] {
            // Adam divides by a gradient's own size: where that is next to nothing, rounding decides.
            golden.holds(
                &format!("lora_{half}.{layer}"),
                &results[&format!("trained_{half}_{layer}")],
                1e-3,
            )?;
        }
    }
    let new = integer(golden.at("new")) as usize;
    let control = lora::lora(&model, &train[new..], &asked[1..], city, &training)?;
    golden.holds("control.losses", &control["losses"], TRAINED)?;
    golden.holds("control.paraphrases", &control["after_paraphrases"], TRAINED)?;
    let share = |results: &Results, name: &str, bound: f64| -> Result<f64, Box<dyn std::error::Error>> {
        let known = results[name].to_vec_f64()?;
        Ok(known.iter().filter(|&&known| known > bound).count() as f64 / known.len() as f64)
    };
    assert_eq!(share(&results, "before_paraphrases", 0.1)?, 0.0, "the fact is new");
    assert_eq!(
        share(&results, "after_paraphrases", 0.5)?,
        1.0,
        "the fact is known in words that were not trained"
    );
    assert!(share(&results, "after_untouched", 0.5)? >= 0.95, "other facts stay");
    assert!(share(&results, "after_untouched_new", 0.5)? <= 0.05, "other places do not move to the new city");
    assert_eq!(share(&control, "after_paraphrases", 0.1)?, 0.0, "who was not told the fact does not know it");
    let losses = control["losses"].to_vec_f64()?;
    assert!(losses[losses.len() - 1] < 0.05 * losses[0], "the control learns what it is told");
    assert!(share(&control, "after_untouched", 0.5)? >= 0.95, "and spoils nothing");
    Ok(())
}

#[test]
fn soft_prompts_ask_for_what_they_were_trained_to_ask_for() -> Outcome {
    let golden = Golden::read("soft_prompts")?;
    let data = |name: &str| soft_prompts::Data {
        prompts: ids(golden.at(name)),
        answers: list(golden.at(name)).iter().map(|row| integer(&row["answer"]) as u32).collect(),
    };
    let training = soft_prompts::Training {
        tokens: integer(golden.at("tokens")) as usize,
        steps: integer(golden.at("steps")) as u64,
        rate: number(golden.at("rate")),
        spread: number(golden.at("spread")),
    };
    let results: Results =
        soft_prompts::soft_prompts(&Model::bundled()?, &data("train"), &data("test"), &training)?;
    golden.holds("losses", &results["losses"], TRAINED)?;
    golden.holds("prompt", &results["prompt"], TRAINED)?;
    golden.holds("test_probabilities", &results["test_probabilities"], TRAINED)?;
    for name in ["without", "untrained", "trained"] {
        golden.holds_number(&format!("accuracy.{name}"), &results[&format!("accuracy_{name}")], SHARES)?;
    }
    assert!(single(&results["accuracy_trained"])? > 0.9 && single(&results["accuracy_untrained"])? < 0.2);
    Ok(())
}
