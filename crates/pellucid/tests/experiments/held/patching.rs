//! Values of one run put into another.

use pellucid::{Model, Tensor};

use crate::golden::{Golden, LOGITS, Outcome, SHARES, integer, integers, list, number, text};
use crate::{activation_patching, causal_tracing, patchscopes, path_patching};

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
        let generated = list(&definition["generated_ids"]).iter().flat_map(list).flat_map(integers);
        assert_eq!(results["generated"].to_vec_i64()?, generated.collect::<Vec<_>>(), "{case}");
        let best: Vec<usize> = integers(&definition["best"]).iter().map(|&layer| layer as usize).collect();
        let mut logits = Vec::new();
        for step in results.steps("logits") {
            let shape = step.shape();
            let (layers, vocabulary) = (shape[1], shape[2]);
            let from = (best[0] * layers + best[1]) * vocabulary;
            logits
                .push(Tensor::from_f32(step.to_vec_f32()?[from..from + vocabulary].to_vec(), &[vocabulary])?);
        }
        golden.holds_rows(&format!("{case}.best_logits"), &logits.iter().collect::<Vec<_>>(), LOGITS)?;
    }
    Ok(())
}

#[test]
fn path_patching_finds_who_speaks_to_whom_as_pytorch_does() -> Outcome {
    let golden = Golden::read("path_patching")?;
    let answers = (integer(golden.at("answer")) as u32, integer(golden.at("wrong")) as u32);
    let results = path_patching::path_patching(
        &Model::bundled()?,
        &golden.prompt("clean"),
        &golden.prompt("corrupted"),
        answers,
        integer(golden.at("receiving_layer")) as usize,
    )?;
    for name in ["clean_difference", "corrupted_difference"] {
        golden.holds_number(name, &results[name], LOGITS)?;
    }
    for receiver in ["logits", "query", "key", "value"] {
        for senders in ["heads", "mlps"] {
            golden.holds(
                &format!("{receiver}.{senders}"),
                &results[&format!("{receiver}_{senders}")],
                SHARES,
            )?;
        }
    }
    Ok(())
}

#[test]
fn causal_tracing_restores_what_it_restores_in_pytorch() -> Outcome {
    let golden = Golden::read("causal_tracing")?;
    let (prompt, subject) = (golden.prompt("prompt"), integers(golden.at("subject")));
    let tracing = causal_tracing::Tracing {
        prompt: &prompt,
        subject: subject[0] as usize..subject[0] as usize + subject.len(),
        answer: integer(golden.at("answer")) as u32,
        scale: number(golden.at("scale")),
        samples: integer(golden.at("samples")) as usize,
    };
    let seed = integer(golden.at("seed")) as u64;
    let results = causal_tracing::causal_tracing(&Model::bundled()?, &tracing, seed)?;
    for name in ["clean_probability", "noised_probability"] {
        golden.holds_number(name, &results[name], SHARES)?;
    }
    for name in ["noised_probabilities", "residual", "attention", "mlp"] {
        golden.holds(name, &results[name], SHARES)?;
    }
    Ok(())
}
