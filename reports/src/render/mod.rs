//! Renderings of records. All are pure functions from a record to text.

pub mod terminal;
pub mod html;
pub mod junit;

#[cfg(test)]
pub(crate) mod sample;

/// `text` with the five characters that XML and HTML reserve replaced, and what XML forbids left out.
pub(crate) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c if c.is_control() && !matches!(c, '\n' | '\t') => out.push(' '),
            c => out.push(c),
        }
    }
    out
}
