//! What an invoke can be given.

use pellucid_graph::Prompts;

/// One prompt or several, as text: `&str`, `String`, or an array, slice or vector of them. [`Prompts`] itself says
/// more, such as that no special tokens are added.
pub trait IntoPrompts {
    /// The prompts as a program holds them.
    fn into_prompts(self) -> Prompts;
}

fn texts<T: AsRef<str>>(texts: impl IntoIterator<Item = T>) -> Prompts {
    let texts = texts.into_iter().map(|text| text.as_ref().to_owned()).collect();
    Prompts::Text { texts, special_tokens: true }
}

impl IntoPrompts for Prompts {
    fn into_prompts(self) -> Prompts {
        self
    }
}

impl IntoPrompts for &str {
    fn into_prompts(self) -> Prompts {
        texts([self])
    }
}

impl IntoPrompts for String {
    fn into_prompts(self) -> Prompts {
        texts([self])
    }
}

impl IntoPrompts for &String {
    fn into_prompts(self) -> Prompts {
        texts([self])
    }
}

impl<T: AsRef<str>, const N: usize> IntoPrompts for [T; N] {
    fn into_prompts(self) -> Prompts {
        texts(self)
    }
}

impl<T: AsRef<str>> IntoPrompts for &[T] {
    fn into_prompts(self) -> Prompts {
        texts(self)
    }
}

impl<T: AsRef<str>> IntoPrompts for Vec<T> {
    fn into_prompts(self) -> Prompts {
        texts(self)
    }
}

impl<T: AsRef<str>> IntoPrompts for &Vec<T> {
    fn into_prompts(self) -> Prompts {
        texts(self)
    }
}
