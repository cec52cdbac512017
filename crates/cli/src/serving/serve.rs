//! `pellucid serve`.

use std::io::Write;

use super::arguments::Serve;
use super::{finished, read};
use crate::failure::Failure;

/// Serves until Ctrl-C or SIGTERM.
pub(crate) fn serve(serve: &Serve, out: &mut dyn Write) -> Result<(), Failure> {
    let mut layers = read(&serve.configuration)?;
    if let Some(listen) = serve.listen {
        layers = layers.set("server.listen", &listen.to_string())?;
    }
    if serve.open {
        layers = layers.set("server.open", "true")?;
    }
    let config = finished(layers)?;
    if !config.server.open && pellucid_server::admin::list_keys(&config)?.is_empty() {
        eprintln!("there are no keys yet: `pellucid keys create --account NAME` makes one; or use --open");
    }
    let mut told = Ok(());
    pellucid_server::admin::run(config, |address, tls| {
        let scheme = if tls { "https" } else { "http" };
        told = writeln!(out, "listening on {scheme}://{address}").and_then(|()| out.flush());
    })?;
    Ok(told?)
}
