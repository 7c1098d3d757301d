//! TOML as Python reads it (tomllib) and writes it (tomli_w): comments are not kept, order is.

use std::fmt::Write as _;

use osbc_module_api::{Error, Value};
use toml_edit::{DocumentMut, Item, TableLike};

/// A value of TOML.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Toml {
    /// A text.
    Text(String),
    /// A number, time, `true` or `false`, as it is written.
    Literal(String),
    /// An array.
    List(Vec<Toml>),
    /// A table.
    Table(Table),
}

/// A table, in order.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Table(Vec<(String, Toml)>);

/// How far the items of a list are indented.
const INDENT: usize = 4;
/// How long the line of a table in a list may be.
const WIDTH: usize = 100;

impl Table {
    /// Reads a file.
    ///
    /// # Errors
    /// It is no TOML.
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        let document: DocumentMut = text.parse().map_err(|error| Error::failed(format!("it is no TOML: {error}")))?;
        Ok(table(document.as_table()))
    }

    /// The table that an object says.
    ///
    /// # Errors
    /// Something in it is null.
    pub(crate) fn from_json<'a>(entries: impl IntoIterator<Item = (&'a String, &'a Value)>) -> Result<Self, Error> {
        let entries = entries.into_iter().map(|(key, value)| Ok((key.clone(), from_json(value)?)));
        Ok(Self(entries.collect::<Result<_, Error>>()?))
    }

    /// Nothing but the table called `key`, if it is one and has something.
    pub(crate) fn only(mut self, key: &str) -> Self {
        self.0.retain(|(there, value)| there == key && *value != Toml::Table(Self::default()));
        self
    }

    /// Takes over `others`, tables into tables; else what is there gives way, in its place.
    pub(crate) fn merge(&mut self, others: Table) {
        for (key, value) in others.0 {
            match (self.0.iter_mut().find(|(there, _)| *there == key), value) {
                (Some((_, Toml::Table(table))), Toml::Table(more)) => table.merge(more),
                (Some((_, there)), value) => *there = value,
                (None, value) => self.0.push((key, value)),
            }
        }
    }

    /// The file.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        self.write(&mut text, "", false);
        text
    }

    /// Writes the table called `name`: first what fits a line, then the tables in it.
    fn write(&self, text: &mut String, name: &str, of_list: bool) {
        let mut literals = Vec::new();
        let mut tables = Vec::new();
        for (key, value) in &self.0 {
            match value {
                Toml::Table(table) => tables.push((key, table, false)),
                Toml::List(items) => match of_tables(items) {
                    Some(list) => tables.extend(list.into_iter().map(|table| (key, table, true))),
                    None => literals.push((key, value)),
                },
                value => literals.push((key, value)),
            }
        }
        let mut written = false;
        if of_list || (!name.is_empty() && (!literals.is_empty() || tables.is_empty())) {
            let title = if of_list { format!("[[{name}]]") } else { format!("[{name}]") };
            writeln!(text, "{title}").expect("a string grows");
            written = true;
        }
        for (key, value) in &literals {
            writeln!(text, "{} = {}", key_text(key), value.text(0)).expect("a string grows");
            written = true;
        }
        for (key, table, of_list) in tables {
            if written {
                text.push('\n');
            }
            written = true;
            let key = key_text(key);
            let name = if name.is_empty() { key } else { format!("{name}.{key}") };
            table.write(text, &name, of_list);
        }
    }

    fn in_line(&self) -> String {
        if self.0.is_empty() {
            return "{}".to_owned();
        }
        let entries = self.0.iter().map(|(key, value)| format!("{} = {}", key_text(key), value.text(0)));
        format!("{{ {} }}", entries.collect::<Vec<_>>().join(", "))
    }
}

/// The tables of a list that is nothing but tables, unless all of them are short enough to stand in it.
fn of_tables(items: &[Toml]) -> Option<Vec<&Table>> {
    let tables = items.iter().map(|item| match item {
        Toml::Table(table) => Some(table),
        _ => None,
    });
    let tables = tables.collect::<Option<Vec<_>>>().filter(|tables| !tables.is_empty())?;
    let short = |table: &&Table| {
        let line = table.in_line();
        line.chars().count() + INDENT < WIDTH && !line.contains('\n')
    };
    if tables.iter().all(short) { None } else { Some(tables) }
}

impl Toml {
    fn text(&self, depth: usize) -> String {
        match self {
            Toml::Text(text) => quoted(text),
            Toml::Literal(text) => text.clone(),
            Toml::Table(table) => table.in_line(),
            Toml::List(items) if items.is_empty() => "[]".to_owned(),
            Toml::List(items) => {
                let (outer, inner) = (" ".repeat(INDENT * depth), " ".repeat(INDENT * (depth + 1)));
                let items: String = items.iter().map(|item| format!("{inner}{},\n", item.text(depth + 1))).collect();
                format!("[\n{items}{outer}]")
            }
        }
    }
}

fn key_text(key: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !key.is_empty() && key.chars().all(bare) { key.to_owned() } else { quoted(key) }
}

fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars() {
        match character {
            '\x08' => quoted += "\\b",
            '\n' => quoted += "\\n",
            '\x0c' => quoted += "\\f",
            '\r' => quoted += "\\r",
            '"' => quoted += "\\\"",
            '\\' => quoted += "\\\\",
            '\0'..='\x1f' | '\x7f' if character != '\t' => {
                write!(quoted, "\\u{:04x}", u32::from(character)).expect("a string grows");
            }
            other => quoted.push(other),
        }
    }
    quoted + "\""
}

fn from_json(value: &Value) -> Result<Toml, Error> {
    Ok(match value {
        Value::Null => return Err(Error::failed("TOML has no null")),
        Value::Bool(said) => Toml::Literal(said.to_string()),
        Value::Number(number) => Toml::Literal(number.to_string()),
        Value::String(text) => Toml::Text(text.clone()),
        Value::Array(items) => Toml::List(items.iter().map(from_json).collect::<Result<_, _>>()?),
        Value::Object(entries) => Toml::Table(Table::from_json(entries)?),
    })
}

fn table(table: &dyn TableLike) -> Table {
    Table(table.iter().filter_map(|(key, item)| Some((key.to_owned(), item_value(item)?))).collect())
}

fn item_value(item: &Item) -> Option<Toml> {
    match item {
        Item::None => None,
        Item::Value(given) => Some(value(given)),
        Item::Table(given) => Some(Toml::Table(table(given))),
        Item::ArrayOfTables(list) => Some(Toml::List(list.iter().map(|given| Toml::Table(table(given))).collect())),
    }
}

fn value(value: &toml_edit::Value) -> Toml {
    use toml_edit::Value as V;
    match value {
        V::String(text) => Toml::Text(text.value().clone()),
        V::Integer(number) => Toml::Literal(number.value().to_string()),
        V::Float(number) => {
            let number = *number.value();
            Toml::Literal(if number.is_nan() {
                "nan".to_owned()
            } else if number.is_infinite() {
                if number > 0.0 { "inf" } else { "-inf" }.to_owned()
            } else {
                osbc_ir::value::float_repr(number)
            })
        }
        V::Boolean(said) => Toml::Literal(said.value().to_string()),
        // Python writes a space between date and time, and no `Z`.
        V::Datetime(time) => Toml::Literal(time.value().to_string().replace('T', " ").replace('Z', "+00:00")),
        V::Array(items) => Toml::List(items.iter().map(self::value).collect()),
        V::InlineTable(given) => Toml::Table(table(given)),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Command;

    use osbc_fixtures::has_tool;
    use osbc_module_api::json;
    use proptest::prelude::*;

    use super::*;

    fn text(value: Value) -> String {
        Table::from_json(value.as_object().unwrap()).unwrap().text()
    }

    #[test]
    fn files_are_tomli_ws() {
        let value = json!({
            "a": {"b": {"x": [1, [2.0, "three"]], "s": "q\"\\\n\t\u{1}é"}, "empty": {}, "none": []},
            "top": true,
            "key with space": {"list": [{"a": 1}, {}]},
            "long": [{"text": "x".repeat(100)}, {"more": {"deep": 1}}],
        });
        let expected = concat!(
            "top = true\n\n[a]\nnone = []\n\n[a.b]\nx = [\n    1,\n    [\n        2.0,\n        \"three\",\n    ],\n]\n",
            "s = \"q\\\"\\\\\\n\t\\u0001é\"\n\n[a.empty]\n\n[\"key with space\"]\nlist = [\n    { a = 1 },\n    {},\n]\n\n[[long]]\n",
        );
        let long = format!("text = \"{}\"\n\n[[long]]\n\n[long.more]\ndeep = 1\n", "x".repeat(100));
        assert_eq!(text(value), format!("{expected}{long}"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        #[test]
        fn python_reads_back_what_was_written(key in "([ -~]|[\n\té€]){1,10}", value in "([ -~]|[\u{1}\n\r\té€\u{7f}]){0,20}") {
            if !has_tool("python3") {
                return Ok(());
            }
            let given = json!({"table": {&key: [&value]}, &key: &value});
            prop_assume!(key != "table");
            let file = tempfile::NamedTempFile::new().unwrap();
            fs::write(file.path(), text(given.clone())).unwrap();
            let script = "import json, sys, tomllib; print(json.dumps(tomllib.load(open(sys.argv[1], 'rb'))))";
            let output = Command::new("python3").args(["-c", script]).arg(file.path()).output().unwrap();
            let read: Option<Value> = serde_json::from_slice(&output.stdout).ok();
            prop_assert_eq!(read, Some(given));
        }
    }

    #[test]
    fn what_is_read_is_written() {
        let given = "# gone\nf = 1e3\nd = 2020-01-02T03:04:05Z\ni = { a = 0x10, b = [ ] }\n[[t]]\nx = 'y'\n";
        let expected =
            "f = 1000.0\nd = 2020-01-02 03:04:05+00:00\nt = [\n    { x = \"y\" },\n]\n\n[i]\na = 16\nb = []\n";
        assert_eq!(Table::parse(given).unwrap().text(), expected);
        assert!(Table::parse("a = ").unwrap_err().to_string().starts_with("it is no TOML"));
    }

    #[test]
    fn tables_are_merged_in_place() {
        let mut table = Table::parse("a = 1\n[b]\nx = 1\ny = 2\n").unwrap();
        table.merge(
            Table::from_json(json!({"c": 3, "b": {"y": 4, "z": 5}, "a": {"d": 6}}).as_object().unwrap()).unwrap(),
        );
        assert_eq!(table.text(), "c = 3\n\n[a]\nd = 6\n\n[b]\nx = 1\ny = 4\nz = 5\n");
        assert_eq!(table.clone().only("b").text(), "[b]\nx = 1\ny = 4\nz = 5\n");
        assert_eq!(Table::parse("[b]\n").unwrap().only("b"), Table::default());
    }
}
