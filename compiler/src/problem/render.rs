//! Problems as miette shows them: a few lines of the manifest around each.
//!
//! Long lines, such as a minified manifest's only one, are cut to a window around what is underlined; line and column
//! stay those of the file.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use miette::{
    Diagnostic, GraphicalReportHandler, LabeledSpan, MietteError, MietteSpanContents, SourceCode, SourceSpan,
    SpanContents,
};

use osbc_ir::{printable, redact};

use super::{Located, Problem, Report};

/// How much of a line is shown before and after the beginning of what is underlined, in bytes.
const BEFORE: usize = 40;
const AFTER: usize = 100;

impl Report {
    /// The problems for any handler of miette's, in order.
    pub fn diagnostics(&self) -> impl Iterator<Item = impl Diagnostic + Send + Sync + 'static> + '_ {
        // All that is shown keeps the place that it has in the manifest.
        let text = match redact::masked(self.text.as_str()) {
            Cow::Borrowed(text) => printable::in_place(text),
            Cow::Owned(text) => Cow::Owned(printable::in_place(&text).into_owned()),
        };
        self.problems.iter().map(move |located| Shown::new(self.text.name(), &text, located))
    }

    /// The first `limit` problems as text, each ending with an empty line, and how many more there are.
    pub fn render(&self, handler: &GraphicalReportHandler, limit: usize) -> String {
        let mut out = String::new();
        for shown in self.diagnostics().take(limit) {
            // Writing to a string cannot fail, and the excerpt holds what the label underlines.
            let _ = handler.render_report(&mut out, &shown);
            out.push('\n');
        }
        let more = self.problems.len().saturating_sub(limit);
        if more > 0 {
            let (at_least, plural) = (if self.incomplete { "at least " } else { "" }, if more == 1 { "" } else { "s" });
            out.push_str(&format!("{at_least}{more} more problem{plural}\n"));
        }
        out
    }
}

/// A problem together with the lines around it.
#[derive(Debug)]
struct Shown {
    located: Located,
    excerpt: Excerpt,
}

impl Shown {
    fn new(name: &str, text: &str, located: &Located) -> Self {
        let mut shown = located.clone();
        let Problem { message, label, help, .. } = &mut shown.problem;
        for text in [message, label].into_iter().chain(help) {
            *text = printable::text(text).into_owned();
        }
        Self { located: shown, excerpt: Excerpt::new(&printable::line(name), text, located) }
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.located.problem.message)
    }
}

impl std::error::Error for Shown {}

impl Diagnostic for Shown {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(self.located.problem.code.as_str()))
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        let help = self.located.problem.help.as_ref()?;
        Some(Box::new(help))
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(&self.excerpt)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let label = Some(self.located.problem.label.clone()).filter(|label| !label.is_empty());
        let span = self.excerpt.label.clone();
        Some(Box::new(std::iter::once(LabeledSpan::new_primary_with_span(label, span))))
    }
}

/// The line of a problem and its neighbours, each cut to a window.
#[derive(Debug)]
struct Excerpt {
    name: String,
    text: String,
    /// The line that the text begins with, counted from zero.
    first: usize,
    /// How many lines the text has.
    lines: usize,
    /// What is underlined, in bytes of the text.
    label: Range<usize>,
    /// The problem's line and column in the manifest, counted from zero.
    position: (usize, usize),
}

impl Excerpt {
    fn new(name: &str, text: &str, located: &Located) -> Self {
        let start = text.floor_char_boundary(located.span.start);
        let line = line_around(text, start);
        let mut first = located.line - 1;
        let mut shown = String::new();
        let mut lines = 1;
        if line.start > 0 {
            push_cut(&mut shown, &text[line_around(text, line.start - 1)], 0);
            shown.push('\n');
            first -= 1;
            lines += 1;
        }
        // What goes on over several lines is underlined to the end of its first.
        let end = text.ceil_char_boundary(located.span.end).clamp(start, line.end);
        let (from, kept) = push_cut(&mut shown, &text[line.clone()], start - line.start);
        let begin = from + (start - line.start - kept.start);
        let label = begin..from + (end - line.start).min(kept.end) - kept.start;
        if line.end < text.len() && line.end + 1 < text.len() {
            shown.push('\n');
            push_cut(&mut shown, &text[line_around(text, line.end + 1)], 0);
            lines += 1;
        }
        let position = (located.line - 1, located.column - 1);
        Self { name: name.to_owned(), text: shown, first, lines, label, position }
    }
}

/// The line that holds an offset, without its end.
fn line_around(text: &str, offset: usize) -> Range<usize> {
    let start = text[..offset].rfind('\n').map_or(0, |at| at + 1);
    let end = text[offset..].find('\n').map_or(text.len(), |at| offset + at);
    start..end.max(start)
}

/// Appends the part of a line around `focus`, with `…` where something is cut off.
///
/// Returns where the part begins in `out`, and which bytes of the line it is.
fn push_cut(out: &mut String, line: &str, focus: usize) -> (usize, Range<usize>) {
    let line = line.strip_suffix('\r').unwrap_or(line);
    let focus = focus.min(line.len());
    let start = if focus <= BEFORE { 0 } else { line.floor_char_boundary(focus - BEFORE) };
    let end = line.ceil_char_boundary((focus + AFTER).min(line.len()));
    if start > 0 {
        out.push('…');
    }
    let from = out.len();
    out.push_str(&line[start..end]);
    if end < line.len() {
        out.push('…');
    }
    (from, start..end)
}

impl SourceCode for Excerpt {
    fn read_span<'a>(
        &'a self,
        _span: &SourceSpan,
        before: usize,
        _after: usize,
    ) -> Result<Box<dyn SpanContents<'a> + 'a>, MietteError> {
        // Asked without lines around the span, miette wants to know where it is.
        let (line, column) = if before == 0 { self.position } else { (self.first, 0) };
        Ok(Box::new(MietteSpanContents::new_named(
            self.name.clone(),
            self.text.as_bytes(),
            (0, self.text.len()).into(),
            line,
            column,
            self.lines,
        )))
    }
}

#[cfg(test)]
mod tests {
    use miette::GraphicalTheme;

    use super::*;
    use crate::place::Place;
    use crate::problem::{Code, Phase};
    use crate::text::SourceText;

    fn render(text: &str, place: Place) -> String {
        let text = SourceText::from_bytes("m.json", text.into()).expect("text");
        let problem =
            Problem::new(Code::Schema, Phase::Validate, place, "wrong").label("here").help("write it right".to_owned());
        let handler = GraphicalReportHandler::new_themed(GraphicalTheme::unicode_nocolor()).with_width(100);
        Report::new(&text, problem.into()).render(&handler, 10)
    }

    #[test]
    fn the_value_is_underlined_between_its_neighbours() {
        let text = "{\n  \"a\": 1,\n  \"b\": {\n    \"c\": 2\n  }\n}\n";
        insta::assert_snapshot!(render(text, Place::root().with("b").with("c")), @r#"
        osbc::schema

          × wrong
           ╭─[m.json:4:10]
         3 │   "b": {
         4 │     "c": 2
           ·          ┬
           ·          ╰── here
         5 │   }
           ╰────
          help: write it right
        "#);
        insta::assert_snapshot!(render(text, Place::root().with("b")), @r#"
        osbc::schema

          × wrong
           ╭─[m.json:3:8]
         2 │   "a": 1,
         3 │   "b": {
           ·        ┬
           ·        ╰── here
         4 │     "c": 2
           ╰────
          help: write it right
        "#);
    }

    #[test]
    fn secrets_and_control_characters_of_the_manifest_are_not_shown() {
        let text = "{\"u\": \"http://me:pass@h/x?t=1\", \"\u{9b}2J\": [\"\u{7f}\"]}\n";
        let text = SourceText::from_bytes("m\u{1b}.json", text.into()).expect("text");
        let message = "'https://me:pass@h/?t=1' is no \u{1b}[2J";
        let problem = Problem::new(Code::Schema, Phase::Validate, Place::root().with("u"), message).label("http://a@h");
        let handler = GraphicalReportHandler::new_themed(GraphicalTheme::unicode_nocolor()).with_width(100);
        let report = Report::new(&text, problem.into());
        assert!(!report.to_json().to_string().contains("pass"), "{}", report.to_json());
        insta::assert_snapshot!(report.render(&handler, 10), @r#"
        osbc::schema

          × 'https://h/?t=***' is no \u001b[2J
           ╭─[m\u001b.json:1:7]
         1 │ {"u": "http://********h/x?t=*", "??2J": ["?"]}
           ·       ────────────┬───────────
           ·                   ╰── http://h
           ╰────
        "#);
    }

    #[test]
    fn a_minified_manifest_is_cut_to_a_window() {
        let text = format!("{{\"a\": [{}7], \"b\": 2}}", "\"ä\", ".repeat(200_000));
        insta::assert_snapshot!(render(&text, Place::root().with("a").with(200_000)), @r#"
        osbc::schema

          × wrong
           ╭─[m.json:1:1000008]
         1 │ …ä", "ä", "ä", "ä", "ä", "ä", "ä", 7], "b": 2}
           ·                                    ┬
           ·                                    ╰── here
           ╰────
          help: write it right
        "#);
    }
}
