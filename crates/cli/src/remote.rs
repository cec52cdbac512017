//! Speaking to a service: which one, and what is shown meanwhile.

use std::sync::Arc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use pellucid::client::api::{Event, RunProgress};
use pellucid::client::{Client, config};
use pellucid::{RemoteOptions, Service, Update};

use crate::arguments::RemoteChoice;
use crate::failure::Failure;

/// Steps of the bar of one pass.
const STEPS: u64 = 1000;

/// The address that was given on the command line or in the environment; none: what is run is run here.
pub(crate) fn given(choice: &RemoteChoice) -> Option<&str> {
    choice.remote.as_deref().map(str::trim).filter(|address| !address.is_empty())
}

/// The address that was given, or the one that is set up.
pub(crate) fn address(given: Option<&str>) -> Result<String, Failure> {
    let set_up = config::remote().map_err(pellucid::Error::from)?;
    let address = given.map(str::to_owned).or(set_up);
    address.map(|address| address.trim().to_owned()).filter(|address| !address.is_empty()).ok_or_else(|| {
        Failure::Message(
            "no service is set up\n  hint: `pellucid login https://…`, or give its address: --remote https://…"
                .to_owned(),
        )
    })
}

/// The client of the service that was given, or is set up.
pub(crate) fn client(choice: &RemoteChoice) -> Result<Client, Failure> {
    Ok(Service::at(&address(given(choice))?)?.client().clone())
}

/// The service at an address, whose runs are shown by the bar.
pub(crate) fn service(address: &str, options: &RemoteOptions, bar: &Bar) -> Result<Service, Failure> {
    let bar = bar.clone();
    let on_update = Some(Arc::new(move |update: &Update| bar.show(update)) as pellucid::OnUpdate);
    Ok(Service::with(address, &RemoteOptions { on_update, ..options.clone() })?)
}

/// How far a run is, on standard error, where that is a terminal; elsewhere nothing is shown.
#[derive(Clone)]
pub(crate) struct Bar(ProgressBar);

impl Bar {
    pub(crate) fn new() -> Bar {
        let bar = ProgressBar::new(STEPS);
        bar.set_style(waiting());
        bar.enable_steady_tick(Duration::from_millis(120));
        Bar(bar)
    }

    pub(crate) fn show(&self, update: &Update) {
        match update {
            Update::Happened(Event::Progress(RunProgress { part, .. })) => {
                self.0.set_style(running());
                self.0.set_position((part.clamp(0.0, 1.0) * STEPS as f64) as u64);
            }
            Update::Submitted(_) | Update::Happened(Event::Queued(_)) | Update::Retrying { .. } => {
                self.0.set_style(waiting());
            }
            Update::Happened(Event::Running(_)) => {}
            // Logs and tokens are shown by whoever asked for them.
            _ => return,
        }
        self.0.set_message(update.to_string());
    }

    pub(crate) fn say(&self, what: &str) {
        self.0.set_style(waiting());
        self.0.set_message(what.to_owned());
    }

    /// Prints a line beside the bar.
    pub(crate) fn beside(&self, print: impl FnOnce()) {
        self.0.suspend(print);
    }

    pub(crate) fn clear(&self) {
        self.0.finish_and_clear();
    }
}

fn waiting() -> ProgressStyle {
    style("{spinner} {wide_msg}")
}

fn running() -> ProgressStyle {
    style("{bar:30} {wide_msg}")
}

/// A template that does not parse leaves the plain bar.
fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
