//! What the residual stream says on its way.

use pellucid::Model;

use crate::golden::{Golden, LOGITS, Outcome, SHARES, integer, text};
use crate::logit_lens;

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
