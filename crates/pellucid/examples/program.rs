//! An experiment is data: write it down, look at its plan and price, send it elsewhere, run it there.

use pellucid::{Model, Program, Result, RunOptions, s};

fn main() -> Result<()> {
    let model = Model::bundled()?;
    let trace = model.trace();
    let prompt = trace.invoke("Mary has the hat");
    prompt.layer(0).mlp().edit_output(|output| output * 0.0);
    prompt.layer(2).output().index(s![.., -1]).norm(-1).save("norm");

    let text = trace.program()?.to_json_pretty();
    println!("{text}\n");

    // Elsewhere: the text is read, checked against the model, priced, and run.
    let program = Program::from_json(text.as_bytes())?;
    let checked = model.check(program)?;
    println!("{}", model.explain(&checked)?);
    let results = model.run(&checked, &RunOptions::default())?;
    println!("norm: {:?}", results["norm"].to_vec_f32()?);
    Ok(())
}
