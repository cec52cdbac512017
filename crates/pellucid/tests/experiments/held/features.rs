//! Features of sparse autoencoders.

use std::path::Path;

use pellucid::Model;

use crate::golden::{Golden, LOGITS, Outcome, SHARES, integer, text};
use crate::sparse_autoencoder;

#[test]
fn features_do_what_they_do_in_pytorch() -> Outcome {
    let golden = Golden::read("sparse_autoencoder")?;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(text(golden.at("autoencoder")));
    let autoencoder = sparse_autoencoder::Autoencoder::open(&folder)?;
    let answers = (integer(golden.at("answer")) as u32, integer(golden.at("wrong")) as u32);
    let (prompt, top) = (golden.prompt("prompt"), integer(golden.at("top")));
    let results =
        sparse_autoencoder::sparse_autoencoder(&Model::bundled()?, &autoencoder, &prompt, answers, 2, top)?;
    golden.holds_exactly("top_features", &results["top_features"])?;
    golden.holds_number("active", &results["active"], 0.0)?;
    for name in ["features", "top_activations", "unexplained"] {
        golden.holds(name, &results[name], SHARES)?;
    }
    for name in ["ablated", "attribution", "with_error_logits"] {
        golden.holds(name, &results[name], LOGITS)?;
    }
    golden.holds_number("difference", &results["difference"], LOGITS)?;
    golden.holds_number("kl_without_error", &results["kl_without_error"], SHARES)
}
