//! The command line. Its doc comments are its help.

mod numbers;
mod remote;

use std::path::PathBuf;

pub(crate) use remote::{Cancel, Jobs, Login, RemoteChoice, State, Status};

use clap::builder::styling::{AnsiColor, Styles};
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::serving::arguments::{ConfigCommand, KeysCommand, Serve, Usage};

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

const AFTER_HELP: &str = "\
Examples:
  pellucid demo
  pellucid lens bundled \"The Eiffel Tower is in the city of\"
  pellucid generate HuggingFaceTB/SmolLM2-135M-Instruct \"What is gravity?\" --chat
  pellucid run examples/patching.json -o results.safetensors
  pellucid run examples/patching.json --remote https://models.example.org

A model is `bundled` (the small one inside this program), a Hugging Face folder, a .gguf file,
or a hub id (`owner/name`, `owner/name@revision`), which is downloaded once.

Exit codes: 0 done; 1 failed; 2 the command line was not understood; 3 the program is wrong and
was not run; 130 interrupted.";

/// Look into neural networks, and intervene in them
#[derive(Debug, Parser)]
#[command(name = "pellucid", version, styles = STYLES, after_help = AFTER_HELP, max_term_width = 110)]
pub(crate) struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// See where a model keeps a fact: activation patching on the bundled model, as a picture
    ///
    /// Two prompts differ in one word. Each part of the clean prompt's residual stream is put into the corrupted
    /// prompt's run, for every layer and position, and the picture shows how much of the right answer each one brings
    /// back. It is drawn in the terminal and written as a web page that needs no network.
    #[command(
        after_help = "Examples:\n  pellucid demo\n  pellucid demo --html /tmp/demo.html\n  pellucid demo --json | jq .restored"
    )]
    Demo(Demo),

    /// Run a program, and summarise what it saves
    ///
    /// A program is an experiment as JSON (or the same inside a safetensors file, when it carries constants).
    ///
    /// With --remote it runs at a service, on a model that the service holds, with the same results. The key is the one that
    /// `pellucid login` keeps, or PELLUCID_API_KEY.
    #[command(
        after_help = "Examples:\n  pellucid run examples/patching.json\n  pellucid run experiment.json --model ./gpt2 -o results.safetensors\n  pellucid run experiment.json --remote https://models.example.org --model openai-community/gpt2\n  pellucid run - < experiment.json"
    )]
    Run(Run),

    /// Show what a program would compute, where, and at what price
    ///
    /// Passes, who rides in each, which rows invokes have in common and where each leaves them, beside what every invoke by
    /// itself would cost. Nothing runs, unless --analyze asks for it.
    #[command(
        after_help = "Examples:\n  pellucid explain examples/patching.json\n  pellucid explain examples/patching.json --analyze\n  pellucid explain examples/patching.json --html plan.html"
    )]
    Explain(Explain),

    /// Look at models
    Models {
        /// What to do
        #[command(subcommand)]
        command: ModelsCommand,
    },

    /// The logit lens: what the model would say if it stopped at each layer
    ///
    /// The final norm and the unembedding are applied to the residual stream after every layer, at every position.
    #[command(
        after_help = "Examples:\n  pellucid lens bundled \"The Eiffel Tower is in the city of\"\n  pellucid lens ./gpt2 \"The capital of France is\" --top 3"
    )]
    Lens(Lens),

    /// Continue a prompt, token by token
    #[command(
        after_help = "Examples:\n  pellucid generate bundled \"The movie was awful. I\"\n  pellucid generate smollm2.gguf \"Why is the sky blue?\" --chat --temperature 0.7 --seed 1"
    )]
    Generate(Generate),

    /// Show one's jobs at a service, or one of them
    #[command(
        after_help = "Examples:\n  pellucid jobs\n  pellucid jobs --state running\n  pellucid jobs job_4cn2… -o results.safetensors"
    )]
    Jobs(Jobs),

    /// Cancel jobs at a service
    #[command(after_help = "Examples:\n  pellucid cancel job_4cn2…\n  pellucid cancel job_4cn2… --erase")]
    Cancel(Cancel),

    /// Show how a service is: its models, its queue, and what one may use
    #[command(after_help = "Example:\n  pellucid status --remote https://models.example.org")]
    Status(Status),

    /// Keep the key for a service
    ///
    /// The key is asked for, or read from standard input, tried, and kept in the configuration file, which only you can
    /// read. PELLUCID_API_KEY goes before it.
    #[command(
        after_help = "Examples:\n  pellucid login https://models.example.org\n  pellucid login https://models.example.org < key.txt\n  pellucid login --remove"
    )]
    Login(Login),

    /// Serve models to many people: submitted programs are checked, priced, queued and run
    ///
    /// Without a configuration it serves the bundled model on loopback. Ctrl-C or SIGTERM ends it in order: no new jobs
    /// are taken, and what runs is brought to its end or put back for the next start.
    #[command(
        after_help = "Examples:\n  pellucid serve --open\n  pellucid serve --config pellucid.toml\n  pellucid serve --listen 0.0.0.0:8460 --set server.certificate=cert.pem --set server.private_key=key.pem"
    )]
    Serve(Serve),

    /// Make, list and revoke keys of the service
    Keys {
        /// What to do
        #[command(subcommand)]
        command: KeysCommand,
    },

    /// What the service's accounts used, day by day
    Usage(Usage),

    /// Check the service's configuration, or show one with everything explained
    Config {
        /// What to do
        #[command(subcommand)]
        command: ConfigCommand,
    },

    /// Completions for a shell, on standard output
    #[command(
        after_help = "Example:\n  pellucid completions bash > ~/.local/share/bash-completion/completions/pellucid"
    )]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ModelsCommand {
    /// Show a model's modules with their hook points, shapes and parameter counts
    ///
    /// Blocks that are alike are shown once, unless all are asked for.
    #[command(
        after_help = "Examples:\n  pellucid models show bundled\n  pellucid models show ./gpt2 --all\n  pellucid models show gpt2.gguf --json"
    )]
    Show(Show),
}

/// How a model is opened.
#[derive(Debug, Args)]
pub(crate) struct ModelChoices {
    /// Number type of the weights: f32, bf16 for half the size, quantised for a GGUF file's own
    #[arg(long, value_enum, default_value_t = NumberType::F32, env = "PELLUCID_DTYPE", hide_env_values = true)]
    pub(crate) dtype: NumberType,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum NumberType {
    /// 32-bit IEEE 754
    F32,
    /// The upper half of an f32
    Bf16,
    /// A GGUF file's own blocks: the results of f32 in less memory
    Quantised,
}

#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// Where to write the page
    #[arg(long, value_name = "PATH", default_value = "pellucid-demo.html")]
    pub(crate) html: PathBuf,

    /// Write the numbers as JSON to standard output, and neither picture
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) remote: RemoteChoice,
}

/// A program, and the model that it is for.
#[derive(Debug, Args)]
pub(crate) struct ProgramChoice {
    /// The program's file; `-` for standard input
    pub(crate) program: String,

    /// The model [default: the one that the program names, else the bundled one]
    ///
    /// NAME=MODEL, as often as needed, loads one beside it, which traces call by that name.
    #[arg(long, short, value_name = "MODEL", env = "PELLUCID_MODEL", hide_env_values = true)]
    pub(crate) model: Vec<String>,

    #[command(flatten)]
    pub(crate) choices: ModelChoices,

    #[command(flatten)]
    pub(crate) remote: RemoteChoice,
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    #[command(flatten)]
    pub(crate) program: ProgramChoice,

    /// Write the saved values to a safetensors file
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,

    /// How to run it: as planned, or by the simple interpreter that judges the plan
    #[arg(long, value_enum, default_value_t = Plan::Planned)]
    pub(crate) plan: Plan,

    /// Give up after so many seconds
    #[arg(long, value_name = "SECONDS", value_parser = numbers::seconds, allow_negative_numbers = true)]
    pub(crate) seconds: Option<f64>,

    /// Memory for the run beside the model, such as 4GB or 1.5GiB [default: what the machine has available]
    ///
    /// A program that may need more, by the price that `pellucid explain` shows, is refused before it runs.
    #[arg(long, value_name = "BYTES", value_parser = numbers::bytes, allow_negative_numbers = true)]
    pub(crate) memory: Option<u64>,

    /// At a service: the job's name in lists
    #[arg(long, value_name = "NAME")]
    pub(crate) label: Option<String>,

    /// At a service: the job's place among one's own
    #[arg(long, value_enum)]
    pub(crate) priority: Option<Order>,

    /// At a service: do not wait, and print the job's id
    #[arg(long, conflicts_with = "output")]
    pub(crate) detach: bool,

    /// Summarise as JSON; NaN and infinities are `{"float": "nan"}` and the like
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Order {
    /// After the others
    Low,
    /// As they come
    Normal,
    /// Before the others
    High,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Plan {
    /// Shared passes, early exit, values freed after their last use
    Planned,
    /// One invoke at a time, nothing clever: the same results, bit for bit
    Naive,
}

#[derive(Debug, Args)]
pub(crate) struct Explain {
    #[command(flatten)]
    pub(crate) program: ProgramChoice,

    /// Run the program, and show what each pass took beside what was estimated
    #[arg(long)]
    pub(crate) analyze: bool,

    /// Draw the plan too, as a web page that needs nothing else
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,

    /// The plan as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Show {
    /// The model: `bundled`, a folder, a .gguf file or a hub id
    #[arg(default_value = "bundled")]
    pub(crate) model: String,

    /// Show every block, alike or not
    #[arg(long)]
    pub(crate) all: bool,

    /// The model's whole specification as JSON
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) remote: RemoteChoice,
}

#[derive(Debug, Args)]
pub(crate) struct Lens {
    /// The model: `bundled`, a folder, a .gguf file or a hub id
    pub(crate) model: String,

    /// The prompt
    pub(crate) prompt: String,

    /// How many tokens to show at each place
    #[arg(long, value_name = "K", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) top: u32,

    /// The table as JSON
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) choices: ModelChoices,
}

#[derive(Debug, Args)]
pub(crate) struct Generate {
    /// The model: `bundled`, a folder, a .gguf file or a hub id
    pub(crate) model: String,

    /// The prompt; `-` for standard input
    pub(crate) prompt: String,

    /// How many tokens to make at most
    #[arg(long, short = 'n', value_name = "N", default_value_t = 50)]
    pub(crate) max_new_tokens: u64,

    /// 0: always the most probable token; above: drawn, the more evenly the higher
    #[arg(long, value_name = "T", default_value_t = 0.0, allow_negative_numbers = true)]
    pub(crate) temperature: f64,

    /// Draw only from the K most probable tokens
    #[arg(long, value_name = "K")]
    pub(crate) top_k: Option<u64>,

    /// Draw only from the most probable tokens that together reach this probability
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    pub(crate) top_p: Option<f64>,

    /// Make tokens that are already there less probable; 1: do not
    #[arg(long, value_name = "PENALTY", default_value_t = 1.0, allow_negative_numbers = true)]
    pub(crate) repetition_penalty: f64,

    /// Stop at this text too; can be given several times
    #[arg(long, value_name = "TEXT")]
    pub(crate) stop: Vec<String>,

    /// The seed of what is drawn
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,

    /// Put the prompt into the model's chat template, as the user's turn
    #[arg(long)]
    pub(crate) chat: bool,

    /// Text and tokens as JSON, when done
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) choices: ModelChoices,
}
