//! Several models in one session.

use std::sync::Arc;

use super::{engine, numbers, refusal, run, tensor, trace};

const ONE: &str = r#"{"name":"p","tokens":[[3,1,4,1,5]]}"#;
const LOGITS: &str = r#"{"op":"get","name":"l","hook":"logits"},{"op":"save","name":"logits","value":"l"}"#;

#[test]
fn traces_run_on_the_model_that_they_name_and_values_flow_between() {
    let (student, teacher) = (engine("gpt2"), engine("llama3"));
    let teacher_model = Arc::clone(teacher.model());
    let both = student.share().with_model("teacher", teacher_model);
    let own = run(&student, &trace(ONE, "", LOGITS));
    let taught = run(&teacher, &trace(ONE, "", LOGITS));

    // Each on its own; then the student's stream moved by a number that the teacher computed.
    let on_teacher = trace(
        ONE,
        r#""model":"teacher","#,
        r#"{"op":"get","name":"t","hook":"logits"},{"op":"save","name":"taught","value":"t"},
        {"op":"mean","name":"m","input":"t"},
        {"op":"weight","name":"w","parameter":"model.norm.weight"},{"op":"save","name":"weight","value":"w"}"#,
    );
    let on_student = trace(
        ONE,
        "",
        r#"{"op":"get","name":"l","hook":"logits"},{"op":"save","name":"logits","value":"l"},
        {"op":"get","name":"h","invoke":"p","hook":"layers.1.output"},
        {"op":"add","name":"n","input":"h","other":"m"},{"op":"save","name":"moved","value":"n"}"#,
    );
    let results = run(&both, &format!("{on_teacher},{on_student}"));
    assert!(tensor(&results, "taught").is_same_bits(tensor(&taught, "logits")));
    assert!(tensor(&results, "logits").is_same_bits(tensor(&own, "logits")));
    let weight = teacher.model().parameter("model.norm.weight").unwrap().to_f32();
    assert_eq!(tensor(&results, "weight").to_vec_f32().unwrap(), weight);
    assert_eq!(numbers(&results, "moved").len(), 5 * student.model().spec().sizes.hidden as usize);
    assert_eq!(results.provenance.others[0].name, "teacher");
    assert_eq!(results.provenance.others[0].model, teacher.model().spec().name);
}

#[test]
fn each_trace_is_checked_against_its_own_model() {
    let both = engine("gpt2").with_model("teacher", Arc::clone(engine("llama3").model()));
    // A path of the one model on the other.
    let nodes =
        r#"{"op":"get","name":"l","hook":"transformer.h.1.output"},{"op":"save","name":"s","value":"l"}"#;
    run(&both, &trace(ONE, "", nodes));
    let message = refusal(&both, &trace(ONE, r#""model":"teacher","#, nodes));
    assert!(message.contains("has no hook point `transformer.h.1.output`"), "{message}");
    let message = refusal(&both, &trace(ONE, r#""model":"techer","#, LOGITS));
    assert!(message.contains("no model is loaded as `techer`"), "{message}");
    assert!(message.contains("did you mean `teacher`?"), "{message}");
    let message = refusal(&engine("gpt2"), &trace(ONE, r#""model":"teacher","#, LOGITS));
    assert!(message.contains("only one model is loaded"), "{message}");
}

#[test]
fn programs_together_run_each_on_its_own_models() {
    use pellucid_engine::RunOptions;
    let both = engine("gpt2").with_model("teacher", Arc::clone(engine("llama3").model()));
    let on_teacher = trace(ONE, r#""model":"teacher","#, LOGITS);
    let bodies = [on_teacher.clone(), trace(ONE, "", LOGITS), on_teacher];
    let checked: Vec<_> = bodies.iter().map(|body| super::check(&both, body)).collect();
    let options = RunOptions::default();
    let programs: Vec<_> = checked.iter().map(|checked| (checked, &options)).collect();
    for (checked, together) in checked.iter().zip(both.run_together(&programs)) {
        let alone = both.run(checked, &options).unwrap();
        super::assert_same(&alone, &together.unwrap(), "together");
    }
}
