//! Markup whose every text from outside is escaped: only literals of this program get in as they are.

use std::fmt::{self, Display, Write as _};

/// A document in the making.
#[derive(Debug, Default)]
pub(super) struct Html(String);

impl Html {
    /// Markup of this program.
    pub fn put(&mut self, markup: &'static str) -> &mut Html {
        self.0.push_str(markup);
        self
    }

    /// Text that is text wherever it comes from.
    pub fn text(&mut self, text: impl Display) -> &mut Html {
        write!(Escaped(&mut self.0), "{text}").expect("a string takes every write");
        self
    }

    /// ` name="value"`, for the inside of a tag.
    pub fn attr(&mut self, name: &'static str, value: impl Display) -> &mut Html {
        self.put(" ").put(name).put("=\"").text(value).put("\"")
    }

    /// What there is.
    pub fn finish(self) -> String {
        self.0
    }
}

/// Escapes what is written through it, for element content and quoted attributes alike.
struct Escaped<'a>(&'a mut String);

impl fmt::Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            match c {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                '\n' | '\t' => self.0.push(' '),
                c if c.is_control() || steers(c) => self.0.push('\u{fffd}'),
                c => self.0.push(c),
            }
        }
        Ok(())
    }
}

/// Characters that turn the direction of what follows, hide it, or are no characters of HTML.
fn steers(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
        || (c as u32 & 0xfffe) == 0xfffe
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn text_is_text() {
        let mut html = Html::default();
        html.put("<p").attr("title", "a\"b'<c>\u{202e}").put(">").text("</p>&\u{0}\n").put("</p>");
        let text = html.finish();
        assert_eq!(text, "<p title=\"a&quot;b&#39;&lt;c&gt;\u{fffd}\">&lt;/p&gt;&amp;\u{fffd} </p>");
    }

    proptest! {
        #[test]
        fn nothing_opens_a_tag_or_ends_an_attribute(text in any::<String>()) {
            let mut html = Html::default();
            html.text(&text);
            let out = html.finish();
            prop_assert!(!out.contains(['<', '>', '"', '\'']));
            let plain = |c: char| !c.is_control() && !steers(c);
            prop_assert!(out.chars().all(plain));
            // Every ampersand begins one of ours.
            for rest in out.split('&').skip(1) {
                prop_assert!(["amp;", "lt;", "gt;", "quot;", "#39;"].iter().any(|e| rest.starts_with(e)));
            }
        }
    }
}
