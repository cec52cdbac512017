//! Parts cut, ablated, and found by what they look at.

use pellucid::Model;

use crate::golden::{Golden, LOGITS, Outcome, SHARES, integer, integers, list, text, texts};
use crate::{ablation, attention_knockout, induction_heads};

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
