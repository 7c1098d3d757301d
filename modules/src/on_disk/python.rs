//! Reads what a Python module says about itself out of its source: the docstring, and the literals `SCHEMA`, `SCHEMA_2`
//! (the inside of a JSON object) and `CAPABILITIES`.
//!
//! It knows strings, comments, brackets and assignments at the top level, and nothing else of Python.

use std::iter::Peekable;
use std::str::CharIndices;

use osbc_module_api::Value;

use super::Metadata;

/// Reads the literals of a module.
///
/// # Errors
/// A schema is no JSON: the line in the module, and what is wrong.
pub(super) fn read(source: &str) -> Result<Metadata, String> {
    let mut metadata = Metadata::default();
    for (index, statement) in Statements::new(source).enumerate() {
        if let ([Token::Text { value: Some(doc), .. }], 0) = (statement.as_slice(), index) {
            let doc = clean(doc);
            let (summary, description) = doc.split_once('\n').unwrap_or((&doc, ""));
            (metadata.summary, metadata.description) = (summary.to_owned(), description.to_owned());
        }
        let (targets, value) = assignment(&statement);
        for target in targets {
            match target {
                "SCHEMA" => metadata.schema = schema(value)?,
                "SCHEMA_2" => metadata.schema_2 = schema(value)?,
                "CAPABILITIES" => metadata.capabilities = texts(value),
                _ => {}
            }
        }
    }
    Ok(metadata)
}

/// A piece of Python.
#[derive(Debug, PartialEq)]
enum Token<'a> {
    /// A name, a keyword or a number.
    Word(&'a str),
    /// A string; none if it is not constant text.
    Text { value: Option<String>, line: usize },
    /// `=` and not `==`.
    Assign,
    /// Anything else.
    Other(char),
}

/// The names that a statement assigns to, and what.
fn assignment<'t, 'a>(statement: &'t [Token<'a>]) -> (Vec<&'a str>, &'t [Token<'a>]) {
    let mut targets = Vec::new();
    let mut rest = statement;
    while let [Token::Word(name), Token::Assign, value @ ..] = rest {
        targets.push(*name);
        rest = value;
    }
    (targets, rest)
}

/// The schema that a value holds; none if it is no constant text.
fn schema(value: &[Token<'_>]) -> Result<Option<Value>, String> {
    let mut value = value;
    while let [Token::Other('('), inner @ .., Token::Other(')')] = value {
        value = inner;
    }
    let (mut text, mut first) = (String::from("{"), None);
    for token in value {
        let Token::Text { value: Some(part), line } = token else { return Ok(None) };
        first.get_or_insert(*line);
        text.push_str(part);
    }
    let Some(line) = first else { return Ok(None) };
    text.push('}');
    let parsed = serde_json::from_str(&text);
    parsed.map(Some).map_err(|error| format!("invalid schema near line {}: {error}", line + error.line() - 1))
}

/// The texts in a set, list or tuple.
fn texts(value: &[Token<'_>]) -> Vec<String> {
    let texts = value.iter().filter_map(|token| match token {
        Token::Text { value: Some(text), .. } => Some(text.clone()),
        _ => None,
    });
    texts.collect()
}

/// The statements at the top level, each as its tokens.
struct Statements<'a> {
    source: &'a str,
    chars: Peekable<CharIndices<'a>>,
    line: usize,
    /// Whether the next token is at the beginning of a line.
    line_start: bool,
}

impl<'a> Statements<'a> {
    fn new(source: &'a str) -> Self {
        Self { source, chars: source.char_indices().peekable(), line: 1, line_start: true }
    }

    fn next_char(&mut self) -> Option<(usize, char)> {
        let next = self.chars.next()?;
        self.line += usize::from(next.1 == '\n');
        Some(next)
    }

    fn peek(&mut self) -> Option<char> {
        self.chars.peek().map(|(_, char)| *char)
    }

    fn skip_comment(&mut self) {
        while self.peek().is_some_and(|char| char != '\n') {
            self.next_char();
        }
    }

    fn word(&mut self, start: usize) -> &'a str {
        while self.peek().is_some_and(|char| char.is_alphanumeric() || char == '_') {
            self.next_char();
        }
        let end = self.chars.peek().map_or(self.source.len(), |(at, _)| *at);
        &self.source[start..end]
    }

    /// A string whose opening quote was read, under a prefix such as `r`.
    fn text(&mut self, quote: char, prefix: &str) -> Token<'a> {
        let line = self.line;
        let has = |letter: char| prefix.chars().any(|char| char.eq_ignore_ascii_case(&letter));
        let constant = !has('f') && !has('b') && !has('t');
        let mut triple = false;
        if self.peek() == Some(quote) {
            self.next_char();
            if self.peek() != Some(quote) {
                return Token::Text { value: constant.then(String::new), line };
            }
            self.next_char();
            triple = true;
        }
        let mut out = String::new();
        let mut quotes = 0;
        while let Some((_, char)) = self.next_char() {
            if char == quote {
                quotes += 1;
                if !triple || quotes == 3 {
                    out.truncate(out.len() - (quotes - 1) * quote.len_utf8());
                    break;
                }
                out.push(char);
                continue;
            }
            quotes = 0;
            match char {
                '\\' if has('r') => {
                    out.push('\\');
                    out.extend(self.next_char().map(|(_, char)| char));
                }
                '\\' => self.escape(&mut out),
                '\n' if !triple => break,
                _ => out.push(char),
            }
        }
        Token::Text { value: constant.then_some(out), line }
    }

    /// What follows a backslash.
    fn escape(&mut self, out: &mut String) {
        let Some((_, char)) = self.next_char() else { return };
        let simple = match char {
            '\n' => return,
            '\\' | '\'' | '"' => char,
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'a' => '\u{7}',
            'b' => '\u{8}',
            'f' => '\u{c}',
            'v' => '\u{b}',
            'x' => return self.code(out, char, String::new(), 16, 2),
            'u' => return self.code(out, char, String::new(), 16, 4),
            'U' => return self.code(out, char, String::new(), 16, 8),
            '0'..='7' => return self.code(out, char, char.to_string(), 8, 3),
            _ => {
                out.push('\\');
                char
            }
        };
        out.push(simple);
    }

    /// A character by its number.
    fn code(&mut self, out: &mut String, kind: char, mut digits: String, radix: u32, most: usize) {
        while digits.len() < most
            && let Some(digit) = self.peek().filter(|char| char.is_digit(radix))
        {
            digits.push(digit);
            self.next_char();
        }
        match u32::from_str_radix(&digits, radix).ok().and_then(char::from_u32) {
            Some(char) => out.push(char),
            None => {
                out.push('\\');
                out.push(kind);
                out.push_str(&digits);
            }
        }
    }
}

impl<'a> Iterator for Statements<'a> {
    type Item = Vec<Token<'a>>;

    fn next(&mut self) -> Option<Vec<Token<'a>>> {
        let mut tokens = Vec::new();
        let mut depth = 0_usize;
        let mut top = true;
        while let Some((at, char)) = self.next_char() {
            if tokens.is_empty() && depth == 0 {
                top = self.line_start;
            }
            self.line_start = false;
            match char {
                '\n' => {
                    self.line_start = true;
                    if depth == 0 && !tokens.is_empty() {
                        if top {
                            return Some(tokens);
                        }
                        tokens.clear();
                    }
                }
                '#' => self.skip_comment(),
                '\\' if matches!(self.peek(), Some('\n' | '\r')) => {
                    while self.next_char().is_some_and(|(_, char)| char != '\n') {}
                }
                '"' | '\'' => {
                    let text = self.text(char, "");
                    tokens.push(text);
                }
                '=' if self.peek() == Some('=') => {
                    self.next_char();
                    tokens.push(Token::Other('='));
                }
                '=' => tokens.push(Token::Assign),
                _ if char.is_alphanumeric() || char == '_' => {
                    let word = self.word(at);
                    let prefix = word.len() <= 2 && word.chars().all(|char| "rRbBuUfFtT".contains(char));
                    match self.peek().filter(|char| prefix && matches!(char, '"' | '\'')) {
                        Some(quote) => {
                            self.next_char();
                            let text = self.text(quote, word);
                            tokens.push(text);
                        }
                        None => tokens.push(Token::Word(word)),
                    }
                }
                _ if char.is_whitespace() => {}
                _ => {
                    match char {
                        '(' | '[' | '{' => depth += 1,
                        ')' | ']' | '}' => depth = depth.saturating_sub(1),
                        _ => {}
                    }
                    tokens.push(Token::Other(char));
                }
            }
        }
        (top && !tokens.is_empty()).then_some(tokens)
    }
}

/// A docstring without the indentation that its place in the source gives it.
fn clean(doc: &str) -> String {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let margin = doc.lines().skip(1).filter(|line| !line.trim().is_empty()).map(indent).min().unwrap_or(0);
    let lines = doc.lines().enumerate().map(|(number, line)| match number {
        0 => line.trim_start(),
        _ => line.get(margin..).unwrap_or_default().trim_end(),
    });
    lines.collect::<Vec<_>>().join("\n").trim_matches('\n').trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn literals_at_the_top_level_are_read() {
        let source = concat!(
            "#!/usr/bin/python3\n# SCHEMA = \"no\"\n",
            "'''\n    Does things\n\n    And more, with a quote: \\'\n      indented\n'''\n",
            "import os\n",
            "def f():\n    SCHEMA = \"wrong\"\n    return {'a': [\n1]}\n",
            "OTHER = f(\"(\") # (\n",
            "SCHEMA = r\"\"\"\n\"a\": {\"pattern\": \"^\\\\d\\\"\"}\n\"\"\"\n",
            "SCHEMA_2 = (\n  '\"b\": '  # comment\n  \"\\\"\\x41\\u00e9\\n\\\"\".replace\n) if 0 else ''\n",
            "X = SCHEMA_2 = ('\"b\": ' \\\n  '\"\\\\\\\\n\"')\n",
            "CAPABILITIES = {\n    'CAP_A',\n    \"CAP_B\",\n}\n",
        );
        let metadata = read(source).expect("valid");
        assert_eq!(metadata.summary, "Does things");
        assert_eq!(metadata.description, "\nAnd more, with a quote: '\n  indented");
        assert_eq!(metadata.schema, Some(json!({"a": {"pattern": "^\\d\""}})));
        assert_eq!(metadata.schema_2, Some(json!({"b": "\\n"})));
        assert_eq!(metadata.capabilities, ["CAP_A", "CAP_B"]);
    }

    #[test]
    fn what_is_no_constant_text_is_no_schema() {
        for value in ["f\"\"", "b\"\"", "NAME", "\"\" + NAME", "{}", "(\"\",)", "\"\".join([])"] {
            assert_eq!(read(&format!("SCHEMA = {value}\n")).expect(value).schema, None, "{value}");
        }
        assert_eq!(read("SCHEMA == \"\"\n").expect("a comparison").schema, None);
        assert_eq!(read("SCHEMA = \"\"\n").expect("empty").schema, Some(json!({})));
    }

    #[test]
    fn a_broken_schema_is_reported_with_its_line() {
        let error = read("\n\nSCHEMA = \"\"\"\n\"a\": [\n\"\"\"").expect_err("no JSON");
        assert!(error.starts_with("invalid schema near line 5: "), "{error}");
    }

    #[test]
    fn any_text_is_survived() {
        for text in
            ["\"", "'''", "\"\"\"\"", "\\", "SCHEMA = \"\\", "SCHEMA = '''a", "((((", "]]", "r'", "\"\\x\"", "é = 'ü'"]
        {
            let _ = read(text);
        }
        assert_eq!(read("SCHEMA = '''\"a\": \"''\"'''").expect("quotes inside").schema, Some(json!({"a": "''"})));
    }
}
