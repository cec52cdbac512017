//! Directions: found, added, taken away.

use pellucid::Model;

use crate::golden::{Golden, LOGITS, Outcome, SHARES, integer, integers, prompts, tokens};
use crate::{function_vectors, steering};

#[test]
fn steering_turns_the_review_as_in_pytorch() -> Outcome {
    let golden = Golden::read("steering")?;
    let model = Model::bundled()?;
    let (positive, negative) = (prompts(golden.at("positive")), prompts(golden.at("negative")));
    let built = steering::steering_vector(&model, &positive, &negative)?;
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
fn function_vectors_ask_for_what_they_ask_for_in_pytorch() -> Outcome {
    let golden = Golden::read("function_vectors")?;
    let model = Model::bundled()?;
    let relations = ["capital", "language"];
    let of = |relation: &str, key: &str| golden.at("relations")[relation][key].clone();
    let test_answers: Vec<_> =
        relations.iter().map(|relation| tokens(&of(relation, "test_answers"))).collect();
    for relation in relations {
        let examples = function_vectors::Examples {
            clear: prompts(&of(relation, "prompts")),
            confused: prompts(&of(relation, "confused")),
            answers: tokens(&of(relation, "answers")),
        };
        let found = function_vectors::function_vector(&model, &examples, integer(golden.at("top")))?;
        let confused = "confused_probability";
        golden.holds_number(&format!("{relation}.{confused}"), &found[confused], SHARES)?;
        golden.holds(&format!("{relation}.effect"), &found["effect"], SHARES)?;
        golden.holds_exactly(&format!("{relation}.heads"), &found["heads"])?;
        golden.holds(&format!("{relation}.vector"), &found["vector"], SHARES)?;
        let asked =
            function_vectors::ask(&model, &prompts(golden.at("test")), &found["vector"], &test_answers)?;
        golden.holds(&format!("{relation}.probability"), &asked["probability"], SHARES)?;
    }
    Ok(())
}
