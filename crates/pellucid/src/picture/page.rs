//! A web page that stands alone: no script, no request to anywhere, light or dark as the reader has it. Heat maps are
//! tables, so that they can be read without seeing colours, or without seeing.

use std::fmt;
use std::path::Path;

use pellucid_engine::Explanation;

use super::{Curves, HeatMap, plan};
use crate::error::{Error, Result};

const STYLE: &str = include_str!("page.css");

/// A web page of pictures, in one file that needs nothing else.
#[derive(Clone, Debug)]
pub struct Page {
    title: String,
    body: String,
}

impl Page {
    /// A page with a title, which is also its heading.
    pub fn new(title: &str) -> Page {
        Page { title: title.to_owned(), body: format!("<h1>{}</h1>\n", escape(title)) }
    }

    fn written(mut self, write: impl FnOnce(&mut String) -> fmt::Result) -> Page {
        // Writing to a string does not fail.
        let _ = write(&mut self.body);
        self
    }

    /// What the page is about, below its heading.
    #[must_use]
    pub fn lead(self, text: &str) -> Page {
        self.html(&format!("<p class=\"lead\">{}</p>\n", escape(text)))
    }

    /// A heading.
    #[must_use]
    pub fn heading(self, text: &str) -> Page {
        self.html(&format!("<h2>{}</h2>\n", escape(text)))
    }

    /// A paragraph.
    #[must_use]
    pub fn text(self, text: &str) -> Page {
        self.html(&format!("<p>{}</p>\n", escape(text)))
    }

    /// A heat map.
    #[must_use]
    pub fn heat_map(self, map: &HeatMap) -> Page {
        self.written(|html| map.write_html(html))
    }

    /// Curves.
    #[must_use]
    pub fn curves(self, curves: &Curves) -> Page {
        self.written(|html| curves.write_html(html))
    }

    /// The plan of a program: its passes, who rides in each, which layers and positions are computed for whom, and what it
    /// costs, or took.
    #[must_use]
    pub fn plan(self, plan: &Explanation) -> Page {
        self.written(|html| plan::write_html(plan, html))
    }

    /// HTML as it is: text in it must have gone through [`escape`].
    #[must_use]
    pub fn html(mut self, html: &str) -> Page {
        self.body.push_str(html);
        self
    }

    /// The whole page.
    pub fn to_html(&self) -> String {
        format!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <title>{} · Pellucid</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n{}</main>\n</body>\n</html>\n",
            escape(&self.title),
            self.body
        )
    }

    /// Writes the page to a file.
    ///
    /// # Errors
    /// [`Error::File`] where the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        std::fs::write(path, self.to_html()).map_err(|error| Error::File { path: path.to_owned(), error })
    }
}

/// Text as HTML.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_stands_alone_and_escapes_what_it_shows() {
        let html = Page::new("a<b").lead("x&y").heading("\"z\"").curves(&Curves::new("c>d")).to_html();
        for elsewhere in ["http:", "https:", "//", "<script", "url(", "@import"] {
            assert!(!html.contains(elsewhere), "{elsewhere}");
        }
        for shown in ["a&lt;b", "x&amp;y", "&quot;z&quot;", "c&gt;d"] {
            assert!(html.contains(shown), "{shown}");
        }
    }
}
