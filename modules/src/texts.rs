//! Formats of text files, and option values as they write them.

pub(crate) mod ini;
pub(crate) mod one_line;
pub(crate) mod options;
pub(crate) mod python;
pub(crate) mod settings;
pub(crate) mod shell;
pub(crate) mod systemd_unit;
pub(crate) mod systemd_words;
pub(crate) mod template;
pub(crate) mod text;
pub(crate) mod toml;
pub(crate) mod yaml;
