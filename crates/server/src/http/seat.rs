//! Whose a connection is: one account does not have all connections of an address.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use pellucid_client::api::ProblemKind;

use super::answer::Refusal;
use crate::account::{Watcher, exceeded};
use crate::core::Core;

/// One account has at most this part of the connections that an address may have.
const SHARE: usize = 2;
/// The limit that is exceeded by more.
pub(super) const LIMIT: &str = "account_connections";

tokio::task_local! {
    /// The connection on which a request came; none where it came by none.
    pub(super) static SEAT: Option<Arc<Seat>>;
}

/// A connection, and the account of which the last request on it was.
pub(super) struct Seat {
    address: IpAddr,
    of: Mutex<Option<(String, Watcher)>>,
}

impl Seat {
    pub fn new(address: IpAddr) -> Seat {
        Seat { address, of: Mutex::default() }
    }

    /// An account's request has come on it.
    ///
    /// # Errors
    /// 429 where the account has too many connections of this address.
    pub fn take(&self, core: &Core, account: &str) -> Result<(), Refusal> {
        let mut of = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        if of.as_ref().is_some_and(|(owner, _)| owner == account) {
            return Ok(());
        }
        let most = core.config.server.connections_per_address.div_ceil(SHARE);
        let seat = core.seats.come(&format!("{} {account}", self.address), most).map_err(|there| {
            let (allowed, used) = (most as f64, there as f64 + 1.0);
            let mut problem = exceeded(ProblemKind::TooManyRequests, LIMIT, allowed, used, "connections");
            problem.detail = Some("The account has so many connections from this address.".into());
            problem.hint = Some("ask on the connections that there are, or close some".into());
            problem.retry_after_s = Some(1.0);
            Refusal::from(Box::new(problem))
        })?;
        *of = Some((account.to_owned(), seat));
        Ok(())
    }
}

/// The account that asks has come on the connection of the request that is answered now.
pub(super) fn take(core: &Core, account: &str) -> Result<(), Refusal> {
    // Without keys all are one account.
    if core.config.server.open {
        return Ok(());
    }
    SEAT.try_with(Clone::clone).ok().flatten().map_or(Ok(()), |seat| seat.take(core, account))
}
