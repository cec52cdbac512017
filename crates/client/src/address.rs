//! Where a service is.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ureq::http::Uri;

use crate::error::{Error, Result};

/// The address of a service: `https://models.example.org`, with a path where it does not stand at the top.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    /// Without a `/` at its end.
    text: String,
    host: String,
    encrypted: bool,
}

impl FromStr for Address {
    type Err = Error;

    /// Reads an address. Without a scheme it is `https://`, of this machine itself `http://`.
    fn from_str(given: &str) -> Result<Address> {
        let refuse = |reason| Error::Address { address: given.to_owned(), reason };
        let trimmed = given.trim();
        if trimmed.is_empty() {
            return Err(refuse("it is empty"));
        }
        let complete = if trimmed.contains("://") {
            trimmed.to_owned()
        } else {
            let host = Uri::from_str(&format!("http://{trimmed}")).map_err(|_| refuse("it is no URL"))?;
            let scheme = if is_loopback(host.host().unwrap_or_default()) { "http" } else { "https" };
            format!("{scheme}://{trimmed}")
        };
        let uri = Uri::from_str(&complete).map_err(|_| refuse("it is no URL"))?;
        let encrypted = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(refuse("it is neither http:// nor https://")),
        };
        let authority = uri.authority().ok_or_else(|| refuse("it names no host"))?;
        if authority.as_str().contains('@') {
            return Err(refuse("a key does not stand in the address"));
        }
        if authority.host().is_empty() {
            return Err(refuse("it names no host"));
        }
        if uri.query().is_some() || complete.contains('#') {
            return Err(refuse("it has more than a host, a port and a path"));
        }
        // Hosts know no case, paths do.
        let scheme = if encrypted { "https" } else { "http" };
        let path = uri.path().trim_end_matches('/');
        let text = format!("{scheme}://{}{path}", authority.as_str().to_ascii_lowercase());
        Ok(Address { text, host: authority.host().to_owned(), encrypted })
    }
}

impl Address {
    /// Whether it is this machine itself.
    pub fn is_loopback(&self) -> bool {
        is_loopback(&self.host)
    }

    /// Whether what travels can be read by nobody else: it is encrypted, or does not leave this machine.
    pub fn is_private(&self) -> bool {
        self.encrypted || self.is_loopback()
    }

    /// The address as text, without a `/` at its end.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The URL of a path of the service, which begins with `/`.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.text)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || bare.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

/// A part of a path with everything escaped that would mean something there, or nothing anywhere.
pub(crate) fn escape(part: &str) -> String {
    let mut escaped = String::with_capacity(part.len());
    for byte in part.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    // A part that is only dots would be taken for a way up.
    if matches!(part, "." | "..") { escaped.replace('.', "%2E") } else { escaped }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_completed_and_made_alike() {
        let text = |given: &str| given.parse::<Address>().unwrap().to_string();
        assert_eq!(text("models.example.org"), "https://models.example.org");
        assert_eq!(text("HTTPS://Models.Example.org:8443/Lab/"), "https://models.example.org:8443/Lab");
        assert_eq!(text(" localhost:8642/ "), "http://localhost:8642");
        assert_eq!(text("127.0.0.1:1"), "http://127.0.0.1:1");
        assert_eq!(text("http://[::1]:80"), "http://[::1]:80");
        assert_eq!("https://a/b".parse::<Address>().unwrap().url("/v1/jobs"), "https://a/b/v1/jobs");
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for given in
            ["", "ftp://a", "https://", "https://key@a", "https://a/?q", "https://a/#f", "a b", "http://"]
        {
            assert!(given.parse::<Address>().is_err(), "{given}");
        }
    }

    #[test]
    fn only_this_machine_and_encrypted_ones_are_private() {
        let private = |given: &str| given.parse::<Address>().unwrap().is_private();
        assert!(private("https://a") && private("http://127.0.0.1:1") && private("http://[::1]"));
        assert!(private("http://LOCALHOST") && private("http://[::ffff:127.0.0.1]"));
        assert!(
            !private("http://a") && !private("http://127.0.0.1.example.org") && !private("http://0.0.0.0")
        );
    }

    #[test]
    fn parts_of_paths_are_escaped() {
        assert_eq!(escape("job_1"), "job_1");
        assert_eq!(escape("../a b?c#d%"), "..%2Fa%20b%3Fc%23d%25");
        assert_eq!([escape("."), escape("..")], ["%2E", "%2E%2E"]);
    }
}
