//! Bounds, cancellation, and values that are streamed while a program runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pellucid::{EngineError, Error, Model, Result, RunOptions};

fn main() -> Result<()> {
    let model = Model::bundled()?;
    let trace = model.trace();
    let prompt = trace.invoke("The capital of France is");
    for layer in 0..model.layers() {
        prompt.layer(layer).output().norm(-1).log(&format!("norm_{layer}"));
    }
    prompt.logits().save("logits");

    // Logged values arrive while the model is still running: time enough to change one's mind.
    let cancel = Arc::new(AtomicBool::new(false));
    let stop = cancel.clone();
    let options = RunOptions {
        cancel: Some(cancel),
        seconds: Some(10.0),
        memory_bytes: Some(64 << 20),
        on_log: Some(Arc::new(move |entry| {
            println!("{}: {:?}", entry.name, entry.value.shape());
            stop.store(entry.name == "norm_1", Ordering::SeqCst);
        })),
        ..RunOptions::default()
    };
    match trace.run_with(&options) {
        Err(Error::Run(failure)) if failure.error == EngineError::Cancelled => {
            println!("cancelled after layer 1")
        }
        other => println!("{:?}", other?.names().collect::<Vec<_>>()),
    }
    Ok(())
}
