//! YAML as PyYAML dumps it: keys sorted, blocks, texts plain where they read back as such, lines of about 80 columns.

use osbc_module_api::Value;
use regex::Regex;

/// From which column on a text goes on in a new line.
const WIDTH: usize = 80;
/// From which length on a text is no simple key; PyYAML counts its unwritten tag `!!str` too.
const LONG_KEY: usize = 123;

/// A document that says `value`; lists under the key `flow` stand in one line, in brackets.
pub(crate) fn dump(value: &Value, flow: &str) -> String {
    let mut writer = Writer { text: String::new(), column: 0, flow, reads_otherwise: reads_otherwise() };
    writer.node(value, 0, false);
    if writer.column > 0 {
        writer.line();
    }
    writer.text
}

/// What YAML reads as something else than a text: yes and no, numbers, nothing, times, merge keys.
fn reads_otherwise() -> Regex {
    Regex::new(concat!(
        r"^(?:yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF",
        r"|[-+]?(?:[0-9][0-9_]*)\.[0-9_]*(?:[eE][-+][0-9]+)?|\.[0-9][0-9_]*(?:[eE][-+][0-9]+)?",
        r"|[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+\.[0-9_]*|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        r"|[-+]?0b[0-1_]+|[-+]?0[0-7_]+|[-+]?(?:0|[1-9][0-9_]*)|[-+]?0x[0-9a-fA-F_]+",
        r"|[-+]?[1-9][0-9_]*(?::[0-5]?[0-9])+|<<|~|null|Null|NULL|=",
        r"|[0-9]{4}-[0-9]{2}-[0-9]{2}",
        r"|[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:[Tt]|[ \t]+)[0-9]{1,2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]*)?",
        r"(?:[ \t]*(?:Z|[-+][0-9]{1,2}(?::[0-9]{2})?))?)$",
    ))
    .expect("a valid expression")
}

struct Writer<'a> {
    text: String,
    column: usize,
    flow: &'a str,
    reads_otherwise: Regex,
}

impl Writer<'_> {
    fn put(&mut self, text: &str) {
        self.text += text;
        self.column += text.chars().count();
    }

    fn line(&mut self) {
        self.text.push('\n');
        self.column = 0;
    }

    fn indent(&mut self, indent: usize) {
        if self.column > 0 {
            self.line();
        }
        self.put(&" ".repeat(indent));
    }

    /// Writes a value whose lines begin at `indent`. What stands behind a key or a dash begins with a space.
    fn node(&mut self, value: &Value, indent: usize, behind: bool) {
        match value {
            Value::Object(entries) if !entries.is_empty() => {
                let mut entries: Vec<_> = entries.iter().collect();
                entries.sort_unstable_by_key(|(key, _)| *key);
                for (index, (key, value)) in entries.into_iter().enumerate() {
                    if index > 0 || behind {
                        self.indent(indent);
                    }
                    self.entry(key, value, indent);
                }
            }
            Value::Array(items) if !items.is_empty() => {
                for (index, item) in items.iter().enumerate() {
                    if index > 0 || behind {
                        self.indent(indent);
                    }
                    self.item("-", item, indent);
                }
            }
            other => {
                if behind {
                    self.put(" ");
                }
                self.leaf(other, indent);
            }
        }
    }

    /// Writes a mark and what belongs to it, which begins in the same line.
    fn item(&mut self, mark: &str, item: &Value, indent: usize) {
        self.put(mark);
        match item {
            Value::Object(entries) if !entries.is_empty() => {
                self.put(" ");
                self.node(item, indent + 2, false);
            }
            Value::Array(items) if !items.is_empty() => {
                self.put(" ");
                self.node(item, indent + 2, false);
            }
            other => self.node(other, indent + 2, true),
        }
    }

    fn entry(&mut self, key: &str, value: &Value, indent: usize) {
        let simple = !key.is_empty() && key.chars().count() < LONG_KEY && !Analysis::of(key).breaks;
        if !simple {
            self.item("?", &Value::String(key.to_owned()), indent);
            self.indent(indent);
            return self.item(":", value, indent);
        }
        self.scalar(key, indent, true);
        self.put(":");
        match value {
            Value::Array(items) if key == self.flow && !items.is_empty() => self.list_in_line(items, indent + 2),
            // The dashes of a list stand under its key.
            Value::Array(items) if !items.is_empty() => self.node(value, indent, true),
            value => self.node(value, indent + 2, true),
        }
    }

    fn list_in_line(&mut self, items: &[Value], indent: usize) {
        self.put(" [");
        for (index, item) in items.iter().enumerate() {
            if index > 0 {
                self.put(",");
            }
            if self.column > WIDTH {
                self.indent(indent);
            } else if index > 0 {
                self.put(" ");
            }
            self.leaf(item, indent);
        }
        self.put("]");
    }

    fn leaf(&mut self, value: &Value, indent: usize) {
        match value {
            Value::Object(_) => self.put("{}"),
            Value::Array(_) => self.put("[]"),
            Value::Null => self.put("null"),
            Value::Bool(said) => self.put(&said.to_string()),
            Value::Number(number) => {
                let number = number.to_string();
                // A float without a point would read back as a text.
                let bare = number.contains('e') && !number.contains('.');
                self.put(&if bare { number.replacen('e', ".0e", 1) } else { number });
            }
            Value::String(text) => self.scalar(text, indent, false),
        }
    }

    fn scalar(&mut self, text: &str, indent: usize, key: bool) {
        let analysis = Analysis::of(text);
        let empty_plain = text.is_empty();
        let otherwise = empty_plain || self.reads_otherwise.is_match(text);
        if analysis.plain && !otherwise {
            self.words(text, indent, key);
        } else if analysis.single && !(key && analysis.breaks) {
            self.put("'");
            self.single(text, indent, key);
            self.put("'");
        } else {
            self.double(text, indent, key);
        }
    }

    /// Writes a text without quotes; a single space may become a line's end.
    fn words(&mut self, text: &str, indent: usize, key: bool) {
        for part in parts(text) {
            if part == " " && self.column > WIDTH && !key {
                self.indent(indent);
            } else {
                self.put(part);
            }
        }
    }

    fn single(&mut self, text: &str, indent: usize, key: bool) {
        let parts = parts(text);
        let last = parts.len().saturating_sub(1);
        for (index, part) in parts.into_iter().enumerate() {
            if part == " " && self.column > WIDTH && !key && index > 0 && index < last {
                self.indent(indent);
            } else if part.starts_with('\n') {
                (0..=part.len()).for_each(|_| self.line());
                self.put(&" ".repeat(indent));
            } else {
                self.put(&part.replace('\'', "''"));
            }
        }
    }

    fn double(&mut self, text: &str, indent: usize, key: bool) {
        self.put("\"");
        let characters: Vec<char> = text.chars().collect();
        let mut pending = String::new();
        for (index, character) in characters.iter().copied().enumerate() {
            let plain = (' '..='~').contains(&character) && character != '"' && character != '\\';
            if !plain {
                let before = std::mem::take(&mut pending);
                self.put(&before);
                self.put(&escaped(character));
            }
            let inside = index > 0 && index + 1 < characters.len();
            if inside && (character == ' ' || pending.is_empty()) && !key && {
                self.column + pending.chars().count() > WIDTH
            } {
                let before = std::mem::take(&mut pending);
                self.put(&before);
                self.put("\\");
                self.indent(indent);
                // A space at the beginning of a line would be lost.
                let next = if plain { character } else { characters[index + 1] };
                if next == ' ' {
                    self.put("\\");
                }
            }
            if plain {
                pending.push(character);
            }
        }
        self.put(&pending);
        self.put("\"");
    }
}

/// A text cut where spaces or ends of lines begin or end.
fn parts(text: &str) -> Vec<&str> {
    let kind = |character: char| match character {
        ' ' => 0,
        '\n' => 1,
        _ => 2,
    };
    let mut parts = Vec::new();
    let mut start = 0;
    let mut last = None;
    for (index, character) in text.char_indices() {
        if last.is_some_and(|last| last != kind(character)) {
            parts.push(&text[start..index]);
            start = index;
        }
        last = Some(kind(character));
    }
    parts.push(&text[start..]);
    parts
}

fn escaped(character: char) -> String {
    let short = match character {
        '\0' => '0',
        '\x07' => 'a',
        '\x08' => 'b',
        '\t' => 't',
        '\n' => 'n',
        '\x0b' => 'v',
        '\x0c' => 'f',
        '\r' => 'r',
        '\x1b' => 'e',
        '"' => '"',
        '\\' => '\\',
        '\u{85}' => 'N',
        '\u{a0}' => '_',
        '\u{2028}' => 'L',
        '\u{2029}' => 'P',
        other => {
            return match u32::from(other) {
                code @ 0..=0xff => format!("\\x{code:02X}"),
                code @ 0x100..=0xffff => format!("\\u{code:04X}"),
                code => format!("\\U{code:08X}"),
            };
        }
    };
    format!("\\{short}")
}

/// What a text's characters allow.
struct Analysis {
    plain: bool,
    single: bool,
    breaks: bool,
}

impl Analysis {
    fn of(text: &str) -> Self {
        let is_break = |c: char| matches!(c, '\n' | '\u{85}' | '\u{2028}' | '\u{2029}');
        let is_blank = |c: char| matches!(c, '\0' | ' ' | '\t' | '\r') || is_break(c);
        let characters: Vec<char> = text.chars().collect();
        let blank_at = |index: usize| characters.get(index).is_none_or(|c| is_blank(*c));
        let mut indicators = text.starts_with("---") || text.starts_with("...");
        let mut special = false;
        for (index, character) in characters.iter().copied().enumerate() {
            indicators |= match character {
                ',' | '[' | ']' | '{' | '}' | '&' | '*' | '!' | '|' | '>' | '\'' | '"' | '%' | '@' | '`' => index == 0,
                '#' => index == 0 || blank_at(index - 1),
                '-' | '?' => index == 0 && blank_at(1),
                ':' => blank_at(index + 1),
                _ => false,
            };
            special |= character != '\n' && !(' '..='~').contains(&character);
        }
        let breaks = characters.iter().copied().any(is_break);
        let pair = |first: fn(char) -> bool, second: fn(char) -> bool| {
            characters.windows(2).any(|pair| first(pair[0]) && second(pair[1]))
        };
        let space_break = pair(|c| c == ' ', |c| c == '\n');
        let break_space = pair(|c| c == '\n', |c| c == ' ');
        let ends = [characters.first(), characters.last()].into_iter().flatten().any(|c| matches!(c, ' ' | '\n'));
        let single = !special && !space_break && !break_space;
        Self { plain: single && !indicators && !breaks && !ends, single, breaks }
    }
}

#[cfg(test)]
mod tests {
    use osbc_module_api::json;

    use super::*;

    /// What PyYAML 6.0 makes of the same values.
    #[test]
    fn documents_are_pyyamls() {
        let large: Value = serde_json::from_str("1e+22").unwrap();
        let value = json!({
            "b": {"list": [1, 1.5, large, null, true], "empty": {}, "none": []},
            "a": [{"x": 1, "y": [["p", "q"], []]}, "yes", "0x1f", "", "12:30", "2026-01-01"],
            "sources": ["Azure", "None"],
            "texts": [" lead", "a: b", "a #b", "it's: x", "two\nlines", "end\n", "caf\u{e9} \\", "-", "- a", "--", "a b "],
            "": 1,
        });
        let expected = concat!(
            "? ''\n: 1\na:\n- x: 1\n  y:\n  - - p\n    - q\n  - []\n- 'yes'\n- '0x1f'\n- ''\n- '12:30'\n- '2026-01-01'\n",
            "b:\n  empty: {}\n  list:\n  - 1\n  - 1.5\n  - 1.0e+22\n  - null\n  - true\n  none: []\n",
            "sources: [Azure, None]\n",
            "texts:\n- ' lead'\n- 'a: b'\n- 'a #b'\n- 'it''s: x'\n- 'two\n\n  lines'\n- 'end\n\n  '\n- \"caf\\xE9 \\\\\"\n- '-'\n- '- a'\n",
            "- --\n- 'a b '\n",
        );
        assert_eq!(dump(&value, "sources"), expected);
    }

    #[test]
    fn long_texts_go_on_in_the_next_line() {
        let words = "word ".repeat(20);
        let words = words.trim();
        let plain = format!("a: {}\n  {}\n", &words[..79], &words[80..]);
        assert_eq!(dump(&json!({"a": words}), ""), plain);
        let single = format!("a: '# {}\n  {}'\n", &words[..79], &words[80..]);
        assert_eq!(dump(&json!({"a": format!("# {words}")}), ""), single);
        let double = format!("a: \"\\t{}\\\n  \\ {}\"\n", &words[..79], &words[80..]);
        assert_eq!(dump(&json!({"a": format!("\t{words}")}), ""), double);
    }
}
