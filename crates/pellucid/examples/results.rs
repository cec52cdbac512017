//! Results are tensors: use them, save them as safetensors, bring them into the next program.

use pellucid::{Model, Result, s};

fn main() -> Result<()> {
    let model = Model::bundled()?;
    let trace = model.trace();
    let prompts = trace.invoke(["The capital of France is", "The capital of Japan is"]);
    prompts.layer(3).output().index(s![.., -1]).save("states"); // [prompts, hidden]
    let results = trace.run()?;

    let states = &results["states"];
    println!("{} {:?}: {:?} …", states.dtype(), states.shape(), &states.to_vec_f32()?[..3]);
    let path = std::env::temp_dir().join("states.safetensors");
    results.save(&path)?;
    println!("saved to {}, made by {:?}", path.display(), results.provenance());

    // A tensor goes into another program as a constant, bit for bit.
    let next = model.trace();
    let prompt = next.invoke("The capital of Japan is");
    let distance = next.constant(states) - prompt.layer(3).output().index(s![0, -1]);
    distance.norm(-1).save("distance");
    println!("distances: {:?}", next.run()?["distance"].to_vec_f32()?);
    Ok(())
}
