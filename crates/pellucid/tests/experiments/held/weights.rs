//! What is in the weights, and what a changed one does.

use pellucid::Model;
use serde_json::Value;

use crate::golden::{Golden, LOGITS, Outcome, integer, list, number, text, tokens};
use crate::{direct_logit_attribution, rank_one_edit};

#[test]
fn parts_have_the_share_in_the_logits_that_they_have_in_pytorch() -> Outcome {
    let golden = Golden::read("direct_logit_attribution")?;
    let answers = (integer(golden.at("answer")) as u32, integer(golden.at("wrong")) as u32);
    let model = Model::bundled()?;
    let results =
        direct_logit_attribution::direct_logit_attribution(&model, &golden.prompt("prompt"), answers)?;
    for name in ["difference", "scale", "token", "position", "norm_bias"] {
        golden.holds_number(name, &results[name], LOGITS)?;
    }
    for name in ["heads", "attention_biases", "mlps"] {
        golden.holds(name, &results[name], LOGITS)?;
    }
    Ok(())
}

#[test]
fn a_rank_one_edit_moves_one_fact_and_few_others() -> Outcome {
    let golden = Golden::read("rank_one_edit")?;
    let corpus: Vec<Vec<u32>> = list(golden.at("documents")).iter().map(tokens).collect();
    let prompt = golden.prompt("prompt");
    let edit = rank_one_edit::Edit {
        prompt: &prompt,
        position: integer(golden.at("position")) as usize,
        answer: integer(golden.at("answer")) as u32,
        layer: integer(golden.at("layer")) as usize,
        corpus: &corpus,
        ridge: number(golden.at("ridge")),
        steps: integer(golden.at("steps")) as u64,
        rate: number(golden.at("rate")),
        decay: number(golden.at("decay")),
    };
    let facts = |rows: &[Value]| -> Vec<rank_one_edit::Fact> {
        let fact = |row: &Value| rank_one_edit::Fact {
            prompt: text(&row["text"]).to_owned(),
            answer: integer(&row["answer"]) as u32,
        };
        rows.iter().map(fact).collect()
    };
    let subject = vec![rank_one_edit::Fact { prompt: prompt.clone(), answer: edit.answer }];
    let (paraphrases, others) = (facts(list(golden.at("paraphrases"))), facts(list(golden.at("others"))));
    let asked: [(&str, &[rank_one_edit::Fact]); 3] =
        [("prompt", &subject), ("paraphrases", &paraphrases), ("others", &others)];
    let results = rank_one_edit::rank_one_edit(&Model::bundled()?, &edit, &asked)?;
    for name in ["losses", "key", "change", "direction"] {
        golden.holds(name, &results[name], LOGITS)?;
    }
    for when in ["before", "after"] {
        for (name, _) in asked {
            golden.holds(&format!("{when}.{name}"), &results[&format!("{when}_{name}")], LOGITS)?;
        }
    }
    let known = |name: &str| -> Result<usize, Box<dyn std::error::Error>> {
        Ok(results[name].to_vec_f64()?.into_iter().filter(|&known| known > 0.5).count())
    };
    assert_eq!((known("before_paraphrases")?, known("after_paraphrases")?), (0, paraphrases.len()));
    assert!(known("after_others")? + 1 >= others.len(), "other landmarks stay where they are");
    Ok(())
}
