//! Sparse autoencoders: what does a hidden state say, in features?
//!
//! A layer's input is taken apart into features and an error, and put together again: `decode(features) + error`. Spliced in like
//! that it changes nothing, so that what happens when one feature is set to 0 is that feature's doing. One backward pass
//! gives the same for all features to first order.

use std::error::Error;
use std::path::Path;

use pellucid::picture::HeatMap;
use pellucid::{Axis, DType, Invoke, Model, Results, Tensor, Trace, Value, s};
use safetensors::SafeTensors;

/// An autoencoder in SAELens' layout: `relu((x − b_dec) W_enc + b_enc)` are its features.
pub struct Autoencoder {
    encoder: Tensor,
    encoder_bias: Tensor,
    decoder: Tensor,
    decoder_bias: Tensor,
}

/// The same inside a trace.
struct Dictionary([Value; 4]);

impl Autoencoder {
    /// Opens `sae_weights.safetensors` of a folder.
    pub fn open(folder: &Path) -> Result<Autoencoder, Box<dyn Error>> {
        let bytes = std::fs::read(folder.join("sae_weights.safetensors"))?;
        let file = SafeTensors::deserialize(&bytes)?;
        let tensor = |name: &str| -> Result<Tensor, Box<dyn Error>> {
            let view = file.tensor(name)?;
            Ok(Tensor::from_bytes(view.data(), view.shape(), DType::F32)?)
        };
        Ok(Autoencoder {
            encoder: tensor("W_enc")?,
            encoder_bias: tensor("b_enc")?,
            decoder: tensor("W_dec")?,
            decoder_bias: tensor("b_dec")?,
        })
    }

    fn within(&self, trace: &Trace) -> Dictionary {
        let parts = [&self.encoder, &self.encoder_bias, &self.decoder, &self.decoder_bias];
        Dictionary(parts.map(|part| trace.constant(part)))
    }
}

impl Dictionary {
    /// The features of states, `[…, features]`.
    fn encode(&self, states: &Value) -> Value {
        let [encoder, encoder_bias, _, decoder_bias] = &self.0;
        ((states - decoder_bias).matmul(encoder) + encoder_bias).relu()
    }

    /// The states that features stand for, `[…, hidden]`.
    fn decode(&self, features: &Value) -> Value {
        let [_, _, decoder, decoder_bias] = &self.0;
        features.matmul(decoder) + decoder_bias
    }
}

/// Of a layer's input, at the last position, saves the `features`, `[features]`, the `top` strongest (`top_features`,
/// `top_activations`) and how many are `active`; and of the difference of the two answers' logits (`difference`) its change when
/// one of the strongest is 0 (`ablated`, `[top]`), and the same to first order for every feature (`attribution`). Further, with the
/// autoencoder spliced in, the logits with its error (`with_error_logits`), the divergence without it (`kl_without_error`), and the
/// share of each position's square that the error has (`unexplained`).
pub fn sparse_autoencoder(
    model: &Model,
    autoencoder: &Autoencoder,
    prompt: &str,
    (answer, wrong): (u32, u32),
    layer: usize,
    top: i64,
) -> pellucid::Result<Results> {
    let trace = model.trace();
    let dictionary = autoencoder.within(&trace);
    let plain = trace.invoke(prompt);
    let states = plain.layer(layer).input(); // [1, length, hidden]
    let features = dictionary.encode(&states);
    let error = &states - dictionary.decode(&features);
    let logits = |run: &Invoke| run.logits().index(s![0, -1]);
    let difference = |run: &Invoke| {
        let logits = logits(run);
        logits.index(s![i64::from(answer)]) - logits.index(s![i64::from(wrong)])
    };
    let base = difference(&plain);
    base.save("difference");
    let last = features.index(s![0, -1]);
    let (top_activations, top_features) = last.topk(top, 0);
    last.save("features");
    top_features.save("top_features");
    top_activations.save("top_activations");
    last.gt(0.0).sum(..).save("active");
    (error.pow(2i64).sum(-1) / states.pow(2i64).sum(-1)).index(s![0]).save("unexplained");

    // Each of the strongest set to 0, in a run of its own. Which they are is known only when the program runs.
    let ablated = trace.sweep(Axis::new("feature", &top_features), |cell| {
        let run = cell.invoke(prompt);
        let found = dictionary.encode(&run.layer(layer).input());
        let without = found.index_put(s![.., -1, cell.value("feature")], 0.0);
        run.layer(layer).set_input(&(dictionary.decode(&without) + &error));
        difference(&run) - &base
    });
    ablated.save("ablated");

    let spliced = trace.invoke(prompt);
    let found = dictionary.encode(&spliced.layer(layer).input());
    spliced.layer(layer).set_input(&(dictionary.decode(&found) + &error));
    logits(&spliced).save("with_error_logits");
    let back = trace.backward(&difference(&spliced));
    (-(back.grad(&found) * &found)).index(s![0, -1]).save("attribution");

    let without_error = trace.invoke(prompt);
    let found = dictionary.encode(&without_error.layer(layer).input());
    without_error.layer(layer).set_input(&dictionary.decode(&found));
    let (clean, spliced) = (logits(&plain), logits(&without_error));
    let divergence = clean.softmax(-1) * (clean.log_softmax(-1) - spliced.log_softmax(-1));
    divergence.sum(-1).save("kl_without_error");
    trace.run()
}

#[allow(dead_code, reason = "the tests use this file as a module")]
fn main() -> Result<(), Box<dyn Error>> {
    let model = Model::bundled()?;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/tiny-gpt2/sae");
    let autoencoder = Autoencoder::open(&folder)?;
    let answers = (model.token(" hated")?, model.token(" loved")?);
    let results = sparse_autoencoder(&model, &autoencoder, "The movie was awful. I", answers, 2, 8)?;
    println!(
        "{} features are active; without the error the KL is {:.3}",
        results["active"].to_vec_i64()?[0],
        results["kl_without_error"].to_vec_f32()?[0]
    );
    let features = results["top_features"].to_vec_i64()?;
    let (activations, ablated) = (results["top_activations"].to_vec_f32()?, results["ablated"].to_vec_f32()?);
    let attribution = results["attribution"].to_vec_f32()?;
    let rows = features.iter().zip(activations).zip(ablated);
    let rows = rows
        .flat_map(|((&feature, activation), ablated)| [activation, ablated, attribution[feature as usize]]);
    let rows = Tensor::from_f32(rows.collect(), &[features.len(), 3])?;
    let title =
        "The strongest features, and the change of the logit of hated less that of loved without each";
    let columns = ["active", "change", "1st ord"];
    let names = features.iter().map(|feature| format!("feature {feature}"));
    println!("\n{}", HeatMap::new(title, names, columns, &rows)?.full_at_largest());
    Ok(())
}
