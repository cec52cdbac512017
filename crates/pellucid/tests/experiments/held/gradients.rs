//! What gradients say, and what is done to them on their way back.

use pellucid::Model;

use crate::golden::{Golden, LOGITS, Outcome, SHARES, integer, list, number, text, texts};
use crate::{attribution_patching, edge_attribution, gradient_surgery};

/// Gradients of a difference of logits, which go up to about 50.
const GRADIENTS: f64 = 3e-4;

fn answers(golden: &Golden) -> (u32, u32) {
    (integer(golden.at("answer")) as u32, integer(golden.at("wrong")) as u32)
}

#[test]
fn attribution_patching_estimates_what_it_estimates_in_pytorch() -> Outcome {
    let golden = Golden::read("attribution_patching")?;
    let (clean, corrupted) = (golden.prompt("clean"), golden.prompt("corrupted"));
    let model = Model::bundled()?;
    let results = attribution_patching::attribution_patching(&model, &clean, &corrupted, answers(&golden))?;
    for (name, _) in attribution_patching::PARTS {
        golden.holds(name, &results[name], SHARES)?;
    }
    golden.holds("residual.gradient", &results["gradient"], GRADIENTS)
}

#[test]
fn edges_have_the_scores_that_they_have_in_pytorch() -> Outcome {
    let golden = Golden::read("edge_attribution")?;
    let model = Model::bundled()?;
    let (clean, corrupted) = (golden.prompt("clean"), golden.prompt("corrupted"));
    let circuit = edge_attribution::Circuit {
        clean: &clean,
        corrupted: &corrupted,
        answers: answers(&golden),
        steps: integer(golden.at("steps")) as u32,
    };
    assert_eq!(texts(golden.at("senders")), edge_attribution::senders(&model));
    assert_eq!(texts(golden.at("receivers")), edge_attribution::receivers(&model));
    let results = edge_attribution::edge_attribution(&model, &circuit)?;
    for name in ["eap", "integrated"] {
        golden.holds(name, &results[name], LOGITS)?;
    }
    for name in ["clean_difference", "corrupted_kl"] {
        golden.holds_number(name, &results[name], LOGITS)?;
    }
    Ok(())
}

#[test]
fn gradients_go_on_as_they_were_written() -> Outcome {
    let golden = Golden::read("gradient_surgery")?;
    let model = Model::bundled()?;
    for (name, cuts) in golden.at("surgery").as_object().into_iter().flatten() {
        let cut = |cut: &serde_json::Value| gradient_surgery::Cut {
            hook: text(&cut["hook_point"]).to_owned(),
            factor: number(&cut["factor"]),
        };
        let cuts: Vec<_> = list(cuts).iter().map(cut).collect();
        let results =
            gradient_surgery::gradient_surgery(&model, &golden.prompt("prompt"), answers(&golden), &cuts)?;
        golden.holds(&format!("{name}.embeddings"), &results["embeddings"], GRADIENTS)?;
        golden.holds(&format!("{name}.norms"), &results["norms"], GRADIENTS)?;
        golden.holds_number("difference", &results["difference"], LOGITS)?;
    }
    Ok(())
}
