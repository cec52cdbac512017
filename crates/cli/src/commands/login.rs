//! `pellucid login`.

use std::io::{IsTerminal, Write};

use pellucid::Service;
use pellucid::client::{Address, config};

use crate::arguments::Login;
use crate::failure::Failure;
use crate::remote;

/// Keeps a key for a service, once the service knows it.
pub(crate) fn login(login: &Login, out: &mut dyn Write) -> Result<(), Failure> {
    let given = login.remote.as_deref().map(str::trim).filter(|address| !address.is_empty());
    let address: Address = remote::address(given)?.parse()?;
    if login.remove {
        let (path, found) = config::log_out(&address)?;
        let what = if found { "removed from" } else { "there is no key for it in" };
        writeln!(out, "{address}: {what} {}", path.display())?;
        return Ok(());
    }
    let key = read_key(&address)?;
    if key.is_empty() {
        return Err(Failure::Message("no key was given".to_owned()));
    }
    let (account, path) = Service::log_in(address.as_str(), &key)?;
    writeln!(
        out,
        "{address}: logged in as {} ({}); the key is kept in {}",
        account.account,
        account.scopes.join(", "),
        path.display()
    )?;
    Ok(())
}

/// A key typed without being shown, or the line that comes by a pipe.
fn read_key(address: &Address) -> Result<String, Failure> {
    let key = if std::io::stdin().is_terminal() {
        rpassword::prompt_password(format!("key for {address}: "))
    } else {
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).map(|_| line)
    };
    let key = key.map_err(|error| Failure::File { name: "standard input".to_owned(), error })?;
    Ok(key.trim().to_owned())
}
