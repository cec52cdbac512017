//! A model's name on a hub.

use std::fmt;
use std::str::FromStr;

use crate::{Error, Result};

/// The longest name or revision, in bytes.
const MAXIMUM_LENGTH: usize = 96;
/// The revision where none is given.
const DEFAULT_REVISION: &str = "main";
/// The length of a commit's full name.
const COMMIT_LENGTH: usize = 40;

/// A name such as `owner/name`, `owner/name@revision`, or `name` for the few old models without an owner. The revision
/// is a branch, a tag or a commit. Nothing that could lead out of a folder is a name.
///
/// ```
/// use pellucid_models::hub::ModelName;
///
/// let name: ModelName = "EleutherAI/pythia-70m@step1000".parse()?;
/// assert_eq!((name.repository(), name.revision()), ("EleutherAI/pythia-70m", "step1000"));
/// assert!("../../secrets".parse::<ModelName>().is_err());
/// # Ok::<(), pellucid_models::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelName {
    repository: String,
    revision: String,
}

impl ModelName {
    /// Owner and name.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The revision that was asked for.
    #[must_use]
    pub fn revision(&self) -> &str {
        &self.revision
    }

    /// Whether the revision is a commit's full name, and so will always be the same.
    #[must_use]
    pub fn is_commit(&self) -> bool {
        is_commit(&self.revision)
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.revision.as_str() {
            DEFAULT_REVISION => formatter.write_str(&self.repository),
            revision => write!(formatter, "{}@{revision}", self.repository),
        }
    }
}

impl FromStr for ModelName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let refused = |reason: &str| Error::NoSuchModel { given: text.to_owned(), reason: reason.to_owned() };
        let (repository, revision) = text.split_once('@').unwrap_or((text, DEFAULT_REVISION));
        let segments: Vec<&str> = repository.split('/').collect();
        if segments.len() > 2
            || repository.len() > MAXIMUM_LENGTH
            || !segments.iter().all(|part| is_segment(part))
        {
            return Err(refused(
                "it is neither a folder nor a GGUF file here, and a hub's name is `owner/name`, of letters, digits, `-`, \
                 `_` and `.`",
            ));
        }
        // Two dashes would be the separator in the cache's names of folders.
        if repository.contains("--") {
            return Err(refused("a hub's name has no two dashes together"));
        }
        if revision.len() > MAXIMUM_LENGTH || !revision.split('/').all(is_segment) {
            return Err(refused("after `@` belongs a revision: a branch, a tag or a commit"));
        }
        Ok(Self { repository: repository.to_owned(), revision: revision.to_owned() })
    }
}

/// Whether `part` can stand between slashes: letters, digits, `-`, `_`, `.`, neither beginning with a dot nor a dash nor
/// ending with a dot, no two dots together.
fn is_segment(part: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    !part.is_empty()
        && part.bytes().all(allowed)
        && !part.starts_with(['.', '-'])
        && !part.ends_with('.')
        && !part.contains("..")
}

pub(super) fn is_commit(text: &str) -> bool {
    text.len() == COMMIT_LENGTH
        && text.bytes().all(|byte| byte.is_ascii_hexdigit() && !byte.is_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use super::ModelName;

    #[test]
    fn names_are_taken_apart() {
        let parse = |text: &str| text.parse::<ModelName>().unwrap();
        let name = parse("HuggingFaceTB/SmolLM2-135M_x.y");
        assert_eq!((name.repository(), name.revision()), ("HuggingFaceTB/SmolLM2-135M_x.y", "main"));
        assert_eq!(name.to_string(), "HuggingFaceTB/SmolLM2-135M_x.y");
        assert_eq!(parse("gpt2").repository(), "gpt2");
        let name = parse("a/b@refs/pr/1");
        assert_eq!((name.revision(), name.to_string().as_str()), ("refs/pr/1", "a/b@refs/pr/1"));
        assert!(parse("a/b@0123456789abcdef0123456789abcdef01234567").is_commit());
        assert!(!parse("a/b@0123456789abcdef").is_commit());
    }

    #[test]
    fn tricks_with_paths_are_no_names() {
        for text in [
            "",
            "/",
            "a/",
            "/a",
            "a//b",
            "a/b/c",
            "..",
            "../a",
            "a/..",
            "a/../b",
            ".a",
            "a/.b",
            "a\\b",
            "a/b\\c",
            "a b",
            "a/b@",
            "a/b@../x",
            "a/b@x/../y",
            "a/b@/x",
            "a/b@x y",
            "a/b@a@b",
            "a/b\0",
            "a/b?x",
            "a/b#x",
            "a/%2e%2e",
            "ä/b",
            "a--b/c",
            "C:/x",
            "a/b..c",
            "-a/b",
            "https://a/b",
        ] {
            assert!(text.parse::<ModelName>().is_err(), "{text:?}");
        }
        assert!("a".repeat(97).parse::<ModelName>().is_err());
    }
}
