//! API keys, and other names that nobody can guess.

use data_encoding::BASE32_NOPAD;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// What every key begins with: by it secret scanners and people know one.
const PREFIX: &str = "pellucid_";
/// Random bytes of the part of a key that is no secret.
const ID_BYTES: usize = 5;
/// Random bytes of the part that is.
const SECRET_BYTES: usize = 32;
/// Random bytes of a job's id.
const JOB_BYTES: usize = 16;

/// What a key may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Submitting jobs, and reading one's own.
    Submit,
    /// Metrics.
    Admin,
}

impl Scope {
    /// All there are.
    pub const ALL: [Scope; 2] = [Scope::Submit, Scope::Admin];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Scope::Submit => "submit",
            Scope::Admin => "admin",
        }
    }

    /// The scope of that name.
    pub fn named(name: &str) -> Option<Scope> {
        Scope::ALL.into_iter().find(|scope| scope.name() == name)
    }
}

/// A key as its owner holds it: shown once, when it is made.
pub struct NewKey {
    /// The part that is no secret.
    pub id: String,
    /// All of it.
    pub text: String,
    /// What is kept of the secret.
    pub digest: Vec<u8>,
}

/// The system gives no random bytes: nothing can be kept secret then.
#[derive(Debug, thiserror::Error)]
#[error("the system gives no random bytes: {0}")]
pub struct NoRandomness(getrandom::Error);

impl NewKey {
    /// A new key.
    ///
    /// # Errors
    /// [`NoRandomness`].
    pub fn make() -> Result<NewKey, NoRandomness> {
        let (id, secret) = (random_text(ID_BYTES)?, random_text(SECRET_BYTES)?);
        Ok(NewKey { text: format!("{PREFIX}{id}_{secret}"), digest: digest(&secret), id })
    }
}

/// The id of a new job.
///
/// # Errors
/// [`NoRandomness`].
pub fn job_id() -> Result<String, NoRandomness> {
    Ok(format!("job_{}", random_text(JOB_BYTES)?))
}

/// Whether a text can be a job's id: nothing else is ever looked for, or becomes part of a file's name.
pub fn is_job_id(text: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_lowercase() || (b'2'..=b'7').contains(&byte);
    text.strip_prefix("job_").is_some_and(|rest| rest.len() == 26 && rest.bytes().all(is_letter))
}

/// The two parts of a key: its id and its secret. `None`: it is none.
pub fn parts(text: &str) -> Option<(&str, &str)> {
    let (id, secret) = text.strip_prefix(PREFIX)?.split_once('_')?;
    let is_letters = |part: &str| part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    (id.len() == 8 && secret.len() == 52 && is_letters(id) && is_letters(secret)).then_some((id, secret))
}

/// Whether a secret is the one whose digest is kept. Takes the same time for every secret.
pub fn is_secret(secret: &str, kept: &[u8]) -> bool {
    digest(secret).ct_eq(kept).into()
}

fn digest(secret: &str) -> Vec<u8> {
    Sha256::digest(secret.as_bytes()).to_vec()
}

fn random_text(bytes: usize) -> Result<String, NoRandomness> {
    let mut random = vec![0; bytes];
    getrandom::fill(&mut random).map_err(NoRandomness)?;
    Ok(BASE32_NOPAD.encode(&random).to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_known_again_and_no_other_is() {
        let (key, other) = (NewKey::make().unwrap(), NewKey::make().unwrap());
        let (id, secret) = parts(&key.text).unwrap();
        assert_eq!(id, key.id);
        assert!(is_secret(secret, &key.digest));
        assert!(!is_secret(secret, &other.digest));
        assert!(!is_secret("", &key.digest));
        assert!(!is_secret(secret, &[]));
    }

    #[test]
    fn what_is_no_key_is_none() {
        let key = NewKey::make().unwrap().text;
        for wrong in ["", "pellucid_", "pellucid__", &key[1..], &key[..key.len() - 1], &key.to_uppercase()] {
            assert_eq!(parts(wrong), None, "{wrong}");
        }
        assert_eq!(parts(&key.replace('_', "__")), None);
        assert_eq!(parts(&format!("{key}'")), None);
    }

    #[test]
    fn only_ids_are_ids() {
        assert!(is_job_id(&job_id().unwrap()));
        for wrong in [
            "",
            "job_",
            "job_../../../../../etc/passwd",
            "JOB_aaaaaaaaaaaaaaaaaaaaaaaaaa",
            "job_aaaaaaaaaaaaaaaaaaaaaaaaa0",
        ] {
            assert!(!is_job_id(wrong), "{wrong}");
        }
    }
}
