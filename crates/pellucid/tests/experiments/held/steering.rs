//! Directions: found, added, taken away.

use pellucid::Model;

use crate::golden::{Golden, LOGITS, Outcome, SHARES, integer, integers, list, number, prompts, tokens};
use crate::{conditional_steering, directions, function_vectors, steering};

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

#[test]
fn directions_are_found_and_taken_away_as_in_pytorch() -> Outcome {
    let golden = Golden::read("directions")?;
    let model = Model::bundled()?;
    let layer = integer(golden.at("layer")) as usize;
    let (good, bad) = (prompts(golden.at("good")), prompts(golden.at("bad")));
    let pairs = directions::Pairs { with: &good, without: &bad, layer };
    let found = directions::read_direction(&model, &pairs)?;
    golden.holds("singular_values", &found["singular_values"], LOGITS)?;
    golden.holds("direction", &found["direction"], SHARES)?;
    golden.holds("projections", &found["projections"], LOGITS)?;
    for name in ["cosine_with_mean", "accuracy"] {
        golden.holds_number(name, &found[name], SHARES)?;
    }
    let answers = (integer(golden.at("loved")) as u32, integer(golden.at("hated")) as u32);
    let how = (layer, &found["direction"], number(golden.at("scale")));
    let seed = integer(golden.at("seed")) as u64;
    let results = directions::change_direction(&model, &prompts(golden.at("evaluated")), how, answers, seed)?;
    for name in ["baseline", "removed", "control", "added", "subtracted"] {
        golden.holds(name, &results[name], LOGITS)?;
    }
    Ok(())
}

#[test]
fn conditional_steering_steers_and_stops_where_it_does_in_pytorch() -> Outcome {
    let golden = Golden::read("conditional_steering")?;
    let model = Model::bundled()?;
    let (good, bad) = (prompts(golden.at("good")), prompts(golden.at("bad")));
    let direction =
        conditional_steering::direction(&model, &good, &bad, integer(golden.at("layer")) as usize)?;
    golden.holds("vector", &direction.vector, LOGITS)?;
    let threshold = pellucid::Tensor::from_f64(vec![direction.threshold], &[])?;
    golden.holds_number("threshold", &threshold, LOGITS)?;
    let (texts, stop) = (prompts(golden.at("prompts")), integer(golden.at("stop_token")) as u32);
    let new_tokens = integer(golden.at("new_tokens")) as usize;
    for (kind, scale) in [("baseline", 0.0), ("conditional", number(golden.at("scale")))] {
        let results = conditional_steering::steer_where_needed(
            &model,
            &texts,
            &direction,
            scale,
            stop,
            new_tokens as u64,
        )?;
        let generated = results["generated"].to_vec_i64()?;
        for (row, expected) in list(&golden.at("generated")[kind]).iter().enumerate() {
            let mut expected = integers(&expected["ids"]);
            let steps = expected.len();
            expected.resize(new_tokens, -1);
            let row_of = &generated[row * new_tokens..(row + 1) * new_tokens];
            assert_eq!(row_of, expected, "{kind}: prompt {row}");
            for name in ["projections", "ending"] {
                let by_step = results.steps(name);
                let mut of_row = Vec::new();
                for value in &by_step[..steps] {
                    of_row.push(value.to_vec_f32()?[row]);
                }
                let of_row = pellucid::Tensor::from_f32(of_row, &[steps])?;
                golden.holds(&format!("{kind}.{name}.{row}"), &of_row, LOGITS)?;
            }
        }
    }
    Ok(())
}
