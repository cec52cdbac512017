//! Who asks.

use pellucid_client::api::{Problem, ProblemKind};

use super::start::OPEN_ACCOUNT;
use super::{Result, Service};
use crate::keys::{self, Scope};
use crate::store::Account;
use crate::time;

/// Who asks, known by its key.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Its account.
    pub account: Account,
    /// The part of its key that is no secret; none where none is needed.
    pub key: Option<String>,
    /// What its key may do.
    pub scopes: Vec<Scope>,
}

impl Caller {
    /// Whether the key may do that.
    ///
    /// # Errors
    /// 403.
    pub fn may(&self, scope: Scope) -> Result<()> {
        if self.scopes.contains(&scope) {
            return Ok(());
        }
        let message = format!("The key has not the scope `{}`.", scope.name());
        Err(Box::new(Problem::new(ProblemKind::Forbidden, message)))
    }
}

fn unauthorized(message: &str) -> Box<Problem> {
    let mut problem = Problem::new(ProblemKind::Unauthorized, message);
    problem.hint = Some("send the header `Authorization: Bearer pellucid_…`; whoever runs the service makes keys with `pellucid keys create`".into());
    Box::new(problem)
}

impl Service {
    /// Who asks, by the header `Authorization`. Each request counts.
    ///
    /// # Errors
    /// 401 where there is no key or it is not known, 429 where there are too many requests.
    pub async fn caller(&self, authorization: Option<&str>) -> Result<Caller> {
        let caller = if self.core.config.server.open {
            let account = self.core.store.account(OPEN_ACCOUNT).await?;
            let account = account.ok_or_else(|| unauthorized("The open account is not there."))?;
            Caller { account, key: None, scopes: Scope::ALL.to_vec() }
        } else {
            let header = authorization.ok_or_else(|| unauthorized("A key is needed."))?;
            let (scheme, key) = header.split_once(' ').unwrap_or((header, ""));
            let parts = Some(key).filter(|_| scheme.eq_ignore_ascii_case("bearer")).and_then(keys::parts);
            // One message for all: it tells nobody which keys there are.
            let unknown = || unauthorized("This is no key that is valid here.");
            let (id, secret) = parts.ok_or_else(unknown)?;
            let (key, account) = self.core.store.key(id).await?.ok_or_else(unknown)?;
            if !keys::is_secret(secret, &key.digest) {
                return Err(unknown());
            }
            Caller { account, key: Some(key.id), scopes: key.scopes }
        };
        self.core.meters.request(&caller.account.name, &caller.account.limits, time::now_ms())?;
        Ok(caller)
    }
}
