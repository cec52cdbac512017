//! `pellucid generate`.

use std::io::Write;
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};

use pellucid::{Generation, Model, RunOptions};
use serde::Serialize;

use crate::arguments::Generate;
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::models;

/// Bytes of a prompt that comes by standard input: as many characters as a prompt may have.
const PROMPT_BYTES: usize = 4 * pellucid::limits::PROMPT_CHARACTERS;

/// A generation that is done.
#[derive(Serialize)]
struct Generated {
    model: String,
    prompt: String,
    text: String,
    tokens: Vec<u32>,
    seed: u64,
    seconds: f64,
}

/// Continues a prompt; the text is written as it comes.
pub(crate) fn generate(generate: &Generate, out: &mut dyn Write) -> Result<(), Failure> {
    let interrupt = Interrupt::listen()?;
    let prompt = match generate.prompt.as_str() {
        "-" => String::from_utf8_lossy(&super::read_input("-", PROMPT_BYTES)?).into_owned(),
        prompt => prompt.to_owned(),
    };
    let model = models::open(&generate.model, &generate.choices)?;
    let tokens = if generate.chat { model.encode_chat(&prompt)? } else { model.encode(&prompt)? };

    let trace = model.trace();
    trace.seed(generate.seed);
    trace.generate(generation(generate));
    trace.invoke_tokens([&tokens]).generated().save("generated");

    let mut program = trace.program()?;
    // What is wrong is in the command's arguments, not in a line of ours.
    program.nodes.iter_mut().for_each(|node| node.source = None);
    let program = model.check(program)?;

    let (sender, receiver) = mpsc::channel();
    let cancel = interrupt.run();
    let options = RunOptions {
        cancel: Some(cancel.clone()),
        on_token: Some(Arc::new(move |generated| {
            // Nobody listens any more when the output is closed.
            let _ = sender.send(generated.token);
        })),
        ..RunOptions::default()
    };
    let (model, program) = (&model, &program);
    let results = std::thread::scope(|scope| {
        // The sender goes with the options: the text ends when the run does.
        let run = scope.spawn(move || model.run(program, &options));
        let written = if generate.json { Ok(()) } else { stream(model, &tokens, receiver, out) };
        if written.is_err() {
            cancel.store(true, Ordering::SeqCst);
        }
        let results = run.join().map_err(|_| Failure::Message("the engine panicked".to_owned()))?;
        written.and(results.map_err(Failure::from))
    })?;
    if generate.json {
        let made = results.get("generated")?.to_vec_i64()?;
        let made: Vec<u32> = made.into_iter().filter_map(|token| u32::try_from(token).ok()).collect();
        let text = model.tokenizer()?.decode(&made, true).map_err(pellucid::Error::from)?;
        let (name, seconds) = (model.name().to_owned(), results.report().seconds);
        return super::write_json(
            &Generated { model: name, prompt, text, tokens: made, seed: generate.seed, seconds },
            out,
        );
    }
    Ok(())
}

fn generation(generate: &Generate) -> Generation {
    let mut generation = Generation::new(generate.max_new_tokens)
        .temperature(generate.temperature)
        .repetition_penalty(generate.repetition_penalty);
    if let Some(tokens) = generate.top_k {
        generation = generation.top_k(tokens);
    }
    if let Some(probability) = generate.top_p {
        generation = generation.top_p(probability);
    }
    generate.stop.iter().fold(generation, |generation, text| generation.stop_text(text))
}

/// Writes the text of tokens as they come, until no more do.
fn stream(
    model: &Model,
    prompt: &[u32],
    tokens: mpsc::Receiver<u32>,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let tokenizer = model.tokenizer()?;
    let mut decoder = tokenizer.stream(prompt, true);
    for token in tokens {
        if let Some(text) = decoder.push(token).map_err(pellucid::Error::from)? {
            write!(out, "{text}")?;
            out.flush()?;
        }
    }
    writeln!(out, "{}", decoder.finish().map_err(pellucid::Error::from)?.unwrap_or_default())?;
    Ok(())
}
